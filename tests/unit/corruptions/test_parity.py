"""Every corruption beside the oracle's, with the oracle's own draws: from its package, and from samples kept here.

The samples are what imagecorruptions 1.1.2 made of one picture of 32 x 32 px, so that parity is tested without it too.
`pytest --update-golden` writes them where the package is installed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raypruning.corruptions.parameters import NAMES, NUM_SEVERITIES, PARAMETER_SETS, parameters_of
from tests.unit.corruptions import oracle
from tests.unit.corruptions.parity import SIZES, compare, difference, ours, picture
from tests.unit.corruptions.replays import REPLAYS

FOLDER = Path(__file__).parents[2] / "golden" / "corruptions"
SEED = 7
SEVERITIES = range(1, NUM_SEVERITIES + 1)
# The oracle's frost needs its pictures, whose licence is unknown: they are in no file of ours.
SAMPLED = sorted(set(REPLAYS) - {"frost"})

# Both compute the same real number, by other roads, and truncate it: where it is nearly whole they may differ by one.
LARGEST_DIFFERENCE = 1
# How often that may be. A mistake in a constant, a border or an order changes far more than a fifth of all values.
LEAST_SHARE_EQUAL = 0.8


def test_every_corruption_has_an_oracle_but_the_one_whose_oracle_is_another_algorithm():
    # Frost's replay is tested where it is defined.
    assert set(NAMES) - set(REPLAYS) <= {"elastic_transform"}


@pytest.fixture
def samples(request: pytest.FixtureRequest, parameter_set: str) -> dict[str, np.ndarray]:
    path = FOLDER / f"{parameter_set}.npz"
    if request.config.getoption("--update-golden"):
        oracle.require()
        write_samples(path, parameter_set)
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def write_samples(path: Path, parameter_set: str) -> None:
    image = picture(32, 32)
    made = {
        name: np.stack(
            [oracle.reference(name, severity, image, seed=SEED, parameter_set=parameter_set) for severity in SEVERITIES]
        )
        for name in SAMPLED
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **made)


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
def test_corruptions_are_those_of_the_kept_samples(samples: dict[str, np.ndarray], parameter_set: str):
    image = picture(32, 32)
    assert sorted(samples) == SAMPLED
    for name, expected_S in samples.items():
        for severity in SEVERITIES:
            parameters = parameters_of(name, severity, parameter_set=parameter_set)
            draws = REPLAYS[name](np.random.RandomState(SEED), image, parameters)
            found = ours(name, severity, image, draws, parameter_set=parameter_set)
            gap = compare(found, expected_S[severity - 1])
            assert gap.largest <= LARGEST_DIFFERENCE, (name, severity, gap)
            assert gap.share_equal >= LEAST_SHARE_EQUAL, (name, severity, gap)


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
@pytest.mark.parametrize("name", SAMPLED)
def test_corruption_is_the_oracles_at_any_size(name: str, parameter_set: str):
    oracle.require()
    for height, width in SIZES:
        image = picture(height, width, seed=height)
        for severity in SEVERITIES:
            gap = difference(name, severity, image, REPLAYS[name], parameter_set=parameter_set)
            assert gap.largest <= LARGEST_DIFFERENCE, (severity, height, width, gap)
            assert gap.share_equal >= LEAST_SHARE_EQUAL, (severity, height, width, gap)
