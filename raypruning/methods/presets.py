"""The built-in methods by their names in the field. Each is a choice of axes; see `axes` for changing one."""

from __future__ import annotations

from raypruning.methods.axes import Factory, Parameters, build
from raypruning.methods.method import Method


def _preset(name: str, doc: str, *, source: str, **defaults: object) -> Factory:
    def factory(parameters: Parameters) -> Method:
        return build(parameters, name=name, defaults=defaults, source=source)

    factory.__doc__ = doc
    factory.__name__ = factory.__qualname__ = name
    return factory


wt = _preset(
    "wt",
    "Weights of smallest magnitude, over all layers together.",
    score="magnitude",
    source="Renda et al. 2020; Lost in Pruning, section 4",
)
sipp = _preset(
    "sipp",
    "Weights of smallest share in any output over sample images, over all layers together.",
    score="sipp",
    source="Baykal et al. 2019; Lost in Pruning, section 4",
)
ft = _preset(
    "ft",
    "Filters of smallest l1 norm, the same fraction in every layer but the last.",
    score="l1",
    granularity="filter",
    scope="layer",
    source="Li et al. 2017, Renda et al. 2020; Lost in Pruning, section 4",
)
pfp = _preset(
    "pfp",
    "Input channels of smallest share in any output, with the same error bound in every layer.",
    score="pfp",
    granularity="channel",
    scope="error_bound",
    source="Liebenwein et al. 2020; Lost in Pruning, section 4",
)
snip = _preset(
    "snip",
    "Weights whose removal changes the loss least, to first order, over all layers together.",
    score="snip",
    source="Lee et al. 2019, equation 5",
)
wanda = _preset(
    "wanda",
    "Weights of smallest magnitude times the norm of what they multiply, the same fraction in every layer.",
    score="activation",
    scope="layer",
    source="Sun et al. 2024, equation 1, compared over a layer",
)
random = _preset(
    "random",
    "Weights at random, over all layers together: the control for weight pruning.",
    score="random",
    source="control",
)
random_filter = _preset(
    "random_filter",
    "Filters at random, the same fraction in every layer but the last: the control for filter pruning.",
    score="random",
    granularity="filter",
    scope="layer",
    source="control",
)
layer_magnitude = _preset(
    "layer_magnitude",
    "Weights of smallest magnitude, the same fraction in every layer.",
    score="magnitude",
    scope="layer",
    source="Han et al. 2015; the MLP study",
)
layer_magnitude_of_alive = _preset(
    "layer_magnitude_of_alive",
    "Weights of smallest magnitude, in every layer the same fraction of what is still there.",
    score="magnitude",
    scope="layer",
    of_alive=True,
    source="the LeNet study, l1_unstructured applied again and again",
)
unit_l2 = _preset(
    "unit_l2",
    "Units of linear layers of smallest Euclidean norm, the same fraction in every layer but the last.",
    score="l2",
    granularity="unit",
    scope="layer",
    source="the MLP study",
)
filter_l1_layer = _preset(
    "filter_l1_layer",
    "Filters of smallest l1 norm, in every layer but the last the same fraction of what is still there; nothing else.",
    score="l1",
    granularity="filter",
    scope="layer",
    of_alive=True,
    rules="plain",
    source="the LeNet study, ln_structured with n=1",
)
