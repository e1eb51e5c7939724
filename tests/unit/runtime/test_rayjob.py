"""The RayJob of a sweep, out of the base's: names, commands, files, and what it keeps of its overlay."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from raypruning.core.spec import MAX_NAME
from raypruning.errors import SpecError
from raypruning.runtime.rayjob import (
    FILE,
    PLACES,
    QUEUE,
    SWEEP,
    as_yaml,
    entrypoint,
    job_name,
    places_of,
    rayjob_in,
    sweep_rayjob,
    volumes_of,
)
from tests.k8s import crd, operator_rules, own_rules
from tests.k8s.rendering import Manifest, base_by_hand, rayjob

SWEEPS = st.from_regex(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}", fullmatch=True)
ODD = [
    "1e3",
    "Night.2",
    "a" * 100,
    "-".join(["ab"] * 33),
    "9",
    "X",
    "y",
    "a.b",
    "a-b",
    "a_b",
    "a-",
    "resnet101-0badcafe",
]


def base() -> Manifest:
    return rayjob(base_by_hand())


def of(sweep: str, **changes: str) -> Manifest:
    return sweep_rayjob(
        base(), **{"sweep": sweep, "command": "prune-cli sweep x", "namespace": "raypruning", **changes}
    )


# -- names


@pytest.mark.parametrize("sweep", ["resnet101", "night-run", "a", "a" * 47])
def test_job_has_the_name_of_its_sweep_where_kubernetes_takes_it(sweep: str):
    assert job_name(sweep) == sweep


@given(SWEEPS)
def test_job_name_is_one_that_the_operator_takes(sweep: str):
    assert list(operator_rules.name_is_short_and_a_label({"metadata": {"name": job_name(sweep)}})) == []


@given(st.lists(SWEEPS, unique=True, min_size=2, max_size=6))
@example(["a.b", "a-b", "a_b", "A-b", "a--b", "a-b-"])
@example(["a" * 99, "a" * 100, "a" * 47, "A" * 47])
@example(["Foo", job_name("Foo"), job_name(job_name("Foo")), "foo"])
def test_two_sweeps_have_two_job_names(sweeps: list[str]):
    assert len({job_name(sweep) for sweep in sweeps}) == len(sweeps)


# -- the whole RayJob


@pytest.mark.parametrize("sweep", ODD)
def test_rayjob_of_any_sweep_keeps_every_rule(sweep: str):
    command = entrypoint(["prune-cli", "sweep", "resnet101", "--name", sweep])
    job = of(sweep, command=command, file_text=f'name = "{sweep}"\n')
    manifests = [one if one["kind"] != "RayJob" else job for one in base_by_hand()]
    assert operator_rules.complaints(job) == []
    assert own_rules.complaints(manifests) == []
    assert job["metadata"]["annotations"] == {SWEEP: sweep}
    if crd.is_there():
        assert crd.complaints(job) == []


def test_rayjob_differs_from_its_overlays_in_nothing_else():
    job, before = of("night"), base()
    assert job["metadata"] == {**before["metadata"], "name": "night", "annotations": {SWEEP: "night"}}
    assert job["spec"] == {**before["spec"], "entrypoint": "prune-cli sweep x"}


def test_file_of_a_sweep_lies_in_the_pod_of_the_head_alone():
    text = 'name = "night"\ntasks = ["corruption/*/3"]\n'
    job = of("night", file_text=text)
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    assert head["metadata"]["annotations"] == {FILE: text}
    (volume,) = [one for one in head["spec"]["volumes"] if "downwardAPI" in one]
    (item,) = volume["downwardAPI"]["items"]
    assert item == {"path": "sweep.toml", "fieldRef": {"fieldPath": f"metadata.annotations['{FILE}']"}}
    (mount,) = [one for one in head["spec"]["containers"][0]["volumeMounts"] if one["name"] == volume["name"]]
    assert (mount["mountPath"], mount["readOnly"]) == ("/sweep", True)


def test_queue_is_for_a_fixed_number_of_workers():
    with pytest.raises(SpecError, match="Kueue admits a fixed number of workers"):
        of("night", queue="sweeps")
    fixed = base()
    cluster = fixed["spec"]["rayClusterSpec"]
    cluster["enableInTreeAutoscaling"] = False
    del cluster["autoscalerOptions"]
    cluster["workerGroupSpecs"][0].update(replicas=4, minReplicas=4, maxReplicas=4)
    job = sweep_rayjob(fixed, sweep="night", command="prune-cli sweep x", namespace="raypruning", queue="team-a")
    assert job["metadata"]["labels"][QUEUE] == "team-a"
    assert operator_rules.complaints(job) == []


# -- commands

SAFE = st.text(st.sampled_from("abzAZ09./:_=@,+-"), min_size=1)


@given(st.lists(SAFE, min_size=1))
def test_command_is_read_by_two_shells_as_the_words_that_were_typed(words: list[str]):
    once = shlex.split(entrypoint(words))
    assert shlex.split(" ".join(once)) == words


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["x", "--task", "corruption/*/3"], "--task: '*' does not survive"),
        (["x", "--set", "schedule.ratios=[0.5, 0.9]"], "--set: ' ' '[' ']' does not survive"),
        (["x", "--name=$HOME"], "--name: '$' does not survive"),
        (["x", "--name", ""], "--name: an empty word does not survive"),
        (["it's"], 'the target: "\'" does not survive'),
        (["x", "--task", "a\nb"], "--task: '\\n' does not survive"),
        (["ü"], "the target: 'ü' does not survive"),
    ],
)
def test_word_that_a_shell_would_change_is_refused(words: list[str], says: str):
    with pytest.raises(SpecError) as raised:
        entrypoint(words)
    assert str(raised.value).startswith(says)
    assert "\n" not in str(raised.value)


def test_refused_word_is_not_shown_for_it_may_be_a_secret():
    with pytest.raises(SpecError) as raised:
        entrypoint(["x", "--tracking-uri", "postgresql://host/db?password=hunter2"])
    assert "hunter2" not in str(raised.value)


# -- what an overlay says


def test_places_of_the_base_are_those_of_its_command():
    assert places_of(base()) == {
        "--storage": "/storage",
        "--tracking-uri": "http://mlflow.raypruning.svc:5000",
        "--data-dir": "/data",
    }


@pytest.mark.parametrize("flag", PLACES)
@pytest.mark.parametrize("between", [" ", "="])
def test_place_is_read_however_it_is_written(flag: str, between: str):
    job = {"spec": {"entrypoint": f"prune-cli sweep x --delta 0.1 {flag}{between}8 --quiet"}}
    assert places_of(job) == {flag: "8"}


def test_volumes_of_the_base_are_the_store_to_write_and_the_data_to_read():
    assert volumes_of(base()) == {"/storage": True, "/data": False}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: ConfigMap\n", "a sweep is one RayJob, and this renders 0"),
        ("kind: RayJob\n---\nkind: RayJob\n", "and this renders 2"),
        ("kind: RayJob\nspec: {clusterSelector: {a: b}}\n", "has no rayClusterSpec"),
        ("a: [b\n", "is no YAML"),
    ],
)
def test_overlay_without_a_sweep_is_refused_with_its_place(text: str, says: str):
    with pytest.raises(SpecError, match=re.escape(says)) as raised:
        rayjob_in(text, source="k8s/overlays/mine")
    assert str(raised.value).startswith("k8s/overlays/mine: ")


# -- as YAML


@given(st.text(st.characters(blacklist_categories=["Cs"])))
@example("1e3")
@example("yes")
@example("a\nb \n")
@example("- a: b")
def test_yaml_of_an_object_is_read_as_that_object(text: str):
    found = {"metadata": {"annotations": {"a": text, "b": [text]}}, "spec": {"c": 8, "d": True}}
    assert yaml.safe_load(as_yaml(found)) == found
