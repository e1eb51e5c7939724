"""Two workers on two nodes run each probe together, and one is killed on the way: the answer is that of one machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.clusters import SWEEP, Cluster, Driver, Watch, in_mid_training
from tests.integration.commands import Ran, run_sweep
from tests.integration.stored import all_predictions, commits, weights_sha256

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TOGETHER = [*SWEEP, "--set", "resources.workers_per_probe=2", "--cpus-per-probe", "2"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Of two nodes of one CPU: the workers of a probe cannot both be on one."""
    with Cluster(num_workers=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """In this process and another one that it starts for each probe."""
    ran = run_sweep(*TOGETHER, storage=tmp_path_factory.mktemp("undisturbed"))
    assert ran.exit_code in (0, 3), ran.stderr
    return ran


def test_workers_on_two_nodes_of_which_one_is_killed_within_an_epoch_give_the_same_bits(
    cluster: Cluster, undisturbed: Ran, tmp_path: Path
):
    storage = tmp_path / "store"
    words = (*TOGETHER, "--storage", storage, "--executor", "ray", "--address", cluster.address)
    environment = {**cluster.environment, "RAYPRUNING_SAVE_SECONDS": "0"}
    with Watch(storage) as watch, Driver(*words, said=tmp_path / "driver", environment=environment) as driver:
        leaders = driver.wait_for(lambda: [node for node in cluster.workers if node.workers])
        assistants = driver.wait_for(lambda: [node for node in cluster.workers if node.running("_Assistant")])
        assert len(leaders) == len(assistants) == 1 and leaders != assistants
        driver.wait_for(lambda: commits(storage) and in_mid_training(storage))
        killed = driver.wait_for(lambda: [one for node in cluster.workers for one in node.running("_Assistant.work")])
        killed[0].kill()
        ended = driver.wait(seconds=400)
    assert ended.exit_code == undisturbed.exit_code, ended.stderr
    assert weights_sha256(storage) == weights_sha256(undisturbed.storage)
    assert all_predictions(storage) == all_predictions(undisturbed.storage)
    for part in ("potentials", "excess_errors", "summaries"):
        assert ended.answer[part] == undisturbed.answer[part]
    assert watch.repeated == set()
