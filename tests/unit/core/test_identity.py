"""What makes a training itself: everything that changes its weights, and nothing else."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypruning.core.identity import canonical_json, derive_seed, fingerprint, make_training
from raypruning.core.records import DataChoice, Mask, MethodChoice, ModelChoice, Numerics, Recipe, Training

RECIPE = Recipe(epochs=3, learning_rate=0.1)
MASK = Mask(method=MethodChoice(name="wt"), ratio=0.9)
BASE = {
    "model": ModelChoice(name="lenet5", options={"dropout": 0.0}),
    "data": DataChoice(name="strokes"),
    "data_fingerprint": "f" * 20,
    "recipe": RECIPE,
    "epochs": 3,
    "seed": 0,
    "mask": MASK,
    "start": "a" * 20,
}


def id_of(**changes) -> str:
    return make_training(**{**BASE, **changes}).id


@pytest.mark.parametrize(
    "change",
    [
        {"model": ModelChoice(name="mlp", options={"dropout": 0.0})},
        {"model": ModelChoice(name="lenet5", options={"dropout": 0.5})},
        {"model": ModelChoice(name="lenet5")},
        {"data_fingerprint": "e" * 20},
        {"recipe": RECIPE.model_copy(update={"learning_rate": 0.2})},
        {"recipe": RECIPE.model_copy(update={"nesterov": True})},
        {"recipe": RECIPE.model_copy(update={"milestones": (1.0,)})},
        {"recipe": RECIPE.model_copy(update={"retrain_schedule": "tail"})},
        {"recipe": RECIPE.model_copy(update={"numerics": Numerics(threads=2)})},
        {"recipe": RECIPE.model_copy(update={"numerics": Numerics(precision="bfloat16")})},
        {"epochs": 4},
        {"seed": 1},
        {"mask": None},
        {"mask": Mask(method=MethodChoice(name="ft"), ratio=0.9)},
        {"mask": Mask(method=MethodChoice(name="wt", parameters={"power": 2}), ratio=0.9)},
        {"mask": Mask(method=MethodChoice(name="wt"), ratio=0.900001)},
        {"start": None},
        {"start": "b" * 20},
    ],
    ids=str,
)
def test_id_changes_with_whatever_changes_the_weights(change):
    assert id_of(**change) != id_of()


@pytest.mark.parametrize("field", sorted(set(Recipe.model_fields) - {"numerics"}))
def test_id_changes_with_every_field_of_the_recipe(field):
    other = {
        "epochs": 4, "optimiser": "adam", "learning_rate": 0.3, "momentum": 0.5, "nesterov": True,
        "adam_epsilon": 1e-7, "learning_rate_schedule": "cosine", "milestones": (1.5,), "gamma": 0.2,
        "poly_power": 1.0, "warmup_epochs": 0.5, "retrain_schedule": "constant", "batch_size": 64,
        "learning_rate_batch": 32, "weight_decay": 1e-4, "l1_penalty": 1e-5, "l2_penalty": 1e-5, "label_smoothing": 0.1,
        "augmentation": "none", "train_corruptions": ("fog",), "keep": "best",
    }  # fmt: skip
    assert id_of(recipe=RECIPE.model_copy(update={field: other[field]})) != id_of()


def test_id_does_not_depend_on_where_the_data_lies_or_what_it_is_called():
    assert id_of(data=DataChoice(name="folder/strokes", test_images=500)) == id_of()


def test_id_does_not_depend_on_the_order_of_fields_or_options():
    one = ModelChoice.model_validate({"name": "net", "options": {"stem": "small", "width": 2}})
    other = ModelChoice.model_validate_json('{"options": {"width": 2, "stem": "small"}, "name": "net"}')
    assert id_of(model=one) == id_of(model=other)


def test_id_does_not_depend_on_whether_a_default_was_written_out():
    written = Recipe(epochs=3, learning_rate=0.1, momentum=0.9, gamma=0.1, keep="last", numerics=Numerics(threads=1))
    assert id_of(recipe=written) == id_of()


def test_id_survives_json():
    training = make_training(**BASE)
    back = Training.model_validate_json(training.model_dump_json())
    fields = {name: getattr(back, name) for name in BASE}
    assert make_training(**fields).id == training.id


def test_ids_are_those_of_results_that_are_stored():
    # Everything stored so far is found by ids like these. If this fails, what was changed makes every user train every
    # network again: raise TRAINING_VERSION on purpose, or leave ids alone.
    dense = make_training(**{**BASE, "mask": None, "start": None})
    assert dense.id == "92deac9243871b546f57"
    assert make_training(**{**BASE, "start": dense.id}).id == "afc157d797bffb558a50"


def test_canonical_json_is_sorted_compact_ascii():
    text = canonical_json({"b": [1, 2.5, None], "a": {"é": True, "c": "x"}, "tuple": (0.1, 1e-07)})
    assert text == '{"a":{"c":"x","\\u00e9":true},"b":[1,2.5,null],"tuple":[0.1,1e-07]}'


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_canonical_json_reads_back_as_the_same_value(value):
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), st.integers(), max_size=5), st.randoms(use_true_random=False))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value, rng):
    items = list(value.items())
    rng.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (math.nan, "$: nan"),
        ({"a": [1.0, math.inf]}, r"\$\.a\[1\]: inf"),
        ([object()], r"\$\[0\]: object"),
        ({"a": {1, 2}}, r"\$\.a: set"),
        (b"bytes", r"\$: bytes"),
        ({1: "a"}, r"\$: keys must be strings, got 1"),
        (1j, r"\$: complex"),
    ],
)
def test_canonical_json_refuses_what_has_no_stable_text_and_says_where(value, path):
    with pytest.raises(TypeError, match=path.replace("$: nan", r"\$: nan")):
        canonical_json(value)


def test_fingerprint_is_the_head_of_a_sha256():
    # `printf '{"a":1}' | sha256sum`
    assert fingerprint({"a": 1}) == "015abd7f5cc57a2dd94b"
    assert fingerprint({"a": 1}, length=8) == "015abd7f"


def test_seeds_are_those_of_results_that_are_stored():
    # Another derivation would give every stored id other weights.
    assert derive_seed(0, "initialisation") == 5731504280543694906
    assert derive_seed(3, "order", 7) == 7587770354576340080


@given(st.integers(0, 2**63 - 1), st.lists(st.text() | st.integers(0, 1000), max_size=3))
def test_seed_lies_where_torch_and_numpy_take_it(master, role):
    assert 0 <= derive_seed(master, *role) < 2**63


def test_seeds_of_other_masters_and_roles_differ():
    seeds = [derive_seed(master, role, index) for master in range(10) for role in ("a", "b") for index in range(50)]
    assert len(set(seeds)) == 1000
