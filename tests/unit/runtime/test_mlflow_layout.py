from __future__ import annotations

import math
import re

import pytest

from raypruning.core.identity import make_training
from raypruning.core.records import (
    DENSE,
    Checkpoint,
    Cost,
    Curve,
    DataChoice,
    Epoch,
    Evaluation,
    ExcessError,
    Failure,
    Gradual,
    Mask,
    MethodChoice,
    ModelChoice,
    Potential,
    PotentialSummary,
    Probe,
    ProbeResult,
    Provenance,
    Recipe,
    SweepResults,
    SweepSpec,
    TrainingResult,
)
from raypruning.runtime import mlflow_layout as layout

MLFLOW_NAME = re.compile(r"^[\w.\- :]+(/[\w.\- :]+)*$")  # mlflow.utils.validation: also no "." or ".." as a part
SHIFTED = "noise/uniform/0.1"
SPEC = SweepSpec(
    name="small",
    model=ModelChoice(name="lenet5"),
    data=DataChoice(name="digits"),
    methods=(MethodChoice(name="wt"),),
    tasks=("nominal", SHIFTED),
    budgets=(2,),
    recipe=Recipe(epochs=3, learning_rate=0.1),
)


def make_probe(
    *,
    method: str = "wt",
    ratio: float = 0.9,
    seed: int = 0,
    budget: int = 2,
    start: str | None = None,
    recipe: Recipe = SPEC.recipe,
) -> Probe:
    training = make_training(
        model=SPEC.model,
        data=SPEC.data,
        data_fingerprint="data",
        recipe=recipe,
        epochs=budget,
        seed=seed,
        mask=None if method == DENSE else Mask(method=MethodChoice(name=method), ratio=ratio),
        start=start,
    )
    curve = Curve(model="lenet5", dataset="digits", method=method, budget=budget, seed=seed)
    return Probe(curve=curve, ratio=0.0 if method == DENSE else ratio, training=training)


def make_result(
    probe: Probe, *, error: float = 0.1, train_loss: float = 1.0, reached: float | None = None
) -> ProbeResult:
    reached = probe.ratio if reached is None else reached
    checkpoint = Checkpoint(
        uri="trainings/weights",
        sha256="ab",
        num_bytes=10,
        ratio_asked=probe.ratio,
        ratio_reached=reached,
        num_nonzero=100,
        num_params=1000,
        num_prunable=900,
        macs=250,
        macs_dense=1000,
    )
    stored = TrainingResult(
        training=probe.training,
        checkpoint=checkpoint,
        history=(
            Epoch(epoch=1, learning_rate=0.1, train_loss=train_loss),
            Epoch(epoch=2, learning_rate=0.1, train_loss=0.5, validation_error=0.2),
        ),
        seconds={"train": 60.0},
        provenance=Provenance(versions={"torch": "2.13.0"}, created="2026-11-20T10:00:00+00:00", git_commit="abc"),
    )
    evaluations = {
        task: Evaluation(
            training=probe.id,
            task=task,
            task_fingerprint=task,
            error=error,
            num_examples=1000,
            num_wrong=round(1000 * error),
            loss=1.0,
            predictions="predictions",
            sha256="cd",
            seconds=0.5,
        )
        for task in SPEC.tasks
    }
    return ProbeResult(probe=probe, status="done", result=stored, evaluations=evaluations)


def make_results(*results: ProbeResult, **fields: object) -> SweepResults:
    empty: dict[str, object] = {"tasks": (), "potentials": (), "summaries": (), "excess_errors": ()}
    cost = Cost(num_probes=0, num_trained=0, num_evaluated=0, num_failed=0, epochs=0, seconds={}, wall_seconds=0)
    return SweepResults.model_validate(
        {"spec": SPEC, "data_fingerprint": "data", "probes": results, "cost": cost, "storage": "/s"} | empty | fields
    )


def make_potential(curve: Curve, *, ratio: float | None, delta: float = 0.005) -> Potential:
    status = "open" if ratio is None else "closed"
    return Potential(
        curve=curve, task=SHIFTED, delta=delta, status=status, ratio=ratio, num_examples=1000, num_lost_allowed=5
    )


