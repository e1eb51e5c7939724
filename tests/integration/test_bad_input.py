"""Mistakes and bad luck: one clear line, the documented exit code, nothing lost, nothing counted that was not measured.

1 failed, 2 wrong input, 3 finished with open potentials, 130 and 143 interrupted.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypruning.app import sweep
from raypruning.app.sweep_files import recipes
from raypruning.core.spec import build_spec, with_settings
from raypruning.errors import SpecError

ROOT = Path(__file__).parents[2]
MNIST = ROOT.parent / "shared" / "data"
LARGE_DELTA = ("--delta", "0.1")
SWEEP_FILE = """
name = "mine"
model = "lenet5"
dataset = "strokes"
methods = ["wt"]
budgets = [1]
recipe = "quick_lenet5"
"""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder: what a mistake leaves behind is seen."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def swept(prune_cli: Callable, tiny: list[str], tmp_path_factory: pytest.TempPathFactory):
    """A finished sweep: its answer and its storage."""
    storage = tmp_path_factory.mktemp("swept") / "store"
    ran = prune_cli("sweep", "lenet5", *tiny, *LARGE_DELTA, "--storage", storage, "--json")
    assert ran.code == 0, ran.err
    return ran.answer, storage


@pytest.fixture
def storage(swept, tmp_path: Path) -> Path:
    """A copy of the finished sweep's storage, to damage."""
    return Path(shutil.copytree(swept[1], tmp_path / "store"))


@pytest.fixture
def again(prune_cli: Callable, tiny: list[str]) -> Callable:
    def run(storage: Path, *options: object):
        return prune_cli("sweep", "lenet5", *tiny, *LARGE_DELTA, "--storage", storage, "--json", *options)

    return run


