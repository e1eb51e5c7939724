"""What a report says of a schedule that is not the plain one, and of labels with parameters."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from raypruning.core.records import MethodChoice, ProbeResult, Schedule, SweepResults
from raypruning.reporting import wording
from raypruning.reporting.answer import answer_context, method_names
from raypruning.reporting.documents import to_json, to_markdown
from raypruning.reporting.frames import errors_frame, probes_frame
from raypruning.reporting.html import render_html
from raypruning.reporting.probe_table import probe_heads, probe_row

from . import sample

CHAIN = Schedule(kind="iterative", steps=5)


def in_chain(result: ProbeResult, index: int) -> ProbeResult:
    if result.probe.curve.is_dense:
        return result
    probe = result.probe.model_copy(update={"place": "branch" if index % 2 else "link"})
    return result.model_copy(update={"probe": probe})


@pytest.fixture(scope="module")
def chained() -> SweepResults:
    full = sample.realistic(schedule=CHAIN)
    return full.model_copy(update={"probes": tuple(in_chain(p, i) for i, p in enumerate(full.probes))})


@pytest.mark.parametrize(
    ("schedule", "budget", "text", "retraining"),
    [
        (Schedule(), 2, "", "2 epochs of retraining"),
        (Schedule(), 0, "", "no retraining"),
        (Schedule(rewind_epochs=3), 2, "weights rewound to epoch 3", "2 epochs of retraining"),
        (CHAIN, 1, "pruned in a chain of 5 links", "1 epoch of retraining for each link"),
        (
            Schedule(kind="iterative", ratios=(0.5,), rewind_epochs=0),
            2,
            "pruned in a chain of 1 link, weights rewound to epoch 0",
            "2 epochs of retraining for each link",
        ),
        (
            Schedule(kind="iterative", grid="lost/vgg16"),
            150,
            "pruned in a chain of the grid lost/vgg16",
            "150 epochs of retraining for each link",
        ),
        (Schedule(kind="gradual"), 6, "pruned gradually while retraining", "6 epochs of retraining"),
        (
            Schedule(kind="gradual", from_scratch=True),
            20,
            "pruned gradually while training from scratch",
            "20 epochs of training",
        ),
    ],
    ids=str,
)
def test_schedule_is_named_beside_its_budget(schedule, budget, text, retraining):
    assert wording.schedule(schedule) == text
    assert wording.retraining(budget, schedule) == retraining


def test_context_of_the_answer_names_the_schedule(chained):
    expected = (
        "lenet5 on strokes, pruned in a chain of 5 links, 10 epochs of retraining for each link, mean over 2 seeds"
    )
    assert answer_context(chained) == expected
    assert "after 10 epochs of retraining for each link" in to_markdown(chained)


def test_frames_and_json_tell_links_from_branches(chained):
    expected = [result.probe.place for result in chained.probes]
    frame = probes_frame(chained)
    assert [None if pd.isna(place) else place for place in frame["place"]] == expected
    assert set(errors_frame(chained)["place"].dropna()) == {"link", "branch"}
    assert [probe["place"] for probe in to_json(chained)["probes"]] == expected
    starts = [None if pd.isna(start) else start for start in frame["start"]]
    assert [probe["start"] for probe in to_json(chained)["probes"]] == starts


def test_table_of_probes_has_a_column_for_the_place_in_a_chain_and_only_there(chained):
    heads = [head.text for head in probe_heads(chained)]
    place = heads.index("in the chain")
    rows = [probe_row(chained, result) for result in chained.probes]
    assert all(len(row.cells) == len(heads) for row in rows)
    assert [row.cells[place].text for row in rows] == [result.probe.place or "" for result in chained.probes]
    plain = sample.realistic()
    assert "in the chain" not in [head.text for head in probe_heads(plain)]
    assert len(probe_row(plain, plain.probes[0]).cells) == len(probe_heads(plain))
    assert "in the chain" in render_html(chained) and "in the chain" not in render_html(plain)


def test_method_with_parameters_goes_by_its_label_and_leaves_ids_alone():
    method = MethodChoice(name="wt", parameters={"rules": "paper", "skip": ("conv1", "fc2")})
    full = sample.realistic()
    renamed = {
        "spec": full.spec.model_copy(update={"methods": (method, *full.spec.methods[1:])}),
        "potentials": tuple(
            p.model_copy(update={"curve": p.curve.model_copy(update={"method": method.label})})
            if p.curve.method == "wt"
            else p
            for p in full.potentials
        ),
        "summaries": tuple(
            s.model_copy(update={"method": method.label}) if s.method == "wt" else s for s in full.summaries
        ),
    }
    results = full.model_copy(update=renamed)
    assert method_names(results) == ["wt:rules=paper,skip=conv1+fc2", "ft", "random"]
    page = render_html(results)
    assert method.label in page
    assert all(re.fullmatch(r"[A-Za-z][\w-]*", name) for name in re.findall(r'\bid="([^"]*)"', page))
