"""`prune-cli submit --kubernetes`, `status`, `logs` and `cancel`: a real kubectl, and a server that answers it."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from raypruning.runtime import kubernetes_jobs
from raypruning.runtime.rayjob import FILE, QUEUE, SWEEP, job_name
from tests import test_docs as docs
from tests.conftest import PruneCli
from tests.k8s import crd, operator_rules, own_rules
from tests.k8s.api_server import Cluster, served
from tests.k8s.rendering import KUBECTL, OVERLAYS, Manifest, rendered

WHY_SKIPPED = "no kubectl: nothing renders an overlay or asks a server"
pytestmark = [pytest.mark.skipif(KUBECTL is None, reason=WHY_SKIPPED), pytest.mark.slow]

SUBMIT = ("submit", "lenet5", "--delta", "0.005", "--kubernetes", "--overlay", "local")
COMMAND = (
    "prune-cli sweep lenet5 --delta 0.005 --storage /storage "
    "--tracking-uri http://mlflow.raypruning.svc:5000 --name lenet5 --address auto"
)
NAME = "lenet5"
TOML = """
model = "lenet5"
dataset = "strokes"
recipe = "quick_lenet5"
methods = ["wt"]
budgets = [1]
"""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No overlay, no settings and no cluster of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr(kubernetes_jobs, "POLL_SECONDS", 0.05)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster()
    with served(found, tmp_path / "kubeconfig"):
        yield found


def only_job(cluster: Cluster) -> Manifest:
    (found,) = cluster.jobs.values()
    return found


def dry_run(prune_cli: PruneCli, *words: object) -> Manifest:
    ran = prune_cli("submit", *words, "--kubernetes", "--dry-run")
    assert ran.code == 0, ran.err
    assert ran.err == ""
    found = yaml.safe_load(ran.out)
    assert isinstance(found, dict)
    return found


# -- printed, with no cluster at all


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_printed_rayjob_keeps_every_rule_of_the_overlays(overlay: str, prune_cli: PruneCli):
    name = "Night.2"
    job = dry_run(prune_cli, "lenet5", "--overlay", overlay, "--name", name)
    place = f"overlays/{overlay}"
    assert operator_rules.complaints(job) == []
    assert own_rules.complaints([one if one["kind"] != "RayJob" else job for one in rendered(place)]) == []
    if crd.is_there():
        assert crd.complaints(job) == []
    assert job["metadata"]["annotations"][SWEEP] == name
    program, *words = shlex.split(job["spec"]["entrypoint"])
    assert program == "prune-cli"
    docs.parse(words)
    assert words[words.index("--name") + 1] == name


def test_printed_rayjob_is_read_by_kubectl_as_it_was_meant(prune_cli: PruneCli, tmp_path: Path):
    file = tmp_path / "sweep.toml"
    file.write_text(f'name = "1e3"  # ü: 1000 to some{TOML}')
    ran = prune_cli("submit", file, "--kubernetes", "--dry-run")
    assert ran.code == 0, ran.err
    (tmp_path / "rayjob.yaml").write_text(ran.out)
    (tmp_path / "kustomization.yaml").write_text("resources: [rayjob.yaml]\n")
    done = subprocess.run([str(KUBECTL), "kustomize", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout) == yaml.safe_load(ran.out)
    assert yaml.safe_load(ran.out)["metadata"]["annotations"][SWEEP] == "1e3"


def test_places_and_resources_that_nobody_typed_are_the_overlays(prune_cli: PruneCli):
    job = dry_run(prune_cli, "resnet101", "--delta", "0.005", "--cpus-per-probe", "4")
    assert job["spec"]["entrypoint"] == (
        "prune-cli sweep resnet101 --delta 0.005 --cpus-per-probe 4 --storage /storage "
        "--tracking-uri http://mlflow.raypruning.svc:5000 --data-dir /data --gpus-per-probe 1 --max-concurrent 8 "
        "--name resnet101 --address auto"
    )


def test_resources_of_a_sweeps_own_file_win_over_the_overlays(prune_cli: PruneCli, tmp_path: Path):
    file = tmp_path / "half.toml"
    file.write_text(f'name = "half"{TOML}')
    assert "--gpus-per-probe 1 " in dry_run(prune_cli, file)["spec"]["entrypoint"]
    file.write_text(file.read_text() + "[resources]\ngpus_per_probe = 0.5\n")
    assert "--gpus-per-probe" not in dry_run(prune_cli, file)["spec"]["entrypoint"]


def test_queue_takes_the_overlay_of_kueue(prune_cli: PruneCli):
    job = dry_run(prune_cli, "resnet101", "--queue", "team-a")
    assert job["metadata"]["labels"][QUEUE] == "team-a"
    assert "autoscalerOptions" not in job["spec"]["rayClusterSpec"]


def test_another_namespace_has_an_mlflow_of_its_own(prune_cli: PruneCli):
    job = dry_run(prune_cli, "resnet101", "--namespace", "team-a")
    assert job["metadata"]["namespace"] == "team-a"
    assert "--tracking-uri http://mlflow:5000 " in job["spec"]["entrypoint"]


def test_overlay_of_ones_own_is_found_by_its_path_and_in_the_current_folder(prune_cli: PruneCli, tmp_path: Path):
    folder = tmp_path / "k8s" / "overlays" / "mine"
    folder.mkdir(parents=True)
    base = Path(docs.ROOT, "k8s", "base")
    there = Path("..", *[".."] * (len(folder.parts) - 2), *base.parts[1:])
    (folder / "kustomization.yaml").write_text(f"namespace: mine\nresources: [{there}]\n")
    for overlay in ("mine", folder):
        assert dry_run(prune_cli, "resnet101", "--overlay", overlay)["metadata"]["namespace"] == "mine"


def test_file_travels_with_the_rayjob_and_nothing_else_has_to(prune_cli: PruneCli, cluster: Cluster, tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text(f'name = "mine"{TOML}tasks = ["nominal", "corruption/fog/*"]\n')
    ran = prune_cli("submit", file, "--kubernetes", "--overlay", "local")
    assert (ran.code, ran.out) == (0, "mine: pending\n"), ran.err
    job = only_job(cluster)
    assert job["spec"]["entrypoint"].startswith("prune-cli sweep /sweep/sweep.toml --storage /storage ")
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    assert head["metadata"]["annotations"][FILE] == file.read_text()


# -- submitted


def test_sweep_is_submitted_once_and_found_by_whoever_submits_it_again(prune_cli: PruneCli, cluster: Cluster):
    first, second = prune_cli(*SUBMIT), prune_cli(*SUBMIT)
    assert (first.code, first.out) == (0, f"{NAME}: pending\n"), first.err
    assert f"prune-cli logs {NAME} -f --kubernetes\n" in first.err
    assert (second.code, second.out) == (0, f"{NAME}: pending already; nothing was submitted\n")
    assert second.err == first.err, "what to type next is the same"
    assert only_job(cluster)["spec"]["entrypoint"] == COMMAND
    assert [url for method, url in cluster.requests if method == "POST"] == [
        "/apis/ray.io/v1/namespaces/raypruning/rayjobs?fieldManager=prune-cli&fieldValidation=Strict&timeout=30s"
    ]


@pytest.mark.parametrize("state", ["Initializing", "Running", "Suspended", "Retrying", "Waiting"])
def test_job_at_work_or_in_a_queue_is_left_alone(state: str, prune_cli: PruneCli, cluster: Cluster):
    prune_cli(*SUBMIT)
    only_job(cluster)["status"] = {"jobDeploymentStatus": state}
    assert prune_cli(*SUBMIT).out == f"{NAME}: {state.lower()} already; nothing was submitted\n"
    assert only_job(cluster)["metadata"]["uid"] == "uid-1"


@pytest.mark.parametrize("state", ["Complete", "Failed"])
def test_job_that_ended_gives_way_once_its_pods_are_gone(state: str, prune_cli: PruneCli, cluster: Cluster):
    prune_cli(*SUBMIT)
    only_job(cluster)["status"] = {"jobDeploymentStatus": state}
    cluster.num_looks_until_gone = 3
    ran = prune_cli(*SUBMIT)
    assert (ran.code, ran.out) == (0, f"{NAME}: pending\n")
    assert ran.err.count(f"waiting for the last pods of {NAME} to go") == 1
    assert only_job(cluster)["metadata"]["uid"] == "uid-2"
    assert only_job(cluster)["spec"]["entrypoint"] == COMMAND


def test_of_two_at_the_same_moment_one_finds_the_others_job(prune_cli: PruneCli, cluster: Cluster):
    job = dry_run(prune_cli, "lenet5", "--overlay", "local")
    cluster.before["POST"] = lambda: cluster.add(job)
    assert prune_cli(*SUBMIT).out == f"{NAME}: pending already; nothing was submitted\n"
    assert only_job(cluster)["metadata"]["uid"] == "uid-1"


def test_of_two_that_replace_an_ended_job_none_deletes_the_others(prune_cli: PruneCli, cluster: Cluster):
    job = dry_run(prune_cli, "lenet5", "--overlay", "local")
    cluster.add(job, jobDeploymentStatus="Failed")
    cluster.before["DELETE"] = lambda: cluster.add(job)
    assert prune_cli(*SUBMIT).out == f"{NAME}: pending already; nothing was submitted\n"
    assert only_job(cluster)["metadata"]["uid"] == "uid-2"
    assert "deletionTimestamp" not in only_job(cluster)["metadata"]


def test_job_that_was_applied_by_hand_is_the_sweeps(prune_cli: PruneCli, cluster: Cluster):
    (job,) = [one for one in rendered("overlays/gpu") if one["kind"] == "RayJob"]
    cluster.add(job, jobDeploymentStatus="Running")
    assert prune_cli("status", "resnet101", "--kubernetes").out == "resnet101: running\n"


def test_rayjob_of_somebody_else_is_never_touched(prune_cli: PruneCli, cluster: Cluster):
    cluster.add({"metadata": {"name": NAME, "namespace": "raypruning"}, "spec": {}}, jobDeploymentStatus="Complete")
    for words in (SUBMIT, ("cancel", NAME, "--kubernetes")):
        ran = prune_cli(*words)
        assert ran.code == 2
        assert f"the RayJob {NAME} in the namespace raypruning is not of the sweep {NAME}" in ran.error_line
    assert only_job(cluster)["metadata"]["uid"] == "uid-1"
    assert "deletionTimestamp" not in only_job(cluster)["metadata"]


def test_job_in_another_namespace_is_found_there(prune_cli: PruneCli, cluster: Cluster):
    cluster.namespaces.add("team-a")
    ran = prune_cli(*SUBMIT, "--namespace", "team-a")
    assert f"prune-cli cancel {NAME} --kubernetes --namespace team-a" in ran.err
    assert prune_cli("status", NAME, "--kubernetes", "--namespace", "team-a").out == f"{NAME}: pending\n"
    assert prune_cli("status", NAME, "--kubernetes").code == 2


# -- followed, looked at, stopped


@pytest.fixture
def submitted(prune_cli: PruneCli, cluster: Cluster) -> Manifest:
    assert prune_cli(*SUBMIT, "--name", "Night.2").code == 0
    job = only_job(cluster)
    job["status"] = {"jobDeploymentStatus": "Running"}
    return job


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, "running"),
        ({"jobDeploymentStatus": "Suspended"}, "suspended"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, "finished"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "complete"),
        (
            {
                "jobDeploymentStatus": "Failed",
                "reason": "AppFailed",
                "message": "command failed with exit code 3, logs:",
            },
            "finished with open potentials",
        ),
        (
            {"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded", "message": "over\nafter two weeks"},
            "failed: DeadlineExceeded: over after two weeks",
        ),
    ],
)
def test_status_says_how_the_job_stands(
    status: dict, says: str, prune_cli: PruneCli, submitted: Manifest, cluster: Cluster
):
    submitted["status"] = status
    name = submitted["metadata"]["name"]
    assert name == job_name("Night.2") != "Night.2"
    assert prune_cli("status", "Night.2", "--kubernetes").out == f"{name}: {says}\n"
    answer = prune_cli("status", "Night.2", "--kubernetes", "--json").answer
    assert (answer["id"], answer["sweep"], answer["namespace"]) == (name, "Night.2", "raypruning")


def test_logs_are_those_of_every_attempt(prune_cli: PruneCli, submitted: Manifest, cluster: Cluster):
    name = submitted["metadata"]["name"]
    cluster.add_pod("other-1", job="other", text="nothing of ours\n")
    cluster.add_pod(f"{name}-1", job=name, text="first\n", phase="Failed")
    cluster.add_pod(f"{name}-2", job=name, text="second\nthird\n")
    assert prune_cli("logs", "Night.2", "--kubernetes").out == "first\nsecond\nthird\n"


def test_logs_before_there_are_any_are_empty(prune_cli: PruneCli, submitted: Manifest, cluster: Cluster):
    ran = prune_cli("logs", "Night.2", "--kubernetes")
    assert (ran.code, ran.out) == (0, "")
    name = submitted["metadata"]["name"]
    cluster.add_pod(f"{name}-1", job=name, text=None, phase="Pending")
    ran = prune_cli("logs", "Night.2", "--kubernetes")
    assert (ran.code, ran.out) == (0, "")


def test_followed_logs_go_on_over_a_late_start_a_cut_and_a_retry(submitted: Manifest, cluster: Cluster):
    """Each step happens between two questions: what was printed is shown once, and in order."""
    name = submitted["metadata"]["name"]

    def lose_the_head() -> None:
        cluster.pods[0]["status"]["phase"] = "Failed"
        cluster.add_pod(f"{name}-2", job=name, text="four\n")

    steps: list[Callable[[], object]] = [
        lambda: cluster.add_pod(f"{name}-1", job=name, text=None, phase="Pending"),
        lambda: cluster.printed.update({f"{name}-1": "one\ntwo\n"}),
        lambda: cluster.printed.update({f"{name}-1": "one\ntwo\nthree\n"}),
        lose_the_head,
        lambda: submitted.update(status={"jobDeploymentStatus": "Complete"}),
    ]
    jobs = kubernetes_jobs.KubernetesJobs()
    followed = jobs.follow(jobs.latest("Night.2"), sleep=lambda _: steps.pop(0)())
    assert list(followed) == ["one\n", "two\n", "three\n", "four\n"]
    assert steps == []


def test_cancelled_job_is_gone_and_the_next_one_continues(prune_cli: PruneCli, submitted: Manifest, cluster: Cluster):
    name = submitted["metadata"]["name"]
    cluster.num_looks_until_gone = 2
    assert prune_cli("cancel", "Night.2", "--kubernetes").out == f"{name}: asked to stop\n"
    assert prune_cli("cancel", "Night.2", "--kubernetes").out == f"{name}: deleting\n"
    assert prune_cli(*SUBMIT, "--name", "Night.2").out == f"{name}: pending\n"
    assert only_job(cluster)["metadata"]["uid"] == "uid-2"


# -- refused in one line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("lenet55",), "no sweep, model or TOML file is called 'lenet55'"),
        (("lenet5", "--detla", "1"), "No such option: --detla"),
        (("nowhere.toml",), "nowhere.toml: cannot be read"),
        (("lenet5", "--address", "http://head:8265"), "--address is that of another: leave one out"),
        (("lenet5", "--executor", "inline"), "leave --address and --executor out"),
        (("lenet5", "--fresh"), "take another --name"),
        (
            ("lenet5", "--storage", "/tmp/store"),
            "below /storage, or on an overlay with a bucket, such as gpu-spot; got /tmp/store",
        ),
        (("lenet5", "--storage", "/storage/../tmp"), "--storage must outlive the cluster"),
        (("lenet5", "--storage", "here"), "--storage must outlive the cluster"),
        (("lenet5", "--storage", "s3://bucket/store"), "on an overlay with a bucket, such as gpu-spot"),
        (
            ("lenet5", "--overlay", "gpu-spot", "--storage", "/storage"),
            "must outlive the cluster: s3://BUCKET/FOLDER; got /storage",
        ),
        (
            ("lenet5", "--data-dir", "/home/me"),
            "--data-dir must lie in a volume of the overlay: /storage or /data, got /home/me",
        ),
        (("lenet5", "--task", "nominal", "--task", "corruption/fog/*"), "--task: '*' does not survive the two shells"),
        (("lenet5", "--namespace", "Team_A"), "--namespace must be at most 63 lower-case letters"),
        (("lenet5", "--queue", "a b"), "--queue must be at most 63 lower-case letters"),
        (("lenet5", "--queue", "a", "--overlay", "gpu"), "Kueue admits a fixed number of workers"),
        (("lenet5", "--overlay", "cpu"), "--overlay cpu: there is no folder k8s/overlays/cpu; give"),
        (("lenet5", "--overlay", "./here"), "--overlay ./here: there is no folder here; give"),
        (("lenet5", "--overlay", "."), "unable to find one of 'kustomization.yaml'"),
        (("resnet101",), "write your registry into its kustomization.yaml, step 2 of k8s/README.md"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_no_cluster_could_run_is_refused_before_any_is_asked(
    words: tuple[str, ...], says: str, prune_cli: PruneCli, cluster: Cluster
):
    ran = prune_cli("submit", *words, "--kubernetes")
    assert ran.code == 2
    assert says in re.sub(r"\s+", " ", ran.err), ran.err
    assert ran.out == ""
    assert cluster.requests == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("submit", "lenet5"), "where? --address http://head:8265 for a Ray cluster, or --kubernetes"),
        (("logs", "lenet5"), "where? --address"),
        (("cancel", "lenet5"), "where? --address"),
        (("submit", "lenet5", "--queue", "a", "--address", "http://head:8265"), "--queue goes with --kubernetes"),
        (("submit", "lenet5", "--overlay", "a"), "--overlay goes with --kubernetes"),
        (("status", "lenet5", "--namespace", "a"), "--namespace goes with --kubernetes"),
        (("status", "lenet5", "--kubernetes", "--address", "http://head:8265"), "leave one out"),
        (
            ("status", "lenet5", "--kubernetes", "--namespace", "a/b"),
            "--namespace must be at most 63 lower-case letters",
        ),
        (("status", "", "--kubernetes"), "no job of the sweep  is in the namespace"),
        (("logs", "never", "--kubernetes"), "no job of the sweep never is in the namespace raypruning"),
        (("cancel", "never", "--kubernetes"), "no job of the sweep never is in the namespace raypruning"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_place_that_is_missing_or_named_twice_is_refused(
    words: tuple[str, ...], says: str, prune_cli: PruneCli, cluster: Cluster
):
    ran = prune_cli(*words)
    assert ran.code == 2
    assert says in ran.error_line


@pytest.mark.parametrize("flag", ["--tracking-uri", "--storage"])
@pytest.mark.parametrize("between", [" ", "="])
@pytest.mark.parametrize("user", ["me:hunter2", "hunter2", "me:hunter2/of=her"])
def test_password_is_refused_and_never_shown(flag: str, between: str, user: str, prune_cli: PruneCli):
    words = f"{flag}{between}https://{user}@mlflow".split(" ")
    ran = prune_cli("submit", "lenet5", *words, "--kubernetes", "--dry-run")
    assert ran.code == 2
    assert "leave user and password out" in ran.error_line
    assert "hunter2" not in ran.err + ran.out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda cluster: cluster.namespaces.clear(), "there is no namespace raypruning: make it by step 3"),
        (lambda cluster: setattr(cluster, "has_operator", False), "no RayJobs: install KubeRay's operator, step 1"),
        (lambda cluster: setattr(cluster, "is_forbidden", True), "the cluster refused: (Forbidden): rayjobs.ray.io is"),
    ],
    ids=["namespace", "operator", "permission"],
)
def test_what_the_cluster_lacks_is_said_in_one_line(
    change: Callable[[Cluster], object], says: str, prune_cli: PruneCli, cluster: Cluster
):
    change(cluster)
    ran = prune_cli(*SUBMIT)
    assert ran.code == 2
    assert says in ran.error_line
    assert ran.out == ""


@pytest.mark.parametrize(
    "server", [None, "http://127.0.0.1:1"], ids=["no cluster configured", "a cluster that does not answer"]
)
def test_cluster_that_kubectl_does_not_reach_is_said_in_one_line(
    server: str | None, prune_cli: PruneCli, tmp_path: Path
):
    if server:
        with served(Cluster(), tmp_path / "kubeconfig"):
            pass  # its address stays in the file
    ran = prune_cli("status", "lenet5", "--kubernetes")
    assert ran.code == 2
    assert "kubectl reaches no cluster: " in ran.error_line
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("words", [("status", "lenet5"), ("submit", "lenet5"), ("submit", "lenet5", "--dry-run")])
def test_machine_without_kubectl_is_told_where_to_find_it(
    words: tuple[str, ...], prune_cli: PruneCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    ran = prune_cli(*words, "--kubernetes")
    assert ran.code == 2
    assert "--kubernetes needs kubectl on the PATH" in ran.error_line
