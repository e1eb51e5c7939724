"""Methods put together by name: what fits, what does not, and what is said about it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raypruning import registry
from raypruning.core.records import MethodChoice
from raypruning.core.spec import build_spec
from raypruning.errors import SpecError, UnknownNameError
from raypruning.methods import axes, presets, scores, sensitivity
from raypruning.methods.axes import method
from raypruning.methods.method import Method
from raypruning.methods.prune import resolve_method

from .networks import SMALL, WIDE, images, masks_of, method_of, network_of, num_params, num_removed, wide_network

# score, scope, granularity, rules and whether images are looked at: what the issue and the docstrings promise.
PRESETS = {
    "wt": ("magnitude", "global", "weight", "corrected", False),
    "sipp": ("sipp", "global", "weight", "corrected", True),
    "ft": ("magnitude", "layer", "filter", "corrected", False),
    "pfp": ("pfp", "error_bound", "channel", "corrected", True),
    "snip": ("gradient_saliency", "global", "weight", "corrected", True),
    "wanda": ("activation", "layer", "weight", "corrected", True),
    "random": ("uniform_random", "global", "weight", "corrected", False),
    "random_filter": ("uniform_random", "layer", "filter", "corrected", False),
    "layer_magnitude": ("magnitude", "layer", "weight", "corrected", False),
    "layer_magnitude_of_alive": ("magnitude", "layer", "weight", "corrected", False),
    "unit_l2": ("l2_norm", "layer", "unit", "corrected", False),
    "filter_l1_layer": ("magnitude", "layer", "filter", "plain", False),
}


def same_masks(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(mask, other[name]) for name, mask in one.items())


# --- Presets --------------------------------------------------------------------------------------------------------


def test_every_preset_is_registered_and_every_built_in_is_known_here():
    ours = {
        name for name in registry.methods.names() if registry.methods.get(name).value.__module__ == presets.__name__
    }
    assert ours == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_the_axes_it_promises_with_a_source(name):
    score, scope, granularity, rules, needs_samples = PRESETS[name]
    resolved = method_of(name)
    assert (resolved.name, resolved.score.__name__, resolved.granularity.name) == (name, score, granularity)
    assert (resolved.rules, resolved.needs_samples, resolved.skip) == (rules, needs_samples, ())
    assert len(resolved.source) > 5
    assert registry.methods.get(name).value.__doc__.endswith(".")
    # The scope has no name of its own: the same one, asked for by name, gives the same order.
    network = network_of(wide_network(), WIDE, granularity=granularity, samples=images(WIDE))
    units = {
        layer: resolved.granularity.units(network, layer, values) for layer, values in resolved.score(network).items()
    }
    if "of_alive" not in name and name != "filter_l1_layer":
        again = method_of(name, scope=scope).scope(network, units)
        assert all(torch.equal(times, again[layer]) for layer, times in resolved.scope(network, units).items())


# --- Parameters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("wt", {"scope": "layer"}, ("layer_magnitude", {})),
        ("ft", {"score": "random"}, ("random_filter", {})),
        ("random", {"score": "l1"}, ("wt", {})),
        ("layer_magnitude", {"of_alive": True}, ("layer_magnitude_of_alive", {})),
        ("layer_magnitude_of_alive", {"of_alive": False}, ("layer_magnitude", {})),
        ("ft", {"granularity": "unit", "score": "l2"}, ("unit_l2", {})),
        ("ft", {"rules": "plain", "of_alive": True}, ("filter_l1_layer", {})),
        ("wt", {"granularity": "block"}, ("wt", {"granularity": "block", "block": 4})),
        ("wt", {"granularity": "n_m", "skip": ("0",)}, ("wt", {"granularity": "n_m", "m": 4, "n": 1, "skip": ("0",)})),
        ("wt", {"skip": "8"}, ("wt", {"skip": ("8",)})),
    ],
)
def test_parameters_lay_other_axes_over_those_of_the_preset(name, parameters, expected):
    model, samples = wide_network(), images(WIDE)
    # A half of what is scored; what is already alive is all of it here.
    ratio = 0.3 if parameters.get("granularity") != "n_m" else 0.4
    ours = masks_of(name, model, ratio, shape=WIDE, samples=samples, **parameters)
    other, others_parameters = expected
    assert same_masks(ours, masks_of(other, model, ratio, shape=WIDE, samples=samples, **others_parameters))


def test_an_axis_laid_over_a_preset_changes_its_masks():
    """So that the pairs above are not the same for want of any effect."""
    model, plain = wide_network(), masks_of("wt", wide_network(), 0.3, shape=WIDE)
    for parameters in ({"scope": "layer"}, {"score": "random"}, {"granularity": "block"}, {"skip": ("8",)}):
        assert not same_masks(plain, masks_of("wt", model, 0.3, shape=WIDE, **parameters))


def test_number_of_samples_is_the_parameters():
    assert method_of("sipp").num_samples is None
    assert method_of("sipp", samples=17).num_samples == 17


def test_paper_rules_make_a_method_look_at_images():
    assert not method_of("ft").needs_samples
    assert method_of("ft", rules="paper").needs_samples


# --- What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_parameter_that_does_not_exist_is_refused_with_a_near_one(name):
    with pytest.raises(
        UnknownNameError, match=f"method {name}: no parameter is called 'granularty': did you mean gran"
    ):
        method_of(name, granularty="filter")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("score", "magnitud", "no value of score is called 'magnitud': did you mean magnitude"),
        ("scope", "locl", "no value of scope is called 'locl': "),
        ("granularity", "filters", "no value of granularity is called 'filters': did you mean filter"),
        ("rules", "papre", "no value of rules is called 'papre': did you mean paper"),
        ("scope", 3, "no value of scope is called '3': there are"),
        ("score", ("l1", "l2"), "no value of score is called .*: "),
        ("score", {"l1": 1.0}, "no value of score is called .*: "),
        ("rules", True, "no value of rules is called 'True': "),
    ],
)
def test_name_that_an_axis_does_not_have_is_refused_with_near_ones(key, value, message):
    with pytest.raises(UnknownNameError, match=f"^method wt: {message}") as caught:
        method_of("wt", **{key: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"samples": 1}, "samples must be a number of images from 2, got 1"),
        ({"samples": 2.5}, "samples must be a number of images from 2, got 2.5"),
        ({"samples": "all"}, "samples must be a number of images from 2, got 'all'"),
        ({"samples": True}, "samples must be a number of images from 2, got True"),
        ({"granularity": "n_m", "m": 1}, "m must be a whole number from 2, got 1"),
        ({"granularity": "n_m", "n": 0}, "n must be a whole number from 1, got 0"),
        ({"granularity": "n_m", "n": True}, "n must be a whole number from 1, got True"),
        ({"granularity": "block", "block": 0}, "block must be a whole number from 1, got 0"),
        ({"granularity": "block", "block": 2.0}, "block must be a whole number from 1, got 2.0"),
        ({"skip": 3}, r"skip must be names of layers to keep whole, such as conv1\+fc2, got 3"),
        ({"skip": True}, "skip must be names of layers .*, got True"),
        ({"scope": "layer", "of_alive": 1}, "of_alive must be true or false, got 1"),
        ({"scope": "layer", "of_alive": "yes"}, "of_alive must be true or false, got 'yes'"),
        # What belongs to another axis.
        ({"m": 4}, "m belongs to granularity=n_m"),
        ({"n": 2}, "n belongs to granularity=n_m"),
        ({"granularity": "block", "n": 2}, "n belongs to granularity=n_m"),
        ({"block": 4}, "block belongs to granularity=block"),
        ({"of_alive": True}, "of_alive belongs to scope=layer"),
        ({"map": {"0": 1.0}}, "map belongs to scope=map"),
        # What does not fit together.
        ({"score": "pfp"}, "score pfp is one of input channels, and a granularity of weight has none"),
        ({"score": "pfp", "granularity": "filter"}, "score pfp is one of input channels, and .* of filter has none"),
        ({"score": "pfp", "granularity": "n_m"}, "score pfp is one of input channels, and .* of n_m has none"),
        ({"scope": "error_bound"}, "scope error_bound needs the sensitivities of score=pfp"),
        ({"scope": "error_bound", "granularity": "channel"}, "scope error_bound needs the sensitivities of score=pfp"),
        ({"rules": "paper", "scope": "layer"}, "rules=paper know granularity=weight with scope=global, "),
        ({"rules": "paper", "granularity": "filter"}, ".*, granularity=filter with scope=layer, "),
        ({"rules": "paper", "granularity": "block"}, ".*, granularity=channel with scope=error_bound$"),
    ],
)
def test_value_that_does_not_fit_is_refused_in_one_line(parameters, message):
    with pytest.raises(SpecError, match=f"^method wt: {message}") as caught:
        method_of("wt", **parameters)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "rules_fit"), [("wt", True), ("sipp", True), ("snip", True), ("ft", True), ("pfp", True), ("wanda", False)]
)
def test_paper_rules_are_for_the_allocations_of_the_paper(name, rules_fit):
    if rules_fit:
        assert method_of(name, rules="paper").rules == "paper"
    else:
        with pytest.raises(SpecError, match="rules=paper know"):
            method_of(name, rules="paper")


@pytest.mark.parametrize("name", ["conv1", "3.weight"])
def test_layer_to_skip_that_the_network_does_not_have_is_refused(name):
    with pytest.raises(SpecError, match=f"^method wt:skip={name}, skip: no prunable layer is called '{name}'"):
        masks_of("wt", wide_network(), 0.3, shape=WIDE, skip=(name,))


def test_skip_that_leaves_nothing_is_refused():
    with pytest.raises(SpecError, match=r"^method wt:skip=0\+4\+8\+10: skip leaves no layer to prune"):
        masks_of("wt", wide_network(), 0.3, shape=WIDE, skip=("0", "4", "8", "10"))


# --- A method of one's own -------------------------------------------------------------------------------------------


def test_function_becomes_a_method_of_its_name_and_defaults():
    @method(source="a test", version=3)
    def largest_first(network):
        """Keeps the small."""
        return {name: -network.weight(name).abs() for name in network.layers}

    made = largest_first({})
    assert (made.name, made.source, made.version, made.needs_samples) == ("largest_first", "a test", 3, False)
    assert (made.granularity.name, made.rules) == ("weight", "corrected")
    assert largest_first.__doc__ == "Keeps the small."
    model = wide_network()
    masks = masks_of(made, model, 0.3, shape=WIDE)
    assert num_removed(masks) == round(0.3 * num_params(model))
    weights = dict(model.named_parameters())
    gone = torch.cat([weights[name].detach().abs()[~mask] for name, mask in masks.items()])
    stays = torch.cat([weights[name].detach().abs()[mask] for name, mask in masks.items()])
    assert stays.max() < gone.min()


def test_parameters_exchange_the_axes_of_ones_own_method_and_its_score_stays():
    seen = []

    @method(source="a test", granularity="filter", scope="layer", needs_samples=True)
    def by_filters(network):
        seen.append((network.granularity.name, len(network.samples.labels_N)))
        return scores.magnitude(network)

    made = by_filters({"skip": ("8",), "scope": "global"})
    ours = masks_of(made, wide_network(), 0.3, shape=WIDE, samples=images(WIDE))
    assert seen == [("filter", 6)]
    assert same_masks(ours, masks_of("ft", wide_network(), 0.3, shape=WIDE, skip=("8",), scope="global"))


def test_score_by_name_takes_the_place_of_ones_own_and_of_what_it_needs():
    @method(source="a test", needs_samples=True)
    def mine(network):
        raise AssertionError("another score was asked for")

    assert mine({"score": "l1"}).needs_samples is False
    assert mine({"score": "l1"}).score is scores.magnitude
    assert mine({}).needs_samples


def test_own_method_refuses_bad_parameters_by_its_name():
    @method(source="a test")
    def mine(network):
        return scores.magnitude(network)

    with pytest.raises(UnknownNameError, match="method mine: no parameter is called 'power'"):
        mine({"power": 2})
    with pytest.raises(SpecError, match="method mine: block must be a whole number from 1, got -1"):
        mine({"granularity": "block", "block": -1})


def test_pfp_in_a_scope_of_ones_choice_scores_channels():
    made = method_of("pfp", scope="layer")
    assert made.score is sensitivity.pfp
    found = made.score(network_of(wide_network(), SMALL, granularity="channel", samples=images(WIDE)))
    assert {name: len(score) for name, score in found.items()} == {"0": 2, "4": 48, "8": 48, "10": 200}


# --- Labels ---------------------------------------------------------------------------------------------------------

RECIPE = {"epochs": 1, "learning_rate": 0.1}


def read(label: str) -> MethodChoice:
    """The method that a sweep with this label has."""
    raw = {"name": "a", "model": "lenet5", "dataset": "strokes", "methods": [label], "budgets": [1], "recipe": RECIPE}
    (choice,) = build_spec(raw, source="a test", recipes={}).methods
    return choice


names = st.from_regex(r"[a-z][a-z0-9_.]{0,8}", fullmatch=True).filter(
    lambda text: text not in ("true", "false", "inf", "nan")
)
# `+` and `*` part lists and tables, and a list of one name reads as the name.
values = (
    names
    | st.integers(-5, 100)
    | st.booleans()
    | st.sampled_from([0.5, 0.25, 1e-3])
    | st.lists(names, min_size=2, max_size=3).map(tuple)
    | st.dictionaries(names, st.sampled_from([0.0, 0.5, 2.0]), min_size=1, max_size=3)
)


@given(st.sampled_from(sorted(axes.PARAMETERS)), values, st.sampled_from(sorted(PRESETS)))
def test_label_reads_back_as_the_choice_it_is_of(key, value, name):
    choice = MethodChoice(name=name, parameters={key: value})
    assert read(choice.label) == choice


@pytest.mark.parametrize(
    "label", ["wt:scope=layer", "wt:granularity=n_m,m=4,n=2", "ft:rules=paper", "wt:skip=conv1+fc2"]
)
def test_label_in_a_sweep_is_the_method_it_names(label):
    choice = read(label)
    resolved = resolve_method(choice)
    assert isinstance(resolved, Method)
    assert resolved.name == choice.label
    name, _, parameters = label.partition(":")
    assert (choice.name, set(parameters.split(","))) == (name, set(choice.label.partition(":")[2].split(",")))


def test_parameter_without_effect_is_refused():
    with pytest.raises(SpecError, match=r"^method wt: it looks at no images: leave samples out"):
        resolve_method(MethodChoice(name="wt", parameters={"samples": 50}))
    with pytest.raises(SpecError, match=r"^method ft: rules=paper have a way of their own"):
        resolve_method(MethodChoice(name="ft", parameters={"rules": "paper", "of_alive": True}))


def test_parameter_of_a_preset_goes_with_the_axis_it_belongs_to():
    method = resolve_method(MethodChoice(name="layer_magnitude_of_alive", parameters={"scope": "global"}))
    assert method.granularity.name == "weight"


def test_one_layer_to_skip_is_a_list_of_one():
    one, listed = (MethodChoice(name="wt", parameters={"skip": skip}) for skip in ("fc2", ("fc2",)))
    assert one == listed
    assert resolve_method(one).skip == resolve_method(listed).skip == ("fc2",)
