"""What is made of orders of pixels and confidences: kept pixels, cost, heat map, comparisons."""

# N images, P pixels, M networks, S sources of pixels

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import ttest_rel

from raypruning.analysis.features import (
    Features,
    FeaturesRecord,
    Looker,
    Question,
    Selector,
    difference,
    estimate,
    forwards_of,
    heat_map,
    kept_mask,
    looks,
    names_of,
    num_kept_of,
    random_orders,
)
from raypruning.analysis.multiple import holm

NUM, PIXELS, KEPT = 8, 16, 4


def looker(role: str, *, ratio: float = 0.0, seed: int = 0) -> Looker:
    method, budget = ("wt", 2) if role == "pruned" else ("dense", 0)
    return Looker.model_validate(
        {
            "role": role,
            "training": f"{role}-{ratio}",
            "seed": seed,
            "method": method,
            "budget": budget,
            "ratio": ratio,
            "ratio_reached": ratio,
        }
    )


NETWORKS = (
    looker("parent"),
    looker("pruned", ratio=0.5),
    looker("pruned", ratio=0.9),
    looker("separate", seed=1),
)


def planted(*, networks: tuple[Looker, ...] = NETWORKS, num: int = NUM) -> Features:
    """The parent and the first pruned network keep the first pixels, the others the last ones.

    Who sees the pixels it kept itself is sure, .9 and a little that differs from image to image; else .2 of it.
    """
    first_P, last_P = np.arange(PIXELS)[::-1], np.arange(PIXELS)
    orders_P = [first_P, first_P, last_P, last_P][: len(networks)]
    orders_MNP = {
        one.training: np.tile(order_P, (num, 1)).astype(np.uint16)
        for one, order_P in zip(networks, orders_P, strict=True)
    }
    sources = [*orders_P, None, None]
    sure_N = 0.9 + 0.01 * np.arange(num)
    unsure_N = 0.2 + 0.01 * np.arange(num)[::-1]
    confidence_SMN = np.array(
        [
            [sure_N if source is None or np.array_equal(source, own) else unsure_N for own in orders_P]
            for source in sources
        ]
    )
    confidence_SMN[-2] = 0.1
    return Features(
        record=FeaturesRecord(
            sweep="planted",
            question=Question(data_fingerprint="d", selector=Selector(mode="exact"), images=tuple(range(num))),
            method="wt",
            budget=2,
            seed=0,
            keep=KEPT / PIXELS,
            networks=networks,
            class_names=("a", "b"),
            pictures=(0,),
            image_size=4,
            random_seed=0,
        ),
        orders_MNP=orders_MNP,
        labels_N=np.zeros(num, np.int64),
        confidence_SMN=confidence_SMN.astype(np.float32),
        predicted_SMN=np.zeros(confidence_SMN.shape, np.uint16),
        top_SMN=confidence_SMN.astype(np.float32),
        pictures_KCHW=np.zeros((1, 1, 4, 4), np.uint8),
    )


def test_heat_map_of_planted_networks_tells_who_looks_where():
    table = heat_map(planted())
    assert table.sources == ("parent", "50.0 %", "90.0 %", "separate", "random", "whole image")
    assert table.judges == table.sources[:4]
    sure, unsure = 0.9 + 0.01 * 3.5, 0.2 + 0.01 * 3.5
    same = np.kron(np.eye(2), np.ones((2, 2)))
    # float32 has 24 bits: 6e-8 of a number below 1.
    np.testing.assert_allclose(table.mean_SM[:4], np.where(same == 1, sure, unsure), atol=1e-7)
    np.testing.assert_allclose(table.mean_SM[4:], [[0.1] * 4, [sure] * 4], atol=1e-7)
    # The sample standard deviation of 0 to 7 is sqrt(6).
    np.testing.assert_allclose(table.standard_error_SM[:4], 0.01 * np.sqrt(6 / 8), rtol=1e-4)


def test_pruned_networks_are_compared_with_their_parent_and_with_both_controls():
    near, far = looks(planted())
    assert (near.network.ratio, far.network.ratio) == (0.5, 0.9)
    assert (near.shared.mean, far.shared.mean) == (1.0, 0.0)
    assert near.of_parent.mean == pytest.approx(0.935) and far.of_parent.mean == pytest.approx(0.235)
    assert near.by_parent.mean == pytest.approx(0.935) and far.by_parent.mean == pytest.approx(0.235)
    assert near.own.mean == far.own.mean == pytest.approx(0.935)
    assert near.beyond_separate is not None and near.beyond_separate.mean == pytest.approx(0.7)
    assert near.beyond_separate.p_value < 1e-6
    # The pixels of the far one are those of the separate network.
    assert far.beyond_separate is not None and (far.beyond_separate.mean, far.beyond_separate.p_value) == (0.0, 1.0)
    assert far.beyond_random.mean == pytest.approx(0.135)


