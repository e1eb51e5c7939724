"""Networks that differ in their seed alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypruning.core.identity import derive_seed
from raypruning.core.populations import SEEDS_PER_MASTER, dense_population, pruned_populations, seeds_of
from raypruning.errors import SpecError
from tests.unit.reporting.sample import realistic


def test_seeds_of_master_zero_are_those_that_any_sweep_has():
    assert seeds_of(4) == (0, 1, 2, 3)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 50), st.integers(1, 50))
def test_seeds_of_two_masters_are_never_the_same(one, other, num, num_other):
    shared = set(seeds_of(num, master=one)) & set(seeds_of(num_other, master=other))
    assert len(shared) == (min(num, num_other) if one == other else 0)


def test_roles_of_a_population_are_all_seeded_differently():
    roles = ("init", "order", "dropout", "sample")
    found = {derive_seed(seed, role) for seed in (*seeds_of(30), *seeds_of(30, master=1)) for role in roles}
    assert len(found) == 2 * 30 * len(roles)


@pytest.mark.parametrize("num", [0, SEEDS_PER_MASTER + 1])
def test_population_of_too_few_or_too_many_is_refused(num):
    with pytest.raises(SpecError, match=f"1 to {SEEDS_PER_MASTER} seeds, got {num}"):
        seeds_of(num)


def test_populations_hold_each_measured_network_once_and_no_failed_or_retrained_dense_one():
    results = realistic()
    dense = dense_population(results)
    assert dense is not None
    assert dense.seeds == results.spec.seeds
    found = pruned_populations(results)
    ids = [one.probe.id for population in (dense, *found) for one in population.networks]
    expected = [
        one.probe.id for one in results.probes if one.is_done and (one.probe.curve.is_parent or one.probe.ratio)
    ]
    assert sorted(ids) == sorted(expected)
    for one in found:
        assert {n.probe.curve.method for n in one.networks} == {one.method}
        assert {n.probe.curve.budget for n in one.networks} == {one.budget}
        assert {n.probe.ratio for n in one.networks} == {one.ratio}
        assert list(one.seeds) == sorted(set(one.seeds))


def test_populations_come_in_the_order_of_the_spec_with_ascending_ratios():
    results = realistic()
    methods, budgets = [one.label for one in results.spec.methods], list(results.spec.budgets)
    keys = [(methods.index(p.method), budgets.index(p.budget), p.ratio) for p in pruned_populations(results)]
    assert keys == sorted(set(keys))


def test_sweep_without_a_measured_parent_has_no_dense_population():
    results = realistic()
    assert dense_population(results.model_copy(update={"probes": ()})) is None
