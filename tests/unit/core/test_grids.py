"""The grids of a study against numpy's own spacing, and against the table as it is printed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from raypruning.core.search.axis import position
from raypruning.core.search.grids import even_steps, grid_names, has_own_steps, named_grid

# Reference, section 3: prune steps, retrains, and percentages removed where the study retrains.
TWENTY = "15.0 30.2 42.7 53.0 61.4 68.3 74.0 78.6 82.5 85.6 88.2 90.3 92.0 93.5 94.6 95.6 96.4 97.0 97.6 98.0"
TWENTY_TWO = (
    "15.0 24.1 32.1 39.4 45.8 51.6 56.8 61.4 65.5 69.2 72.4 75.4 78.0 80.3 82.4 84.3 86.0 87.5 88.8 90.0 92.6 95.3"
)
SIXTEEN = "20.0 35.7 48.4 58.5 66.7 73.2 78.5 82.7 86.1 88.8 91.0 92.8 94.2 95.4 96.3 97.0"
IMAGENET = "10.0 17.4 24.2 30.4 36.2 41.4 46.2 50.7 54.7 58.4 61.9 65.0 69.0 73.2 77.4 81.6"
RESNET20 = (
    "15.0 22.4 29.2 35.4 41.0 46.2 50.8 55.1 59.1 62.6 65.9 68.9 71.6 74.1 76.3 78.4 80.3 82.0 83.6 85.0 89.6 93.8 98.0"
)
PRINTED = {
    "lost/resnet20": (69, RESNET20),
    "lost/resnet56": (60, TWENTY),
    "lost/resnet110": (60, TWENTY),
    "lost/vgg16": (60, TWENTY),
    "lost/densenet22": (66, TWENTY_TWO),
    "lost/wrn16_8": (69, TWENTY_TWO + " 98.0"),
    "lost/resnet101": (16, IMAGENET),
    "lost/resnet18": (18, IMAGENET + " 85.8 90.0"),
    "lost/deeplabv3_resnet50": (15, "20.0 36.5 49.6 60.0 68.3 74.8 80.0 84.1 87.4 90.0 92.0 93.7 95.1 96.2 97.0"),
    "lost_robust/densenet22": (13, "20.0 36.5 49.6 60.0 68.3 74.8 80.0 84.1 87.4 90.0 92.1 93.7 95.0"),
    **{f"lost_robust/{net}": (16, SIXTEEN) for net in ("resnet20", "resnet56", "resnet110", "vgg16", "wrn16_8")},
}


def test_every_grid_is_in_the_printed_table():
    assert set(grid_names()) == set(PRINTED)


@pytest.mark.parametrize("name", sorted(PRINTED))
def test_grid_retrains_where_the_table_says_and_prunes_as_often(name):
    num_steps, printed = PRINTED[name]
    links = named_grid(name)
    assert " ".join(f"{100 * link.ratio:.1f}" for link in links) == printed
    assert sum(1 + len(link.via) for link in links) == num_steps
    assert has_own_steps(name) is (num_steps > len(links))
    steps = [0.0, *(ratio for link in links for ratio in (*link.via, link.ratio))]
    assert all(a < b for a, b in pairwise(steps))


def test_resnet20_is_what_numpy_makes_of_the_studys_formula():
    # In chunks of three: two that only prune, one that retrains.
    kept = np.concatenate([np.geomspace(0.99, 0.855, 2), np.geomspace(0.85, 0.15, 58), np.linspace(0.132, 0.02, 9)])
    found = [ratio for link in named_grid("lost/resnet20") for ratio in (*link.via, link.ratio)]
    assert found == pytest.approx(1 - kept, abs=0.5e-6 + 1e-12)  # rounded to a millionth
    assert [len(link.via) for link in named_grid("lost/resnet20")] == [2] * 23


@pytest.mark.parametrize("name", sorted(PRINTED.keys() - {"lost/resnet20"}))
def test_steps_between_printed_ratios_are_even_in_the_logarithm_of_what_is_kept(name):
    before = 0.0
    for link in named_grid(name):
        widths = [position(b) - position(a) for a, b in pairwise((before, *link.via, link.ratio))]
        # Both ends of a step are rounded to a millionth, relative to what is kept at its upper end.
        mean = (position(link.ratio) - position(before)) / len(widths)
        assert widths == pytest.approx([mean] * len(widths), abs=1e-6 / (1 - link.ratio))
        before = link.ratio


@pytest.mark.parametrize("num", [1, 2, 5])
def test_even_steps_end_exactly_where_asked_and_leave_their_beginning_out(num):
    steps = even_steps(0.123456789, 0.987654321, num)
    assert len(steps) == num and steps[-1] == 0.987654321
    assert all(0.123456789 < a < b for a, b in pairwise(steps))


def test_even_steps_in_a_range_of_a_few_millionths_are_fewer_than_asked():
    assert even_steps(0.5, 0.500003, 10) == (0.500001, 0.500002, 0.500003)
