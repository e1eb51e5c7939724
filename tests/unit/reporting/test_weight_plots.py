"""Figures of weights: what they say, that their axes agree, and that animations run through the ratios in order."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from raypruning.analysis.weights import shown_layers
from raypruning.core.records import Epoch
from raypruning.reporting.weight_animation import animation
from raypruning.reporting.weight_plots import Drawing, histogram_drawings, history_drawings, layer_ratio_drawing

from .weight_sample import SHAPES, sweep_weights

KINDS = ("weights", "unit_norms")


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def found():
    return sweep_weights()


@pytest.fixture(scope="module")
def drawn(found) -> dict[str, list[Drawing]]:
    shown = shown_layers(found.curves)
    return {kind: histogram_drawings(found.curves[0], kind, shown=shown, task="nominal") for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_a_figure_for_the_parent_and_each_ratio_in_order(kind: str, found, drawn):
    (one,) = found.curves
    heads = ["Dense parent", *(f"{100 * network.ratio:.1f} % removed" for network in one.networks)]
    for head, network, drawing in zip(heads, one.all_networks, drawn[kind], strict=True):
        said = texts(drawing.panel.svg)
        assert f"{head}: wt, 10 epochs, seed 0" in said
        error = network.result.evaluations["nominal"].error
        assert f"error on nominal {100 * error:.1f} %" in said
        assert set(SHAPES) <= set(said)


@pytest.mark.parametrize("kind", KINDS)
def test_axes_are_the_same_at_every_ratio(kind: str, drawn):
    # Ticks stand in the middle of their axes: all texts that are numbers, with their places.
    found = [
        [
            (element.text, element.get("x"), element.get("y"), element.get("transform"))
            for element in ElementTree.fromstring(drawing.panel.svg).iter()
            if element.tag.endswith("text") and re.fullmatch(r"\N{MINUS SIGN}?[\d.]+k?", element.text or "")
        ]
        for drawing in drawn[kind]
    ]
    assert len(found[0]) > 8
    assert all(one == found[0] for one in found)


def test_figures_are_whole_xml_with_nothing_from_outside_and_the_same_each_time(found, drawn):
    again = histogram_drawings(found.curves[0], "weights", shown=range(4), task="nominal")
    assert again == drawn["weights"]
    for drawing in (*drawn["weights"], layer_ratio_drawing(found.curves[0]), *history_drawings(found.curves[0])):
        assert not re.search(r"href=\"(?!#)", drawing.panel.svg)
        assert pixels(drawing.png)[0, -1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", KINDS)
def test_animation_shows_the_figures_in_order_a_second_each(kind: str, drawn):
    frames = [drawing.png for drawing in drawn[kind]]
    film = Image.open(io.BytesIO(animation(frames)))
    assert film.n_frames == len(frames) == 6
    assert film.info["loop"] == 0
    for place, data in enumerate(frames):
        film.seek(place)
        assert film.info["duration"] == 1000
        shown, expected = np.asarray(film.convert("RGB")).astype(int), pixels(data)
        shown = shown[: len(expected)]
        others = [np.abs(shown - pixels(other)).mean() for other in frames]
        assert int(np.argmin(others)) == place
        # The most frequent colours are kept as they are; what lies between two of them at edges may be another.
        assert (shown != expected).any(axis=2).mean() < 0.02


def test_animation_of_equal_figures_keeps_a_frame_for_each(drawn):
    film = Image.open(io.BytesIO(animation([drawn["weights"][0].png] * 3)))
    assert film.n_frames == 3


def test_layers_are_named_and_one_that_is_wholly_removed_does_not_break_the_axes():
    found = sweep_weights(removed="fc1")
    (one,) = found.curves
    assert one.networks[-1].removed_layers == ("fc1",)
    assert set(SHAPES) <= set(texts(layer_ratio_drawing(one).panel.svg))
    last = histogram_drawings(one, "weights", shown=range(4), task="nominal")[-1]
    assert "all removed" in texts(last.panel.svg)
    norms = histogram_drawings(one, "unit_norms", shown=range(4), task="nominal")[-1]
    assert "all removed" in texts(norms.panel.svg)


def test_of_many_layers_first_last_and_those_cut_most_are_drawn():
    shapes = {f"layer{index}": (4, 8) for index in range(30)} | {"head.fc1": (4, 8)}
    shapes["fc1"] = shapes.pop("layer7")  # cut twice as much as the others
    found = sweep_weights(shapes=shapes)
    shown = shown_layers(found.curves)
    names = [found.curves[0].parent.layers[index].name for index in shown]
    assert len(names) == 12 and names[0] == "layer0" and names[-1] == "fc1"
    ratios = [layer.ratio for layer in found.curves[0].networks[-1].layers]
    assert min(ratios[index] for index in shown[1:-1]) >= max(
        ratio for index, ratio in enumerate(ratios) if index not in shown
    )
    said = texts(layer_ratio_drawing(found.curves[0]).panel.svg)
    assert sum(text in shapes for text in said) == 8


def with_history(one, epochs):
    """The same curve, each network with this history."""

    def changed(network):
        stored = network.result.result.model_copy(update={"history": epochs})
        return network._replace(result=network.result.model_copy(update={"result": stored}))

    return one._replace(parent=changed(one.parent), networks=tuple(map(changed, one.networks)))


def test_history_shows_what_trainings_recorded(found):
    (one,) = found.curves
    whole = Epoch(epoch=1, learning_rate=0.1, train_loss=0.5, validation_loss=0.6, validation_error=0.25)
    later = whole.model_copy(update={"epoch": 2, "train_loss": 0.0})  # a loss of 0 has no logarithm
    drawn = history_drawings(with_history(one, (whole, later)))
    assert [drawing.panel.title.partition(",")[0] for drawing in drawn] == [
        "Training loss",
        "Validation loss",
        "Validation error",
    ]
    for drawing in drawn:
        assert {"epoch, parent", "epoch, retrained"} <= set(texts(drawing.panel.svg))
        assert {f"{100 * network.ratio:.1f} %" for network in one.networks} <= set(texts(drawing.panel.svg))
    only_loss = Epoch(epoch=1, learning_rate=0.1, train_loss=0.5)
    assert len(history_drawings(with_history(one, (only_loss,)))) == 1
    assert history_drawings(with_history(one, ())) == []


def test_history_without_retraining_shows_the_parent_alone(found):
    (one,) = found.curves
    epochs = tuple(Epoch(epoch=epoch, learning_rate=0.1, train_loss=1 / epoch) for epoch in (1, 2, 3))
    bare = with_history(one, ())._replace(parent=with_history(one, epochs).parent)
    (drawing,) = history_drawings(bare)
    assert "epoch, parent" in texts(drawing.panel.svg) and "epoch, retrained" not in texts(drawing.panel.svg)