# -- names and values


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sweep", "lenet55"], "no sweep, model or TOML file is called 'lenet55': did you mean lenet5"),
        (["sweep", "lenet5", "--method", "wtt"], "no method is called 'wtt': did you mean wt?"),
        (["sweep", "lenet5", "--task", "noise/unifrom/0.1"], "did you mean noise/uniform/"),
        (["sweep", "lenet5", "--task", "noise/uniform/much"], "must be a positive number, such as noise/uniform/0.1"),
        (["sweep", "lenet5", "--dataset", "strkes"], "no dataset is called 'strkes': did you mean strokes"),
        (["sweep", "lenet5", "--set", "model=lenet6"], "no model is called 'lenet6': did you mean lenet5"),
        (["sweep", "torchvision/resnet10"], "did you mean torchvision/resnet1"),
        (["sweep", "lenet5", "--search", "bisct"], "did you mean bisect?"),
        (["sweep", "lenet5", "--search", "chain"], "'chain' walks an iterative schedule"),
        (["sweep", "lenet5", "--schedule", "iterativ"], "schedule.kind: input should be 'one_shot', 'iterative' or"),
        (
            ["sweep", "lenet5", "--schedule", "iterative"],
            "takes one of schedule.grid, schedule.ratios and schedule.steps",
        ),
        (["sweep", "lenet5-chain", "--set", "schedule.grid=lost/vgg16"], "got grid and steps"),
        (["sweep", "lenet5-chain", "--search", "bisect"], "an iterative schedule is searched along its chain"),
        (["sweep", "lenet5-chain", "--set", "schedule.from_scratch=true"], "is of a schedule of kind gradual"),
        (["sweep", "lenet5-chain", "--set", "schedule.rewind_epochs=99"], "schedule.rewind_epochs must be fewer than"),
        (["sweep", "lenet5", "--schedule", "gradual", "--budget", "0"], "budgets must be at least 1 epoch, got 0"),
        (["sweep", "lenet5", "--schedule", "gradual", "--set", "schedule.end=0"], "schedule.end"),
        (["sweep", "lenet5", "--set", "schedule.grid=lost/resnet20"], "add --schedule iterative or leave it out"),
        (
            ["sweep", "resnet20", "--schedule", "iterative", "--set", "schedule.grid=lost/resnt20"],
            "no schedule.grid is called 'lost/resnt20': did you mean lost/resnet20",
        ),
        (
            ["sweep", "lenet5", "--budget", "2", "--budget-search"],
            "compares budgets, and there is only 2: add a smaller",
        ),
        (
            ["sweep", "lenet5", "--set", "search.budget_distance=1"],
            "search.budget_distance: input should be less than 1",
        ),
        (
            ["sweep", "lenet5", "--schedule", "gradual", "--set", "recipe.retrain_schedule=anytime"],
            "'anytime' is for --schedule one_shot: where it is gradual",
        ),
        (["sweep", "lenet5", "--method", "wt:skip"], "method 'wt:skip': must look like wt, or like"),
        (["sweep", "lenet5", "--method", "wt:a=1,a=2"], "a is given twice"),
        (["sweep", "lenet5", "--set", "recpe.epochs=2"], "unknown field 'recpe': did you mean recipe"),
        (["sweep", "lenet5", "--set", "recipe.epoch=2"], "unknown field 'recipe.epoch': did you mean epochs"),
        (["sweep", "lenet5", "--set", "recipe.base=quik_lenet5"], "did you mean quick_lenet5"),
        (["sweep", "lenet5", "--set", "recipe.base=[1]"], "no recipe is called"),
        (["sweep", "lenet5", "--set", "recipe.epochs"], "must look like key=value"),
        (["sweep", "lenet5", "--set", "recipe.epochs=many"], "recipe.epochs: "),
        (["sweep", "lenet5", "--delta", "5"], "delta must be in (0, 1), got 5.0; it is a fraction: write 0.005"),
        (["sweep", "lenet5", "--delta", "0"], "delta must be in (0, 1), got 0.0"),
        (["sweep", "lenet5", "--delta", "1"], "delta must be in (0, 1), got 1.0"),
        (["sweep", "lenet5", "--delta", "-0.1"], "delta must be in (0, 1), got -0.1"),
        (["sweep", "lenet5", "--delta", "nan"], "delta must be in (0, 1), got nan"),
        (["sweep", "lenet5", "--budget", "-1"], "got -1"),
        (["sweep", "lenet5", "--seed", "-1"], "got -1"),
        (["sweep", "lenet5", "--resolution", "2"], "search.resolution"),
        (["sweep", "lenet5", "--search", "modle"], "no search strategy is called 'modle': did you mean model"),
        (["sweep", "lenet5", "--probes-per-round", "0"], "search.probes_per_round"),
        (["sweep", "lenet5", "--probes-per-round", "some"], "search.probes_per_round"),
        (["sweep", "lenet5", "--set", "search.max_points=2"], "search.max_points"),
        (["sweep", "lenet5", "--gpu-hours", "2"], "--gpu-hours is for probes on GPUs"),
        (["sweep", "lenet5", "--gpu-hours", "0"], "limits.gpu_hours"),
        (["sweep", "lenet5", "--deadline", "soon"], "--deadline must be a time from now such as 90m, 6h or 2d"),
        (["sweep", "lenet5", "--deadline", "2020-01-01T00:00"], "--deadline 2020-01-01T00:00 is in the past"),
        (["sweep", "lenet5", "--set", "tasks=[]"], "tasks must hold at least one value"),
        (["sweep", "lenet5", "--cpus-per-probe", "0"], "resources.cpus_per_probe"),
        (["sweep", "lenet5", "--gpus-per-probe", "-1"], "resources.gpus_per_probe"),
        (["sweep", "lenet5", "--delta", "0.01", "--delta", "0.01"], "deltas holds a value twice: 0.01, 0.01"),
        (["sweep", "lenet5", "--method", "wt", "--method", "wt"], "methods holds a value twice: wt, wt"),
        (["sweep", "lenet5", "--seed", "0", "--seed", "0"], "seeds holds a value twice"),
        (["sweep", "lenet5", "--task", "noise/uniform/1"], "is compared with nominal"),
        (["sweep", "lenet5", "--set", "search.low=0.9", "--set", "search.high=0.5"], "search.low must be below"),
        (["sweep", "lenet5", "--set", "data.train_images=99999999"], "train_images must be from 1 to"),
        (["sweep", "lenet5", "--set", "methods=[{name='wt', parameters={x=1}}]"], "wt"),
        (["sweep", "lenet5", "--executor", "dask"], "--executor must be one of ray, inline, got dask"),
        (["sweep", "lenet5", "--executor", "inline", "--max-concurrent", "2"], "--executor inline runs one probe at"),
        (["sweep", "lenet5", "--log-checkpoints", "some"], "--log-checkpoints must be one of"),
        (["sweep", "lenet5", "--storage", "gs://bucket"], "gs:// is not known"),
        (["sweep", "lenet5", "--name", "../../x"], "name: at most 100 letters, digits"),
        (["sweep", "lenet5", "--name", "a/b"], "name: at most 100 letters, digits"),
        (["sweep", "lenet5", "--address", "cluster"], "--address must be HOST:PORT"),
        (["sweep", "none.toml"], "none.toml: cannot be read: No such file or directory"),
        (["list", "modles"], "no list is called 'modles': did you mean models"),
        (["report", "nothing"], "no sweep is called 'nothing': there is none at all in "),
        (["report", "../x"], "sweep name '../x'"),
        (["status", "nothing"], "no sweep is called 'nothing'"),
        (["track", "nothing"], "no sweep is called 'nothing'"),
        (["compare", "a"], "compare needs the names of two or more sweeps: prune-cli compare A B"),
        (["compare", "a", "b"], "no sweep is called 'a'"),
        (["ui", "--tracking-uri", "none"], "there is no MLflow to show"),
        (["ui"], "run a sweep first, or name its --storage"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_line_that_helps_and_touches_nothing(
    words: list[str], says: str, prune_cli: Callable, elsewhere: Path
):
    ran = prune_cli(*words)
    assert ran.code == 2
    assert ran.out == ""
    assert says in ran.error_line
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["sweep"],
        ["sweep", "lenet5", "--delta", "0.5%"],
        ["sweep", "lenet5", "--max-probes", "0"],
        ["swep"],
        ["ui", "--port", "0"],
    ],
    ids=" ".join,
)
def test_wrong_use_of_a_command_is_explained_with_exit_code_2(words: list[str], prune_cli: Callable, elsewhere: Path):
    ran = prune_cli(*words)
    assert ran.code == 2
    assert ran.out == ""
    assert "Error" in ran.err
    assert list(elsewhere.iterdir()) == []