@pytest.mark.parametrize("chart", ["nominal", SHIFTED, "corruption/böse (5)/x", "a:b"])
def test_metric_name_is_one_section_and_one_chart_that_mlflow_takes(chart: str) -> None:
    name = layout.metric_name("error", chart)
    assert MLFLOW_NAME.match(name)
    assert name.count("/") == 1


@pytest.mark.parametrize(("ratio", "step"), [(0.0, 0), (0.5, 5000), (0.95004, 9500), (0.99999, 10000)])
def test_step_is_the_ratio_in_hundredths_of_a_percent(ratio: float, step: int) -> None:
    assert layout.step_of(ratio) == step


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("1970-01-01T00:00:01+00:00", 1000),
        ("1970-01-01T01:00:01+01:00", 1000),
        ("1970-01-01T00:00:01", 1000),
        ("", 0),
        ("yesterday", 0),
    ],
)
def test_time_is_taken_from_the_record_and_is_utc_unless_it_says_otherwise(created: str, expected: int) -> None:
    assert layout.time_ms(Provenance(created=created)) == expected


def test_probes_of_one_curve_share_its_key_and_other_curves_or_recipes_do_not() -> None:
    key = layout.curve_key(make_probe())
    assert layout.curve_key(make_probe(ratio=0.5, start="parent")) == key
    others = [make_probe(method="ft"), make_probe(seed=1), make_probe(budget=3)]
    others.append(make_probe(recipe=SPEC.recipe.model_copy(update={"learning_rate": 0.2})))
    assert len({key, *map(layout.curve_key, others)}) == 5


@pytest.mark.parametrize(
    ("method", "budget", "name"),
    [
        ("wt", 2, "wt · 2 epochs · seed 0"),
        ("wt", 1, "wt · 1 epoch · seed 0"),
        (DENSE, 0, "dense · seed 0"),
        (DENSE, 2, "dense retrained · 2 epochs · seed 0"),
    ],
)
def test_curve_name_says_what_a_legend_needs(method: str, budget: int, name: str) -> None:
    assert layout.curve_name(make_probe(method=method, budget=budget).curve) == name


def test_curve_params_are_what_one_groups_by() -> None:
    params = layout.curve_content(make_probe(), sweep="small").params
    expected = {"model": "lenet5", "dataset": "digits", "method": "wt", "budget": "2", "seed": "0"}
    assert expected.items() <= params.items()
    assert params["recipe.learning_rate"] == "0.1"
    assert params["recipe.numerics.threads"] == "1"


def test_probe_adds_one_point_per_task_where_its_reached_ratio_stands() -> None:
    points = layout.curve_points(make_result(make_probe(ratio=0.9), reached=0.8999))
    assert {(point.key, point.value, point.step) for point in points} == {
        ("error/nominal", 0.1, 8999),
        ("error/noise_uniform_0.1", 0.1, 8999),
        ("size/macs_kept", 0.25, 8999),
    }


def test_failed_probe_adds_no_point_and_ends_failed() -> None:
    failed = ProbeResult(probe=make_probe(), status="failed", failure=Failure(kind="E", message="x" * 10_000))
    content = layout.probe_content(failed, sweep="small")
    assert layout.curve_points(failed) == content.points == content.history == content.answers == ()
    assert content.status == "FAILED"
    assert content.tags["probe_status"] == "failed"
    assert len(content.tags["failure.message"]) <= 8000


def test_failed_evaluation_of_a_stored_training_measures_nothing() -> None:
    failed = make_result(make_probe()).model_copy(update={"status": "failed", "evaluations": {}})
    assert layout.curve_points(failed) == layout.probe_content(failed, sweep="small").points == ()


def test_probe_run_holds_evaluations_sizes_seconds_and_provenance() -> None:
    content = layout.probe_content(make_result(make_probe()), sweep="small")
    values = {point.key: point.value for point in content.points}
    assert values["error/nominal"] == 0.1
    assert values["size/ratio_asked"] == 0.9
    assert (values["seconds/train"], values["seconds/evaluate"]) == (60.0, 1.0)
    assert content.tags["version.torch"] == "2.13.0"
    assert content.tags["checkpoint.uri"] == "trainings/weights"
    assert content.tags["evaluation.noise_uniform_0.1"].startswith("100 of 1000 wrong")
    assert content.end_ms is not None and content.start_ms == content.end_ms - 60_000


