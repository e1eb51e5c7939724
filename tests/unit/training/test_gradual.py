"""Pruning while training: the cubic against the formula, masks at every step, and bits after an interruption."""

# C channels, H W height and width, N images

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from raypruning.core.records import Gradual, Recipe
from raypruning.runtime.store import open_store
from raypruning.training.gradual import Growing, Growth, Span
from raypruning.training.loop import ResumeState, Setting, train

from .test_loop import OPTIMISERS, TRAINING_ID, Stopped, bits, images, network, setting

PRUNED = ("0.weight", "3.weight", "7.weight")
graduals = st.builds(
    Gradual,
    begin=st.floats(0, 0.9),
    end=st.floats(0.05, 1),
    frequency=st.integers(1, 50),
).filter(lambda gradual: gradual.begin < gradual.end)


def smallest(model: nn.Module, ratio: float) -> dict[str, Tensor]:
    """Masks that remove the share `ratio` of each layer's weights, the smallest ones."""
    parameters = dict(model.named_parameters())
    masks = {}
    for name in PRUNED:
        size = parameters[name].detach().abs()
        num_removed = round(ratio * size.numel())
        order = size.flatten().argsort(stable=True)
        mask = torch.ones(size.numel(), dtype=torch.bool)
        mask[order[:num_removed]] = False
        masks[name] = mask.view_as(size)
    return masks


def growing(ratio: float = 0.8, remask=smallest, **gradual) -> Growth:
    return Growth(Gradual(**{"begin": 0.1, "end": 0.7, "frequency": 2, **gradual}), ratio, remask)


# --- The pace -----------------------------------------------------------------------------------------------------


@given(graduals, st.integers(1, 5000), st.floats(0.01, 0.99))
def test_ratio_follows_the_cubic_of_the_paper_never_falls_and_ends_exactly_where_asked(gradual, num_steps, ratio):
    span = Span.of(gradual, num_steps=num_steps)
    assert 0 <= span.begin < span.end <= num_steps
    ratios = [span.ratio_at(step, ratio) for step in range(num_steps + 1)]
    assert all(a <= b for a, b in pairwise(ratios))
    assert ratios[: span.begin + 1] == [0.0] * (span.begin + 1)
    assert set(ratios[span.end :]) == {ratio}
    for step in range(span.begin, span.end + 1):
        # Zhu and Gupta 2018, equation 1: s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3, with s_i = 0.
        expected = ratio + (0.0 - ratio) * (1 - (step - span.begin) / (span.end - span.begin)) ** 3
        assert ratios[step] == pytest.approx(expected, abs=1e-12)


@given(graduals, st.integers(1, 5000))
def test_masks_are_chosen_every_so_many_steps_after_the_beginning_and_at_the_end(gradual, num_steps):
    span = Span.of(gradual, num_steps=num_steps)
    due = [step for step in range(1, num_steps + 1) if span.is_due(step)]
    regular = set(range(span.begin + gradual.frequency, span.end, gradual.frequency))
    assert due == sorted(regular | {span.end})


def test_span_is_a_share_of_the_steps():
    assert Span.of(Gradual(begin=0.25, end=0.75, frequency=10), num_steps=200) == (50, 150, 10)


# --- What becomes of weights --------------------------------------------------------------------------------------


def test_removed_weight_keeps_its_value_and_comes_back_with_it():
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.1, 0.2, 0.3, 0.4]]))
    masks = iter(
        [
            {"weight": torch.tensor([[False, True, True, True]])},
            {"weight": torch.tensor([[True, False, False, True]])},
        ]
    )
    seen = []

    def remask(model: nn.Module, ratio: float) -> dict[str, Tensor]:
        seen.append(model.weight.detach().clone())
        return next(masks)

    grow = Growing(Growth(Gradual(), 0.5, remask), Span(0, 2, 1))
    grow.after_step(model, 1)
    assert model.weight.tolist() == [[0.0, *torch.tensor([0.2, 0.3, 0.4]).tolist()]]
    with torch.no_grad():
        model.weight[0, 3] = 0.9  # A step of the optimiser.
    grow.after_step(model, 2)
    assert torch.equal(seen[1], torch.tensor([[0.1, 0.2, 0.3, 0.9]]))
    assert torch.equal(model.weight.detach(), torch.tensor([[0.1, 0.0, 0.0, 0.9]]))