def test_clean_with_an_unknown_choice_is_refused(prune_cli: Callable, storage: Path):
    ran = prune_cli("clean", "--keep", "nothing", "--storage", storage)
    assert ran.code == 2
    assert "--keep must be asked or potential, got nothing" in ran.error_line


def test_unknown_name_of_a_run_suggests_one_that_exists(prune_cli: Callable, storage: Path):
    ran = prune_cli("report", "lenet", "--storage", storage)
    assert ran.code == 2
    assert "did you mean lenet5?" in ran.error_line


# -- files


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SWEEP_FILE + 'name = "again"', "not valid TOML: Cannot overwrite a value (at"),
        (SWEEP_FILE + "budget = [1]", "unknown field 'budget': did you mean budgets"),
        (SWEEP_FILE + "[search]\nhihg = 0.9", "unknown field 'search.hihg': did you mean high?"),
        (SWEEP_FILE + "deltas = [0.01, 0.5%]", "not valid TOML"),
        (SWEEP_FILE + "deltas = [5]", "it is a fraction: write 0.005"),
        (SWEEP_FILE + "deltas = []", "deltas must hold at least one value"),
        (SWEEP_FILE + "quick = 3", "quick must be a table"),
        (SWEEP_FILE + "data = 3", "data: "),
        (SWEEP_FILE + 'plugins = ["not_there"]', "the module 'not_there' cannot be imported"),
        (SWEEP_FILE.replace('"mine"', '"../mine"'), "name: at most 100"),
        (SWEEP_FILE.replace('name = "mine"', ""), "name is missing"),
        (SWEEP_FILE.replace('"quick_lenet5"', "3"), "recipe: "),
        ("", "is missing (and"),
    ],
)
def test_wrong_file_is_named_with_what_is_wrong_in_it(
    text: str, says: str, prune_cli: Callable, elsewhere: Path, tmp_path: Path
):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    ran = prune_cli("sweep", file)
    assert ran.code == 2
    assert says in ran.error_line
    assert str(file) in ran.error_line or "plugins" in ran.error_line
    assert list(elsewhere.iterdir()) == []