def test_history_steps_by_epoch_and_leaves_out_what_was_not_measured() -> None:
    history = layout.probe_content(make_result(make_probe()), sweep="small").history
    assert [(p.step, p.value) for p in history if p.key == "history/train_loss"] == [(1, 1.0), (2, 0.5)]
    assert [(p.step, p.value) for p in history if p.key == "history/validation_error"] == [(2, 0.2)]
    assert [p.time_ms for p in history] == sorted(p.time_ms for p in history)


def test_values_that_are_not_finite_are_dropped() -> None:
    result = make_result(make_probe())
    assert result.result is not None
    # Records refuse such values; one that comes from elsewhere must not reach a chart either.
    epochs = tuple(Epoch.model_construct(epoch=n, train_loss=v) for n, v in enumerate([math.inf, math.nan, 1.0]))
    broken = result.model_copy(update={"result": result.result.model_copy(update={"history": epochs})})
    assert [point.value for point in layout.probe_content(broken, sweep="small").history] == [1.0]


def test_all_names_are_such_that_mlflow_takes_them() -> None:
    result = make_result(make_probe())
    content, curve = layout.probe_content(result, sweep="s"), layout.curve_content(result.probe, sweep="s")
    answer = layout.answer_content(
        make_results(result, potentials=(make_potential(result.probe.curve, ratio=0.5),)), result.probe.curve
    )
    names = [point.key for run in (content, answer) for point in run.points + run.history + run.answers]
    names += [name for run in (content, curve, answer) for name in (*run.params, *run.tags)]
    assert [name for name in names if not MLFLOW_NAME.match(name)] == []


def test_parent_is_found_through_the_links_of_a_chain() -> None:
    parent = make_result(make_probe(method=DENSE, budget=0))
    link = make_result(make_probe(ratio=0.5, start=parent.probe.id))
    last = make_probe(ratio=0.9, start=link.probe.id)
    known = {result.probe.id: result for result in (parent, link)}
    assert layout.parent_of(last, known) == parent
    assert layout.parent_of(last, {link.probe.id: link}) is None
    assert layout.parent_of(make_probe(), known) is None


def test_potentials_are_bars_in_a_section_per_delta() -> None:
    result = make_result(make_probe())
    curve = result.probe.curve
    potentials = (make_potential(curve, ratio=0.5), make_potential(curve, ratio=0.9, delta=0.02))
    content = layout.answer_content(make_results(result, potentials=potentials), curve)
    assert {(point.key, point.value, point.step) for point in content.answers} == {
        ("potential_0.005/noise_uniform_0.1", 0.5, 0),
        ("potential_0.02/noise_uniform_0.1", 0.9, 0),
    }


def test_unknown_potential_has_no_bar_and_says_so() -> None:
    result = make_result(make_probe())
    curve = result.probe.curve
    content = layout.answer_content(make_results(result, potentials=(make_potential(curve, ratio=None),)), curve)
    assert content.answers == ()
    assert content.tags["potential.noise_uniform_0.1.0.005"] == "unknown (open)"


def test_excess_errors_are_lines_that_begin_at_zero() -> None:
    result = make_result(make_probe())
    excess = ExcessError(curve=result.probe.curve, ratio=0.9, task=SHIFTED, nominal="nominal", value=0.04, raw_gap=0.07)
    points = layout.excess_points(make_results(result, excess_errors=(excess,)), result.probe.curve)
    assert [(point.key, point.value, point.step) for point in points] == [
        ("excess_error/noise_uniform_0.1", 0.0, 0),
        ("excess_error/noise_uniform_0.1", 0.04, 9000),
    ]


def test_note_begins_with_the_answer_and_stays_within_the_limit() -> None:
    row = PotentialSummary(
        method="wt", task="nominal", budget=2, delta=0.005, n=3, num_known=3, mean=0.95, sd=0.01, low=0.94, high=0.96
    )
    results = make_results(make_result(make_probe()), summaries=(row,) * 500)
    note = layout.experiment_tags(SPEC, results, charts="/#/x")["mlflow.note.content"]
    assert "wt 0.950" in note.splitlines()[0]
    assert "| nominal | 0.005 | wt | 2 | 0.950 ± 0.010 | 3 |" in note
    assert "(/#/x)" in note
    assert len(note) < 20_000


