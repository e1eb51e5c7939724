"""What was lost, in a real MLflow: numbers of populations beside their curves, and pages as artifacts."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypruning.core.populations import Losses, PopulationNumber
from raypruning.runtime.mlflow_tracker import track_sweep
from tests.integration.test_mlflow_tracker import Seen, no_files, recorded, template, uri

__all__ = ["template", "uri"]

pytestmark = [
    pytest.mark.mlflow,
    # SQLAlchemy 2.1 about a mapper of mlflow 3.17.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]

POPULATION, PAGES = "wt · 2 epochs · all seeds", "what was lost"
LOSSES = Losses(
    numbers=(
        PopulationNumber("wt", 2, 0.9, "pie_rate/noise/uniform/0.1", 0.25),
        PopulationNumber("wt", 2, 0.5, "pie_rate/noise/uniform/0.1", 0.125),
        PopulationNumber("wt", 2, 0.9, "cka", 0.5),
        PopulationNumber("wt", 2, 0.9, "impact_lost/nominal", float("nan")),
    ),
    files={"lost.html": b"<p>Everything.</p>", "weights/weights.gif": b"GIF89a"},
)


def kept(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.glob("mlartifacts/**/artifacts/**/*") if path.is_file()]
    return {path.as_posix().partition("/artifacts/")[2]: path.read_bytes() for path in found}


def test_numbers_of_a_population_are_lines_over_ratios_beside_those_of_its_curve(uri: str) -> None:
    assert track_sweep(uri, recorded(), read=no_files, losses=LOSSES) == ()
    seen = Seen(uri)
    assert seen.history(POPULATION, "pie_rate/noise_uniform_0.1") == [(5000, 0.125), (9000, 0.25)]
    assert seen.history(POPULATION, "cka/cka") == [(9000, 0.5)]
    population, curve = seen.runs[POPULATION], seen.runs["wt · 2 epochs · seed 0"]
    assert set(population.data.metrics) == {"pie_rate/noise_uniform_0.1", "cka/cka"}, "and no number that is none"
    # What the page of charts asks for, and what makes both look alike on it.
    assert population.data.tags["kind"] == "curve"
    assert population.data.tags["mlflow.runColor"] == curve.data.tags["mlflow.runColor"]
    assert population.data.params | {"seed": "0"} == curve.data.params
    assert (population.info.status, curve.info.status) == ("FINISHED", "FINISHED")


def test_pages_are_artifacts_of_a_run_that_is_no_curve(uri: str, tmp_path: Path) -> None:
    track_sweep(uri, recorded(), read=no_files, losses=LOSSES)
    assert kept(tmp_path) == LOSSES.files
    assert Seen(uri).runs[PAGES].data.tags["kind"] == "pages"


def test_showing_the_same_losses_again_changes_nothing_and_others_replace_their_page(uri: str, tmp_path: Path) -> None:
    track_sweep(uri, recorded(), read=no_files, losses=LOSSES)
    before = Seen(uri).everything()
    track_sweep(uri, recorded(), read=no_files, losses=LOSSES)
    assert Seen(uri).everything() == before
    newer = {**LOSSES.files, "lost.html": b"<p>More.</p>"}
    track_sweep(uri, recorded(), read=no_files, losses=LOSSES._replace(files=newer))
    assert kept(tmp_path) == newer
