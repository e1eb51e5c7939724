"""`--population` and `--ratio`: from flags to the seeds and ratios of a spec."""

from __future__ import annotations

import pytest

from raypruning.app.request import POPULATION_RATIOS, SweepRequest, resolve_request
from raypruning.errors import SpecError


def spec_of(target: str = "lenet5", **fields):
    request = SweepRequest(target=target, gpus_per_probe=0.0, **fields)
    return resolve_request(request, environment={}).spec


def test_population_trains_so_many_seeds_and_prunes_all_to_the_same_ratios():
    spec = spec_of(population=30)
    assert spec.seeds == tuple(range(30))
    assert (spec.search.strategy, spec.search.ratios) == ("grid", POPULATION_RATIOS)


def test_population_of_another_master_seed_has_other_seeds():
    assert spec_of(population=3, seeds=(7,)).seeds == (70_000, 70_001, 70_002)


def test_ratios_given_are_those_that_are_pruned_to_with_or_without_a_population():
    assert spec_of(population=2, ratios=(0.9, 0.5, 0.9)).search.ratios == (0.5, 0.9)
    alone = spec_of(ratios=(0.9,))
    assert (alone.search.strategy, alone.search.ratios) == ("grid", (0.9,))
    assert alone.seeds == spec_of().seeds


def test_population_keeps_ratios_that_are_set_otherwise():
    assert spec_of(population=2, settings=("search.ratios=[0.25]",)).search.ratios == (0.25,)


def test_population_keeps_the_links_of_a_chain():
    chain = spec_of("lenet5-chain", population=3)
    assert chain.schedule == spec_of("lenet5-chain").schedule
    assert (chain.search.strategy, chain.seeds) == ("chain", (0, 1, 2))


def test_population_searches_ratios_of_each_seed_if_told_to():
    assert spec_of(population=2, search="bisect").search.strategy == "bisect"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"population": 3, "seeds": (1, 2)}, "one master seed: give --seed once"),
        ({"population": 10_001}, "1 to 10000 seeds, got 10001"),
        ({"ratios": (0.9,), "search": "bisect"}, "--search bisect looks for them: leave one out"),
        ({"ratios": (0.9,), "schedule": "iterative"}, "schedule.ratios="),
        ({"target": "lenet5-chain", "ratios": (0.9,)}, "schedule.ratios="),
        ({"ratios": (1.5,)}, "search.ratios"),
    ],
)
def test_flags_that_exclude_each_other_are_refused_in_one_line(fields, says):
    with pytest.raises(SpecError) as caught:
        spec_of(**fields)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