def test_p_values_are_adjusted_for_all_ratios():
    found = planted()
    by_parent_SN = found.confidence_SMN[:, 0].astype(np.float64)
    raw = [difference(by_parent_SN[index], by_parent_SN[4]).p_value for index in (1, 2)]
    assert [one.beyond_random.p_value for one in looks(found)] == holm(raw)


def test_without_a_separate_network_only_chance_is_compared_with():
    (near, far) = looks(planted(networks=NETWORKS[:3]))
    assert near.beyond_separate is None and far.beyond_separate is None
    assert near.beyond_random.p_value < 1e-6


def test_one_image_proves_nothing():
    (near, _) = looks(planted(num=1))
    assert np.isnan(near.own.standard_error)
    assert near.beyond_random.mean == pytest.approx(0.8) and near.beyond_random.p_value == 1.0
    assert np.isnan(heat_map(planted(num=1)).standard_error_SM).all()


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=30))
def test_difference_is_that_of_a_paired_t_test(pairs: list[tuple[float, float]]):
    one_N, other_N = np.array(pairs).T
    found = difference(one_N, other_N)
    assert found.mean == pytest.approx((one_N - other_N).mean(), abs=1e-12)
    if found.standard_error > 1e-6:  # below, scipy warns that it cancels
        assert found.p_value == pytest.approx(ttest_rel(one_N, other_N).pvalue, rel=1e-6, abs=1e-12)


def test_same_difference_on_every_image_is_certain():
    # Halves and quarters are exact.
    assert difference(np.full(5, 0.75), np.full(5, 0.5)).p_value == 0.0
    assert estimate(np.array([0.25, 0.75])) == (0.5, 0.25)


def test_cost_of_exact_selection_is_that_of_the_reference():
    assert forwards_of(Selector(mode="exact"), 784) == 307_720
    assert forwards_of(Selector(mode="exact"), 1024) == 524_800
    assert forwards_of(Selector(mode="gradient"), 784) == 2_352
    assert forwards_of(Selector(mode="gradient", pixels_per_step=8), 784) == 294
    # 768 steps of 16 candidates and a gradient, then the last 16 pixels exactly: the reference says 14.8 k.
    assert forwards_of(Selector(mode="screened", candidates=16), 784) == 768 * 19 + 16 * 17 // 2


@given(st.integers(1, 200), st.integers(1, 30), st.integers(1, 300))
def test_screening_never_costs_more_than_it_saves_and_with_all_candidates_is_exact(
    num_pixels: int, pixels_per_step: int, candidates: int
):
    exact = forwards_of(Selector(mode="exact", pixels_per_step=pixels_per_step), num_pixels)
    screened = Selector(mode="screened", pixels_per_step=pixels_per_step, candidates=candidates)
    num_steps = -(-num_pixels // pixels_per_step)
    assert forwards_of(screened, num_pixels) <= exact + 3 * num_steps
    if candidates >= num_pixels:
        assert forwards_of(screened, num_pixels) == exact


@pytest.mark.parametrize("fields", [{"mode": "screened"}, {"mode": "exact", "candidates": 4}, {"pixels_per_step": 0}])
def test_selector_that_does_not_go_together_is_refused(fields: dict):
    with pytest.raises(ValidationError):
        Selector.model_validate(fields)


def test_kept_pixels_are_the_last_of_the_order():
    orders_NP = np.array([[3, 1, 0, 2], [0, 1, 2, 3]], np.uint16)
    assert kept_mask(orders_NP, 1).tolist() == [[False, False, True, False], [False, False, False, True]]
    assert kept_mask(orders_NP, 3).tolist() == [[True, True, True, False], [False, True, True, True]]


def test_number_of_kept_pixels_is_rounded_and_at_least_one():
    assert [num_kept_of(0.1, 784), num_kept_of(0.1, 1024), num_kept_of(0.001, 100)] == [78, 102, 1]


def test_random_orders_are_orders_of_all_pixels_and_the_same_again():
    orders_NP = random_orders(5, 30, seed=3)
    assert np.array_equal(np.sort(orders_NP, axis=1), np.tile(np.arange(30), (5, 1)))
    assert np.array_equal(orders_NP, random_orders(5, 30, seed=3))
    assert not np.array_equal(orders_NP[0], orders_NP[1])
    assert not np.array_equal(orders_NP, random_orders(5, 30, seed=4))


@pytest.mark.parametrize(
    ("ratios", "names"),
    [
        ((0.5, 0.9), ("50.0 %", "90.0 %")),
        ((0.8001, 0.8004), ("80.01 %", "80.04 %")),
        ((0.9, 0.9998), ("90.00 %", "99.98 %")),
    ],
)
def test_pruned_networks_go_by_ratios_that_differ(ratios: tuple[float, ...], names: tuple[str, ...]):
    networks = [looker("parent"), *(looker("pruned", ratio=ratio) for ratio in ratios), looker("separate", seed=1)]
    assert names_of(networks) == ("parent", *names, "separate")