def test_seeds_of_a_method_share_a_colour_that_no_other_has() -> None:
    used: dict[tuple[str, ...], str] = {}
    colors = {}
    for method, seed in [("wt", 0), ("ft", 0), ("wt", 1), (DENSE, 0), ("random", 0)]:
        params = layout.curve_content(make_probe(method=method, seed=seed), sweep="s").params
        colors[method, seed] = used[layout.color_family(params)] = layout.color_of(params, used)
    assert colors["wt", 0] == colors["wt", 1]
    assert len(set(colors.values())) == 4


def test_links_ask_for_curves_as_charts() -> None:
    query = "searchFilter=tags.kind%20%3D%20%27curve%27&compareRunsMode=CHART"
    assert layout.experiment_url("http://localhost:5000/", "7") == f"http://localhost:5000/#/experiments/7/runs?{query}"
    url = layout.compare_url("http://localhost:5000", ["1", "2"])
    assert url == f"http://localhost:5000/#/compare-experiments/s?experiments=%5B%221%22%2C%20%222%22%5D&{query}"


# Schedules, and methods with parameters


def test_curve_of_another_schedule_is_named_by_it() -> None:
    plain = make_probe().curve
    assert layout.curve_name(plain) == "wt · 2 epochs · seed 0"
    chain = plain.model_copy(update={"schedule": "iterative", "method": "wt:rules=paper"})
    assert layout.curve_name(chain) == "wt:rules=paper · iterative · 2 epochs · seed 0"
    dense = make_probe(method=DENSE).curve.model_copy(update={"schedule": "iterative"})
    assert layout.curve_name(dense) == "dense retrained · 2 epochs · seed 0"


@pytest.mark.parametrize("place", ["link", "branch", None])
def test_run_of_a_probe_says_whether_it_is_a_link_or_a_branch(place: str | None) -> None:
    probe = make_probe(start="a" * 20).model_copy(update={"place": place})
    assert layout.probe_content(make_result(probe), sweep="small").tags.get("place") == place


def test_runs_of_rewound_and_gradual_curves_are_their_own_and_say_so() -> None:
    probe = make_probe()
    rewound = probe.model_copy(update={"training": probe.training.model_copy(update={"rewind_epochs": 1})})
    gradual = probe.model_copy(update={"training": probe.training.model_copy(update={"gradual": Gradual()})})
    assert len({layout.curve_key(one) for one in (probe, rewound, gradual)}) == 3
    assert layout.curve_content(rewound, sweep="small").params["rewind_epochs"] == "1"
    assert layout.curve_content(gradual, sweep="small").params["gradual.frequency"] == "100"


def test_parent_of_what_was_pruned_from_scratch_is_the_dense_network_of_its_seed_and_recipe() -> None:
    parents = [make_result(make_probe(method=DENSE, budget=0, seed=seed)) for seed in (0, 1)]
    known = {parent.probe.id: parent for parent in parents}
    probe = make_probe(seed=1)
    scratch = probe.model_copy(update={"training": probe.training.model_copy(update={"gradual": Gradual()})})
    assert layout.parent_of(scratch, known) == parents[1]
    other = scratch.training.model_copy(update={"recipe": Recipe(epochs=9, learning_rate=0.1)})
    assert layout.parent_of(scratch.model_copy(update={"training": other}), known) is None


def test_method_with_parameters_makes_names_that_mlflow_takes() -> None:
    method = MethodChoice(name="wt", parameters={"rules": "paper", "skip": ("conv1", "fc2")})
    probe = make_probe()
    mask = probe.training.mask.model_copy(update={"method": method})
    curve = probe.curve.model_copy(update={"method": method.label})
    probe = probe.model_copy(update={"curve": curve, "training": probe.training.model_copy(update={"mask": mask})})
    content = layout.curve_content(probe, sweep="small")
    assert content.params["method"] == "wt:rules=paper,skip=conv1+fc2"
    assert all(MLFLOW_NAME.match(name) for name in content.params)
    assert all(MLFLOW_NAME.match(point.key) for point in layout.curve_points(make_result(probe)))
