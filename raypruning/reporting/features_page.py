"""What networks look at, as a page: the heat map, and the pixels that each network keeps of a few pictures."""

# K pictures, P pixels, C channels, H W height and width

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from raypruning.analysis.features import WHOLE, Features, HeatMap, heat_map, kept_mask, names_of
from raypruning.core.records import DataChoice, ModelChoice
from raypruning.reporting import wording
from raypruning.reporting.drawing import DARK, LIGHT
from raypruning.reporting.features import conclusion, confidence, context, look_rows, notes
from raypruning.reporting.features_plots import panels
from raypruning.reporting.pages import environment

# What stands for a pixel that is gone: no grey, so that a kept pixel of any brightness is told from it.
_GONE = np.array([70, 110, 160], np.float32)
_GHOST = 0.22  # how much of the picture shines through


class Shown(NamedTuple):
    """A picture as a network sees it, what that takes it for, and how sure it is."""

    name: str
    picture: str
    answer: str
    confidence: str
    is_right: bool


class Picture(NamedTuple):
    """A test image: as it is, with the parent's answer, and the pixels each network keeps with its own answer."""

    label: str
    position: int
    views: Sequence[Shown]


class HeatCell(NamedTuple):
    """A mean, its standard error, how strongly it is shaded, in [0, 1], and whether the pixels are the judge's own."""

    amount: str
    error: str
    heat: str
    is_own: bool


class HeatRow(NamedTuple):
    """Of the pixels of one source."""

    name: str
    cells: Sequence[HeatCell]


def render_features_html(found: Features, *, model: ModelChoice, data: DataChoice, storage_flag: str = "") -> str:
    """The page, self-contained. The same results give the same bytes.

    Args:
        model, data: what the sweep is of.
        storage_flag: what a command needs to find the storage.
    """
    record, table = found.record, heat_map(found)
    head, *rows = look_rows(found)
    return (
        environment()
        .get_template("features.html.j2")
        .render(
            light=LIGHT,
            dark=DARK,
            name=record.sweep,
            context=f"{model.name} on {data.name}, {context(record)}",
            answer=conclusion(found),
            kept=wording.percent(record.num_kept / record.num_pixels),
            figures=[Markup(one.svg) for one in panels(found)],
            judges=table.judges,
            heat=_heat_rows(table),
            look_heads=head,
            looks=rows,
            notes=notes(found, table, storage_flag=storage_flag),
            pictures=pictures(found),
            num_images=wording.count(record.num_images, "test image"),
            provenance=_provenance(found),
            command=f"prune-cli features {shlex.quote(record.sweep)}{storage_flag}",
        )
    )


def pictures(found: Features) -> list[Picture]:
    """The pictures that are shown, each as it is and as every network sees it."""
    record = found.record
    whole = len(record.networks) + 1
    names = names_of(record.networks)
    shown = []
    for picture_CHW, index in zip(found.pictures_KCHW, record.pictures, strict=True):
        label = int(found.labels_N[index])
        views = [_shown(found, WHOLE, picture_CHW, index, source=whole, judge=0)]
        for place, network in enumerate(record.networks):
            orders_NP = found.orders_MNP[network.training]
            kept_HW = kept_mask(orders_NP[index : index + 1], record.num_kept).reshape(picture_CHW.shape[1:])
            seen_CHW = masked_picture(picture_CHW, kept_HW)
            views.append(_shown(found, names[place], seen_CHW, index, source=place, judge=place))
        shown.append(Picture(_class_name(found, label), record.question.images[index], views))
    return shown


def _shown(found: Features, name: str, picture_CHW: np.ndarray, index: int, *, source: int, judge: int) -> Shown:
    predicted = int(found.predicted_SMN[source, judge, index])
    return Shown(
        name=name,
        picture=png_address(picture_CHW),
        answer=_class_name(found, predicted),
        confidence=confidence(float(found.top_SMN[source, judge, index])),
        is_right=predicted == int(found.labels_N[index]),
    )


def _class_name(found: Features, label: int) -> str:
    names = found.record.class_names
    return names[label] if label < len(names) else f"{label}"


def masked_picture(picture_CHW: np.ndarray, kept_HW: np.ndarray) -> np.ndarray:
    """The kept pixels as they are, uint8 (3, H, W); of the others a ghost in blue."""
    colour_CHW = np.broadcast_to(picture_CHW, (3, *picture_CHW.shape[1:])).astype(np.float32)
    grey_HW = colour_CHW.mean(axis=0)
    gone_CHW = (1 - _GHOST) * _GONE[:, None, None] + _GHOST * grey_HW
    return np.where(kept_HW, colour_CHW, gone_CHW).round().astype(np.uint8)


def png_address(picture_CHW: np.ndarray) -> str:
    """A picture, uint8 with 1 or 3 channels, as a PNG in an address."""
    from PIL import Image

    colour_HWC = np.ascontiguousarray(np.broadcast_to(picture_CHW, (3, *picture_CHW.shape[1:])).transpose(1, 2, 0))
    data = io.BytesIO()
    Image.fromarray(colour_HWC).save(data, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def _heat_rows(table: HeatMap) -> list[HeatRow]:
    def cell(row: int, column: int) -> HeatCell:
        mean, error = float(table.mean_SM[row, column]), float(table.standard_error_SM[row, column])
        return HeatCell(
            confidence(mean), "" if np.isnan(error) else f"± {confidence(error)}", f"{mean:.3f}", row == column
        )

    columns = range(len(table.judges))
    return [HeatRow(name, [cell(row, column) for column in columns]) for row, name in enumerate(table.sources)]


def _provenance(found: Features) -> list[tuple[str, str]]:
    record = found.record
    names = names_of(record.networks)
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    return [
        ("way", record.question.selector.label),
        ("images", f"{record.num_images}, evenly over the test set"),
        ("data", f"fingerprint {record.question.data_fingerprint[:16]}"),
        ("networks", ", ".join(f"{name}: {one.training}" for name, one in zip(names, record.networks, strict=True))),
        ("computed on", f"{record.device}, {versions}"),
    ]