def test_ratio_that_has_no_masks_leaves_those_there_are():
    model = nn.Linear(4, 1, bias=False)
    mask = torch.tensor([[False, True, True, True]])
    answers = iter([None, {"weight": mask}, None])
    grow = Growing(Growth(Gradual(), 0.5, lambda model, ratio: next(answers)), Span(0, 9, 1))
    grow.after_step(model, 1)
    assert grow.masks == {}
    grow.after_step(model, 2)
    value = model.weight.detach().clone()
    grow.after_step(model, 3)
    assert torch.equal(model.weight.detach(), value) and torch.equal(grow.masks["weight"], mask)


def test_masks_hold_after_every_step_and_the_last_are_chosen_at_the_whole_ratio():
    model = network()
    parameters = dict(model.named_parameters())
    asked: list[float] = []
    masks: dict[str, Tensor] = {}

    def remask(model: nn.Module, ratio: float) -> dict[str, Tensor]:
        nonlocal masks
        asked.append(ratio)
        masks = smallest(model, ratio)
        return masks

    num_steps = 0

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal num_steps
        num_steps += module.training
        assert all(parameters[name][~mask].count_nonzero() == 0 for name, mask in masks.items())

    hook = model.register_forward_pre_hook(look)
    trained = train(model, {}, setting(growth=growing(remask=remask)))
    hook.remove()
    # 5 epochs of 4 steps: from step 2 to step 14, every second.
    assert num_steps == 20 and len(asked) == 6
    assert asked == pytest.approx([0.8 * (1 - (1 - done / 12) ** 3) for done in (2, 4, 6, 8, 10, 12)])
    assert asked[-1] == 0.8
    assert trained.masks.keys() == masks.keys()
    for name, mask in trained.masks.items():
        assert torch.equal(mask, masks[name])
        assert int((~mask).sum()) == round(0.8 * mask.numel())
        assert parameters[name][~mask].count_nonzero() == 0


def test_masks_that_end_with_the_last_step_are_chosen_after_it_also_where_its_single_image_is_left_out():
    for num_images in (56, 49):  # 3 * 16 + 8, and 3 * 16 + 1
        model = network()
        trained = train(model, {}, setting(growth=growing(end=1.0), train=images(num_images, seed=0)))
        assert {int((~mask).sum()) for mask in trained.masks.values()} == {
            round(0.8 * mask.numel()) for mask in trained.masks.values()
        }


# --- Interruption -------------------------------------------------------------------------------------------------


def stopping_setting(recipe: Recipe, tmp_path: Path, stop_after: int) -> Setting:
    store = open_store(str(tmp_path))

    def save_and_stop(state: ResumeState) -> None:
        store.save_resume_state(TRAINING_ID, state.values, state.arrays)
        if len(state.values["history"]) == stop_after:
            raise Stopped

    return setting(recipe, growth=growing(), save=save_and_stop, save_seconds=0.0)


@pytest.mark.parametrize("fields", OPTIMISERS.values(), ids=OPTIMISERS.keys())
@pytest.mark.parametrize("stop_after", [1, 2, 3, 4])
def test_gradual_training_stopped_after_any_epoch_and_continued_equals_the_undisturbed_one(
    fields: dict, stop_after: int, tmp_path: Path
):
    recipe = Recipe(**{"epochs": 5, "learning_rate": 0.05, "batch_size": 16, "milestones": (2, 4), **fields})
    undisturbed = network()
    expected = train(undisturbed, {}, setting(recipe, growth=growing()))
    with pytest.raises(Stopped):
        train(network(), {}, stopping_setting(recipe, tmp_path, stop_after))
    found = open_store(str(tmp_path)).resume_state(TRAINING_ID)
    assert found is not None
    continued = network(seed=77)  # Its weights must not matter.
    trained = train(continued, {}, setting(recipe, growth=growing()), resume=ResumeState(*found))
    assert trained.history == expected.history
    assert bits(continued) == bits(undisturbed)
    assert all(torch.equal(mask, expected.masks[name]) for name, mask in trained.masks.items())
    assert trained.masks.keys() == expected.masks.keys()


def test_best_epoch_is_chosen_among_those_with_all_of_the_pruning_done():
    recipe = Recipe(epochs=5, learning_rate=0.2, batch_size=16, keep="best")
    model = network()
    # Masks are complete after step 14, so after the fourth epoch.
    trained = train(model, {}, setting(recipe, growth=growing()))
    parameters = dict(model.named_parameters())
    assert all(parameters[name][~mask].count_nonzero() == 0 for name, mask in trained.masks.items())
    assert all(int((~mask).sum()) == round(0.8 * mask.numel()) for mask in trained.masks.values())
