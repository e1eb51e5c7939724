from raypruning.core.records import Failure
from raypruning.reporting.notes import images_note, probe_label, report_warnings

from . import sample


def test_warnings_tell_of_too_few_images():
    (line,) = report_warnings(sample.tiny())
    assert "1 image of 360 on nominal" in line


def test_warnings_are_silent_about_enough_images(results):
    assert not any("too few" in line for line in report_warnings(results))


def test_warnings_name_failed_probes_and_why(results):
    (line,) = report_warnings(results)
    assert line == "1 probe failed and measured nothing: ft, 10 epochs, seed 1 at 65.0 % (TrainingError)."


def test_warnings_tell_of_networks_that_waited_for_images(results):
    # Too little, just enough, much, and much of a training of seconds.
    waits = iter([(0.099, 200.0), (0.1, 101.0), (0.43, 200.0), (0.9, 10.0)])

    def waiting(probe):
        if probe.result is None or (wait := next(waits, None)) is None:
            return probe
        changes = {"data_wait": wait[0], "seconds": {"train": wait[1]}}
        return probe.model_copy(update={"result": probe.result.model_copy(update=changes)})

    slow = results.model_copy(update={"probes": tuple(map(waiting, results.probes))})
    (line,) = set(report_warnings(slow)) - set(report_warnings(results))
    assert line == (
        "2 networks waited for images to be decoded, for up to 43.0 % of the training: "
        "more --cpus-per-probe decode faster."
    )


def test_warnings_do_not_repeat_the_note():
    results = sample.tiny().model_copy(update={"spec": sample.spec(note="quick"), "warnings": ("quick", "other")})
    assert "quick" not in report_warnings(results)
    assert "other" in report_warnings(results)


def test_label_of_a_parent_has_no_ratio(results):
    assert probe_label(results.probes[0]) == "parent of seed 0"
    assert probe_label(results.probes[1]) == "parent of seed 0 retrained for 2 epochs"


def test_images_note_groups_tasks_of_the_same_size(results):
    assert images_note(results, delta=0.005) == "0.5 points = 50 of 10\N{NO-BREAK SPACE}000 images on every task."
    other = results.tasks[1].model_copy(update={"num_examples": 2000})
    mixed = results.model_copy(update={"tasks": (results.tasks[0], other)})
    assert images_note(mixed, delta=0.005) == (
        "0.5 points = 50 of 10\N{NO-BREAK SPACE}000 images on nominal; "
        "10 of 2\N{NO-BREAK SPACE}000 images on noise/uniform/0.05."
    )


def test_images_note_of_segmentation_says_what_its_error_is(results):
    pixels = [task.model_copy(update={"metric": "segmentation", "num_examples": 90}) for task in results.tasks[:2]]
    found = results.model_copy(update={"tasks": tuple(pixels)})
    assert images_note(found, delta=0.005) == (
        "0.5 points = 0.005 of the error, which is 1 - mean intersection over union, over 90 images on every task."
    )
    assert not any("too few" in line for line in report_warnings(found))


def test_a_failure_without_a_reason_is_still_told(results):
    failed = next(p for p in results.probes if not p.is_done)
    assert failed.failure == Failure(kind="TrainingError", message="loss is NaN at epoch 3 of 10")
    bare = results.model_copy(update={"probes": (failed.model_copy(update={"failure": None}),)})
    assert "no reason recorded" in report_warnings(bare)[0]


def test_warnings_name_networks_with_layers_that_no_longer_matter(results):
    done = [probe for probe in results.probes if probe.is_done and not probe.probe.curve.is_dense][:4]

    def without(probe, layers: tuple[str, ...]):
        checkpoint = probe.result.checkpoint.model_copy(update={"dead_layers": layers})
        return probe.model_copy(update={"result": probe.result.model_copy(update={"checkpoint": checkpoint})})

    dead = [without(done[0], ("conv2",)), *(without(probe, ("a", "b", "c", "d")) for probe in done[1:])]
    (line,) = report_warnings(results.model_copy(update={"probes": (*dead, results.probes[0])}))
    assert line.startswith(
        f"In 4 networks whole layers have no part in the answer any more: {probe_label(done[0])} (conv2)"
    )
    assert line.endswith("(a, b, c, 1 more), and 1 more.")
