"""What is left of a heat map with more networks than a figure has room for."""

# M networks, S sources of pixels

from __future__ import annotations

import re

import numpy as np
import pytest

from raypruning.analysis.features import HeatMap, names_of
from raypruning.reporting.features_plots import MAX_PRUNED, panels, thinned_map
from tests.unit.analysis.test_features import NETWORKS, looker, planted


@pytest.mark.parametrize("num_pruned", [1, MAX_PRUNED, MAX_PRUNED + 1, 30])
def test_heat_map_keeps_parent_controls_and_the_first_and_last_ratio(num_pruned: int):
    pruned = [looker("pruned", ratio=index / 40) for index in range(1, num_pruned + 1)]
    networks = [looker("parent"), *pruned, looker("separate", seed=1)]
    names = names_of(networks)
    mean_SM = np.arange((len(names) + 2) * len(names), dtype=float).reshape(-1, len(names))
    found = thinned_map(HeatMap((*names, "random", "whole image"), names, mean_SM, -mean_SM), networks)
    assert len(found.judges) == min(num_pruned, MAX_PRUNED) + 2
    assert found.sources == (*found.judges, "random", "whole image")
    assert (found.judges[0], found.judges[1], *found.judges[-2:]) == (names[0], names[1], *names[-2:])
    for row, source in enumerate(found.sources):
        for column, judge in enumerate(found.judges):
            place = [*names, "random", "whole image"].index(source), names.index(judge)
            assert found.mean_SM[row, column] == mean_SM[place] == -found.standard_error_SM[row, column]


def test_every_cell_of_the_figure_has_its_number():
    first, second = panels(planted())
    assert re.findall(r">(0\.\d\d)<", first.svg) == [
        *("0.94", "0.94", "0.23", "0.23") * 2,
        *("0.23", "0.23", "0.94", "0.94") * 2,
        *["0.10"] * 4,
        *["0.94"] * 4,
    ]
    assert "parent on separate" in second.svg and "parent on random" in second.svg


def test_single_ratio_has_no_line():
    assert len(panels(planted(networks=NETWORKS[:2]))) == 1
