import json
import os
from pathlib import Path

import pytest

from raypruning.errors import ResourceError
from raypruning.reporting.documents import to_json, to_markdown, write_comparison

from . import sample

GOLDEN = Path(__file__).parents[2] / "golden" / "report"


def test_json_is_one_object_with_the_promised_keys(any_results):
    found = to_json(any_results)
    assert {"sweep", "potentials", "excess_errors", "probes", "cost"} <= set(found)
    json.dumps(found, allow_nan=False)


def test_json_potentials_are_flat(results):
    found = to_json(results)["potentials"]
    assert len(found) == len(results.potentials)
    for flat, record in zip(found, results.potentials, strict=True):
        assert {"method", "task", "budget", "seed", "delta", "ratio", "status", "interval"} <= set(flat)
        assert (flat["method"], flat["seed"], flat["ratio"]) == (record.curve.method, record.curve.seed, record.ratio)


def test_json_of_a_failed_probe_measures_nothing(results):
    (failed,) = [probe for probe in to_json(results)["probes"] if probe["status"] == "failed"]
    assert failed["ratio_reached"] is None
    assert failed["errors"] == {}
    assert failed["failure"]["message"] == "loss is NaN at epoch 3 of 10"


def test_json_sweep_holds_the_spec_and_the_answer(results):
    sweep = to_json(results)["sweep"]
    assert sweep["name"] == "lenet5-strokes"
    assert sweep["answer"].startswith("wt keeps")
    assert sweep["storage"] == results.storage


@pytest.mark.parametrize("name", ["realistic", "empty"])
def test_markdown_is_as_recorded(name, request):
    text = to_markdown(getattr(sample, name)())
    path = GOLDEN / f"{name}.md"
    if request.config.getoption("--update-golden", default=False) or os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{path} is missing: look at the text, then record it with UPDATE_GOLDEN=1"
    assert text == path.read_text(encoding="utf-8")


def test_every_recorded_report_is_compared():
    assert sorted(path.name for path in GOLDEN.iterdir()) == ["empty.md", "realistic.md"]


def test_markdown_escapes_names(hostile):
    text = to_markdown(hostile)
    assert "<script>" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    heads = [line for line in rows if line.startswith("| task")]
    for head in heads:
        width = head.replace("\\|", "").count("|")
        body = rows[rows.index(head) + 1 :][:4]
        assert {line.replace("\\|", "").count("|") for line in body} == {width}


def test_comparison_that_cannot_be_written_says_where(results, tmp_path):
    with pytest.raises(ResourceError, match="nowhere"):
        write_comparison([results, results], tmp_path / "nowhere" / "page.html")
