from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.integration import known_answer
from tests.integration.commands import Ran, run_sweep

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[..., Ran]:
    """`run_sweep`, into a storage of the test's own unless told otherwise."""

    def run(target: str | Path, *options: str, storage: Path = tmp_path / "store", executor: str = "inline") -> Ran:
        return run_sweep(target, *options, storage=storage, executor=executor)

    return run


@pytest.fixture
def known_sweep(tmp_path: Path) -> Path:
    """The file of the sweep with a known answer."""
    path = tmp_path / "known.toml"
    path.write_text(known_answer.SWEEP)
    return path


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray with two slots for every test of this process: each start costs seconds."""
    import ray

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), before]))  # for workers to find test plugins
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=150 << 20)
    yield
    ray.shutdown()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before