def test_file_that_is_no_text_or_a_folder_is_refused(prune_cli: Callable, elsewhere: Path, tmp_path: Path):
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "folder.toml").mkdir()
    assert "it is not UTF-8 text" in prune_cli("sweep", tmp_path / "bytes.toml").error_line
    assert "Is a directory" in prune_cli("sweep", tmp_path / "folder.toml").error_line


FIELDS = ["name", "model", "data", "methods", "tasks", "deltas", "seeds", "budgets", "search", "recipe", "resources"]
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["", "wt", "a/b", "quick_lenet5"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["name", "base", "high", "epochs"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(changes=st.dictionaries(st.sampled_from([*FIELDS, "dataset", "limits", "extra"]), values, max_size=3))
def test_any_values_in_a_sweep_make_a_spec_or_one_line(changes: dict):
    good = {"name": "x", "model": "lenet5", "dataset": "strokes", "methods": ["wt"], "budgets": [1]}
    try:
        build_spec({**good, "recipe": "quick_lenet5", **changes}, source="x.toml", recipes=recipes())
    except SpecError as error:
        assert "\n" not in str(error)
        assert str(error).startswith("x.toml: ")


@given(setting=st.text(st.sampled_from("a.=[]{}\"'#1 \n"), max_size=8))
def test_any_text_after_set_makes_a_value_or_one_line(setting: str):
    try:
        with_settings({"a": 1}, [setting])
    except SpecError as error:
        assert "--set" in str(error)


# -- data


def test_data_directory_that_is_missing_or_empty_says_what_is_expected(prune_cli: Callable, elsewhere: Path):
    words = ("sweep", "lenet5", "--dataset", "mnist", "--executor", "inline", "--tracking-uri", "none")
    missing = prune_cli(*words, "--data-dir", "not-here")
    assert missing.code == 2
    assert f"--data-dir: there is no folder {elsewhere / 'not-here'}" in missing.error_line
    unset = prune_cli(*words)
    assert unset.code == 2
    assert "no data folder was given: pass --data-dir DIR" in unset.error_line
    (elsewhere / "empty").mkdir()
    empty = prune_cli(*words, "--data-dir", "empty")
    assert empty.code == 2
    for part in ("looked in", "MNIST/raw/", "train-images-idx3-ubyte", "--download", "--dataset strokes"):
        assert part in empty.error_line
    assert [path.name for path in elsewhere.iterdir()] == ["empty"]


def test_data_directory_that_is_half_there_names_the_file_that_lacks(prune_cli: Callable, elsewhere: Path):
    raw = elsewhere / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    # An idx file: type unsigned bytes, one dimension, no items.
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"):
        (raw / name).write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 0]))
    words = ("sweep", "lenet5", "--dataset", "mnist", "--data-dir", "data", "--executor", "inline")
    ran = prune_cli(*words, "--tracking-uri", "none")
    assert ran.code == 2
    assert "t10k-labels-idx1-ubyte" in ran.error_line
    assert not (elsewhere / "raypruning-store").exists()


