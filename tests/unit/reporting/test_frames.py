import pandas as pd
import pytest

from raypruning.reporting import frames
from raypruning.reporting.frames import (
    FRAMES,
    errors_frame,
    excess_errors_frame,
    potentials_frame,
    probes_frame,
    summaries_frame,
    write_csv,
)

from . import sample

COLUMNS = {
    "potentials": frames.POTENTIAL_COLUMNS,
    "summaries": frames.SUMMARY_COLUMNS,
    "errors": frames.ERROR_COLUMNS,
    "excess_errors": frames.EXCESS_COLUMNS,
    "probes": frames.PROBE_COLUMNS,
}


@pytest.mark.parametrize("name", list(FRAMES))
def test_columns_and_types_are_fixed_also_without_rows(name, any_results):
    frame = FRAMES[name](any_results)
    assert list(frame.columns) == list(COLUMNS[name])
    assert frame.dtypes.map(str).to_dict() == dict(COLUMNS[name])


def test_potentials_have_a_row_per_record_in_order(results):
    frame = potentials_frame(results)
    assert frame["ratio"].tolist() == [p.ratio for p in results.potentials]
    assert frame["status"].tolist() == [p.status for p in results.potentials]
    assert frame["seed"].tolist() == [p.curve.seed for p in results.potentials]


def test_a_potential_that_is_not_known_is_missing_not_zero():
    assert potentials_frame(sample.empty())["ratio"].isna().all()


def test_summaries_have_a_row_per_record(results):
    frame = summaries_frame(results)
    assert frame["mean"].tolist() == [s.mean for s in results.summaries]
    assert frame["num_open"].sum() == sum(s.num_open for s in results.summaries)


def test_errors_have_a_row_per_probe_and_task(results):
    frame = errors_frame(results)
    assert len(frame) == len(results.probes) * len(results.tasks)
    probe = results.probes[17]
    rows = frame[frame["training"] == probe.probe.id].set_index("task")
    for task, evaluation in probe.evaluations.items():
        assert rows.loc[task, "error"] == evaluation.error
        assert rows.loc[task, "num_wrong"] == evaluation.num_wrong


def test_errors_are_compared_with_the_parent_of_the_same_seed(results):
    frame = errors_frame(results)
    dense = {
        (p.probe.curve.seed, task): evaluation.num_wrong
        for p in results.probes
        if p.probe.curve.is_dense and p.probe.curve.budget == 0
        for task, evaluation in p.evaluations.items()
    }
    done = frame[frame["status"] == "done"]
    expected = [
        wrong - dense[seed, task]
        for wrong, seed, task in zip(done["num_wrong"], done["seed"], done["task"], strict=True)
    ]
    assert done["loss_in_images"].tolist() == expected


def test_a_failed_probe_has_rows_without_numbers(results):
    frame = errors_frame(results)
    failed = frame[frame["status"] == "failed"]
    assert len(failed) == len(results.tasks)
    assert failed[["error", "ratio_reached", "num_wrong", "added_error"]].isna().all(axis=None)
    assert failed["ratio_asked"].tolist() == [0.65] * len(results.tasks)


def test_excess_errors_keep_value_and_gap(results):
    frame = excess_errors_frame(results)
    assert frame["value"].tolist() == [e.value for e in results.excess_errors]
    assert frame["raw_gap"].tolist() == [e.raw_gap for e in results.excess_errors]


def test_probes_have_seconds_by_phase_and_why_one_failed(results):
    frame = probes_frame(results)
    first = results.probes[0]
    assert frame.loc[0, "train_seconds"] == first.seconds["train"]
    assert frame.loc[0, "seconds"] == pytest.approx(sum(first.seconds.values()), abs=1e-9)
    assert frame.loc[frame["status"] == "failed", "failure_message"].tolist() == ["loss is NaN at epoch 3 of 10"]


def test_csv_files_read_back_as_the_frames(results, tmp_path):
    paths = write_csv(results, tmp_path / "new" / "folder")
    assert [path.stem for path in paths] == list(FRAMES)
    for path in paths:
        frame = FRAMES[path.stem](results)
        pd.testing.assert_frame_equal(pd.read_csv(path, dtype=frame.dtypes.to_dict()), frame)


def test_csv_files_of_an_empty_sweep_have_their_headings(tmp_path):
    write_csv(sample.nothing(), tmp_path)
    assert (tmp_path / "potentials.csv").read_text() == ",".join(frames.POTENTIAL_COLUMNS) + "\n"