# -- places


def test_storage_that_is_a_file_is_refused_and_kept(prune_cli: Callable, tiny: list[str], tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    ran = prune_cli("sweep", "lenet5", *tiny, "--storage", tmp_path / "file")
    assert ran.code == 2
    assert f"storage {tmp_path / 'file'} cannot be written: not a folder" in ran.error_line
    assert (tmp_path / "file").read_text() == "mine"


def test_storage_that_cannot_be_written_is_refused(prune_cli: Callable, tiny: list[str], tmp_path: Path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    # Root may write anywhere but into the kernel's own folders.
    place = Path("/proc/raypruning") if os.geteuid() == 0 else closed / "store"
    ran = prune_cli("sweep", "lenet5", *tiny, "--storage", place)
    assert ran.code == 2
    assert f"storage {place} cannot be written" in ran.error_line


def test_report_that_cannot_be_written_is_refused(prune_cli: Callable, storage: Path, tmp_path: Path):
    ran = prune_cli("report", "lenet5", "--storage", storage, "--html", tmp_path / "none" / "report.html")
    assert ran.code == 2
    assert "cannot be written: No such file or directory" in ran.error_line


def test_gpu_that_is_not_there_is_refused(prune_cli: Callable, tiny: list[str], elsewhere: Path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    ran = prune_cli("sweep", "lenet5", *tiny, "--gpus-per-probe", "1")
    assert ran.code == 2
    assert "torch finds none on this machine; leave --gpus-per-probe out" in ran.error_line
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_cluster_that_does_not_answer_is_refused_at_once(
    scheme: str, prune_cli: Callable, tiny_data: list[str], elsewhere: Path
):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        ran = prune_cli("sweep", "lenet5", *tiny_data, "--address", address)
    assert ran.code == 2
    assert f"--address {address}: no Ray cluster answers there" in ran.error_line
    assert list(elsewhere.iterdir()) == []


@pytest.mark.mlflow
def test_mlflow_that_does_not_answer_costs_a_warning_and_no_result(
    prune_cli: Callable, tiny_data: list[str], storage: Path
):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        words = ("sweep", "lenet5", *tiny_data, *LARGE_DELTA, "--executor", "inline", "--storage", storage)
        ran = prune_cli(*words, "--tracking-uri", uri, "--json")
        assert ran.code == 0, "the potentials decide"
        assert f"MLflow at {uri} lacks" in ran.err
        assert "`prune-cli track` writes it later" in ran.err
        assert {one["status"] for one in ran.answer["potentials"]} == {"at_top"}
        still_down = prune_cli("track", "lenet5", "--storage", storage)
        assert still_down.code == 1
        assert f"MLflow at {uri} lacks" in still_down.err


# -- probes that fail


def test_loss_that_is_no_number_leaves_every_potential_open_and_none_zero(
    prune_cli: Callable, tiny: list[str], tmp_path: Path
):
    words = ("sweep", "lenet5", *tiny, "--storage", tmp_path / "store", "--json")
    ran = prune_cli(*words, "--set", "recipe.learning_rate=1e6", "--seed", "1")
    assert ran.code == 3
    assert "the loss became nan" in ran.err and "lower recipe.learning_rate" in ran.err
    assert len(ran.answer["potentials"]) == 2
    for potential in ran.answer["potentials"]:
        assert potential["status"] == "open"
        unknown = ("ratio", "ratio_first", "next_ratio", "dense_error", "error", "interval", "training")
        assert {potential[field] for field in unknown} == {None}
    assert len(ran.answer["probes"]) == 2, "the parents: nothing is pruned without one"
    for probe in ran.answer["probes"]:
        assert (probe["status"], probe["errors"], probe["ratio_reached"]) == ("failed", {}, None)
        assert probe["failure"]["kind"] == "TrainingError"
    assert ran.answer["excess_errors"] == []
    assert list((tmp_path / "store").glob("trainings/*/training.json")) == []


# -- a method that does not fit the network


@pytest.mark.parametrize(
    ("options", "says"),
    [
        # Of LeNet-5's 21840 parameters 90 are biases: no ratio above 0.9958 can be reached.
        (["--set", "search.high=0.999"], "a ratio of 0.9990 cannot be reached: at most 21750 of 21840 parameters"),
        (["--method", "ft", "--set", "search.high=0.999"], "a ratio of 0.9990 cannot be reached"),
        (["--method", "wt:skip=conv9"], "no prunable layer is called 'conv9': did you mean conv2 or conv1?"),
        (["--method", "wt:granularity=n_m,m=4"], "m=4 does not divide the 1 input channels of layer conv1; take"),
        (["--method", "wt:granularity=n_m,m=4,n=4"], "1 <= n < m, got n=4 and m=4"),
        (["--method", "ft:scope=error_bound"], "scope error_bound needs the sensitivities of score=pfp"),
        (["--method", "pfp:granularity=weight"], "score pfp is one of input channels"),
        (["--method", "ft:rules=paper,scope=erk"], "rules=paper know granularity=weight with scope=global"),
        (["--method", "wt:powr=2"], "no parameter is called 'powr'"),
        (
            ["--set", "methods=['odd-shape']"],
            "odd-shape scored layer conv1 with shape (3,); one score per weight has shape",
        ),
        (["--set", "methods=['odd-nan']"], "odd-nan gave layer conv1 a score that is not finite"),
        (["--set", "methods=['odd-whole']"], "odd-whole gave layer conv1 scores of type int64; they must be floating"),
        (["--set", "methods=['odd-broken']"], "odd-broken failed when it was tried: KeyError: 'no such thing'"),
        (["--method", "wt:skip=conv1+conv1"], "skip names conv1 twice"),
        (["--method", "wt:skip=conv1+conv2+fc1+fc2"], "skip leaves no layer to prune"),
    ],
)
@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["run", "dry-run"])
def test_method_that_does_not_fit_is_refused_before_the_first_training(
    prune_cli: Callable,
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    says: str,
    dry_run: list[str],
):
    (tmp_path / "odd_methods.py").write_text(ODD)
    monkeypatch.syspath_prepend(tmp_path)
    plugins = ("--set", "plugins=['odd_methods']")
    where = ("--storage", tmp_path / "store")
    ran = prune_cli("sweep", "lenet5", *tiny, *LARGE_DELTA, *plugins, *options, *dry_run, *where)
    assert ran.code == 2
    assert says in ran.err and ran.err.count("\n") == 1
    assert not (tmp_path / "store").exists()


ODD = """
import torch
from raypruning import registry
from raypruning.methods.axes import method

@registry.methods.register("odd-shape")
@method(source="this test")
def odd_shape(network):
    return {name: torch.zeros(3) for name in network.layers}

@registry.methods.register("odd-whole")
@method(source="this test")
def odd_whole(network):
    return {name: network.weight(name).long() for name in network.layers}

@registry.methods.register("odd-broken")
@method(source="this test")
def odd_broken(network):
    raise KeyError("no such thing")

@registry.methods.register("odd-nan")
@method(source="this test")
def odd_nan(network):
    return {name: torch.full(network.weight(name).shape, torch.nan) for name in network.layers}
"""


def test_sweep_that_began_is_not_tried_out_again(
    swept, storage: Path, again: Callable, monkeypatch: pytest.MonkeyPatch
):
    """The methods were looked at when it began; to continue imports no torch in the driver."""
    monkeypatch.setattr(sweep, "check_methods", lambda *_: pytest.fail("looked at again"))
    assert again(storage).code == 0


HUNGRY = """
from raypruning import registry
from raypruning.methods import scores
from raypruning.methods.axes import method

calls = []

@registry.methods.register("{name}")
@method(source="this test")
def hungry(network):
    calls.append(1)
    if len(calls) <= {num_failures} + 1:  # the first of all is the look before the first training
        raise MemoryError()
    return scores.magnitude(network)
"""


@pytest.fixture
def hungry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """Options for a sweep by a method that has no memory for its first calls."""

    def write(num_failures: int) -> list[str]:
        name = f"hungry-{num_failures}"
        (tmp_path / f"hungry_{num_failures}.py").write_text(HUNGRY.format(name=name, num_failures=num_failures))
        return ["--set", f"methods=['{name}']", "--set", f"plugins=['hungry_{num_failures}']"]

    monkeypatch.syspath_prepend(tmp_path)
    return write


def test_probe_without_memory_is_tried_again(prune_cli: Callable, tiny: list[str], hungry: Callable, tmp_path: Path):
    words = ("sweep", "lenet5", *tiny, *LARGE_DELTA, "--storage", tmp_path / "store", "--json")
    ran = prune_cli(*words, *hungry(2))
    assert ran.code == 0
    assert sorted(probe["attempts"] for probe in ran.answer["probes"])[-2:] == [1, 3]
    assert all(probe["status"] == "done" for probe in ran.answer["probes"])


def test_probe_that_never_has_memory_is_named_and_measures_nothing(
    prune_cli: Callable, tiny: list[str], hungry: Callable, tmp_path: Path
):
    words = ("sweep", "lenet5", *tiny, *LARGE_DELTA, "--storage", tmp_path / "store", "--json")
    ran = prune_cli(*words, *hungry(3))
    assert "no memory left for lenet5" in ran.err and "raise --gpus-per-probe or lower --max-concurrent" in ran.err
    assert ran.code in (0, 3), "other ratios may close the bracket"
    (failed,) = [probe for probe in ran.answer["probes"] if probe["status"] == "failed"]
    assert (failed["attempts"], failed["errors"], failed["ratio_reached"]) == (3, {}, None)
    assert failed["failure"]["kind"] == "OutOfMemoryError"
    assert ran.answer["potentials"][0]["ratio"] > failed["ratio_asked"], "it is no sign of too much pruning"


# -- a store that was damaged


def parent_of(storage: Path) -> Path:
    spec = [path for path in storage.glob("trainings/*/training.json") if '"start": null' in path.read_text()]
    assert len(spec) == 1
    return spec[0].parent


def flip(file: Path) -> None:
    """Change the last byte of a file, and neither its size nor its name."""
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_corrupt_checkpoint_is_made_again_when_it_is_needed(swept, storage: Path, again: Callable):
    flip(parent_of(storage) / "weights.safetensors")
    ran = again(storage, "--search", "grid", "--set", "search.ratios=[0.3, 0.98]")
    assert ran.code == 0
    assert (storage / "damaged").is_dir()
    assert again(storage).answer["potentials"] == swept[0]["potentials"]


def test_corrupt_predictions_are_one_line_and_measured_again(
    swept, prune_cli: Callable, storage: Path, again: Callable
):
    (predictions,) = parent_of(storage).glob("evaluations/*.safetensors")
    flip(predictions)
    shown = prune_cli("report", "lenet5", "--storage", storage)
    assert shown.code == 1
    assert "does not match its checksum" in shown.error_line
    ran = again(storage)
    assert ran.code == 0
    assert ran.answer["cost"]["num_trained"] == 0
    assert ran.answer["potentials"] == swept[0]["potentials"]


@pytest.mark.parametrize("content", [b"{", b"{}", b"[]", b"3", b"\xff", b'{"tasks": [{}], "data_fingerprint": ""}'])
def test_corrupt_record_is_one_line_and_the_same_command_mends_it(
    content: bytes, swept, prune_cli: Callable, storage: Path, again: Callable
):
    record = storage / "sweeps" / "lenet5" / "run.json"
    record.write_bytes(content)
    for words in (["report", "lenet5"], ["status", "lenet5"], ["clean"], ["compare", "lenet5", "x"]):
        ran = prune_cli(*words, "--storage", storage)
        assert ran.code == 1, words
        assert f"the record of the sweep lenet5 in {storage} is damaged" in ran.error_line
    assert record.read_bytes() == content
    mended = again(storage)
    assert mended.code == 0
    assert mended.answer["cost"]["num_trained"] == 0
    assert mended.answer["potentials"] == swept[0]["potentials"]


# -- a full disk


class SmallDisk:
    """A disk of 300 kB: the parent of the tiny sweep fits, all its networks do not."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder]
        self.is_real = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
        self._patch = patch
        if not self.is_real:
            replace = os.replace

            def no_room(source: Path, target: Path) -> None:
                used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                if used > 300_000:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                replace(source, target)

            patch.setattr(os, "replace", no_room)

    def grow(self) -> None:
        if self.is_real:
            subprocess.run(["mount", "-o", "remount,size=30m", self.folder], check=True)
        else:
            self._patch.undo()

    def close(self) -> None:
        if self.is_real:
            subprocess.run(["umount", self.folder], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with pytest.MonkeyPatch.context() as patch:
        disk = SmallDisk(tmp_path / "disk", patch)
        yield disk
        disk.close()


def test_full_disk_stops_the_sweep_and_the_same_command_continues_when_there_is_room(
    swept, small_disk: SmallDisk, again: Callable
):
    storage = small_disk.folder / "store"
    full = again(storage)
    assert full.code == 1
    assert full.out == ""
    assert "No space left on device; free some space" in full.error_line
    assert "then the same command continues" in full.error_line
    kept = {path: path.stat().st_mtime_ns for path in storage.glob("trainings/*/training.json")}
    assert kept
    small_disk.grow()
    ran = again(storage)
    assert ran.code == 0
    assert ran.answer["potentials"] == swept[0]["potentials"]
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in storage.glob("trainings/*/training.json")}.items()


# -- several processes, and a person who stops one


def sweep_process(tiny: list[str], storage: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cli", "sweep", "lenet5", *tiny, *LARGE_DELTA, "--storage", str(storage), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, cwd=storage.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_on_one_sweep_both_finish_with_the_same_answer(swept, tiny: list[str], tmp_path: Path):
    both = [sweep_process(tiny, tmp_path / "store") for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    for out, err in said:
        assert "Traceback" not in err
        assert json.loads(out)["potentials"] == swept[0]["potentials"]
    assert list((tmp_path / "store" / "leases").rglob("*.json")) == [], "given back"


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_sweep_that_is_stopped_while_its_flags_are_read_says_how_to_go_on(
    prune_cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: signal.Signals, code: int
):
    (tmp_path / f"stops_{code}.py").write_text(f"import os\nos.kill(os.getpid(), {signum.value})\n")
    monkeypatch.syspath_prepend(tmp_path)
    ran = prune_cli("sweep", "lenet5", "--set", f"plugins=['stops_{code}']", "--storage", tmp_path / "store")
    assert ran.code == code
    assert ran.err.splitlines()[-1] == (
        f"prune-cli: stopped by {signum.name}; what is finished is kept: the same command continues"
    )
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_sweep_that_is_stopped_says_how_to_go_on_and_goes_on(
    signum: signal.Signals, code: int, swept, tiny: list[str], tmp_path: Path, again: Callable
):
    with sweep_process(tiny, tmp_path / "store") as process:
        assert process.stderr is not None
        # The plan is announced before the first network is trained, whose import of torch takes seconds.
        while "lenet5 on strokes" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signum)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    (line,) = [line for line in err.splitlines() if line.startswith("prune-cli: ")]
    assert f"stopped by {signum.name}; what is finished is kept: the same command continues" in line
    assert "Traceback" not in err
    assert again(tmp_path / "store").answer["potentials"] == swept[0]["potentials"]
