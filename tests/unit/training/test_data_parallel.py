"""Workers that share every batch: together they do what one process does, within rounding.

Networks compute in float64, where what a training makes of rounding stays far below the least that can go wrong.
"""

# N images, C channels or classes, H W height and width

from __future__ import annotations

import copy
import multiprocessing
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from raypruning.core.records import Gradual, Numerics, Recipe
from raypruning.datasets.base import ImageArrays
from raypruning.training.augmentation import Part, augment
from raypruning.training.data_parallel import ALONE, LOOPBACK, Group, Meeting, Share, joined, with_sync_batch_norm
from raypruning.training.gradual import Growth
from raypruning.training.images import ResidentImages
from raypruning.training.inputs import Normalisation
from raypruning.training.loop import ResumeState, Setting, train
from raypruning.training.objective import objective_of
from raypruning.training.streaming import StreamedImages

CPU = torch.device("cpu")
SIDE, CLASSES = 8, 4
State = dict[str, np.ndarray]


def arrays(num: int, *, seed: int) -> ImageArrays:
    """Noise, with a bright square whose place is the class."""
    random = np.random.default_rng(seed)
    labels_N = random.integers(0, CLASSES, num)
    images_NCHW = random.integers(0, 160, (num, 3, SIDE, SIDE), dtype=np.uint8)
    for image_CHW, label in zip(images_NCHW, labels_N, strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image_CHW[:, row : row + 4, column : column + 4] += 60
    return ImageArrays(images_NCHW=images_NCHW, labels_N=labels_N)


def network(*, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Without batch norm or dropout: those are what workers do in another way than one process."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(4 * 16, CLASSES))
    return model.to(memory_format=torch.channels_last, dtype=dtype)


def half_masks(model: nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    parameters = dict(model.named_parameters())
    return {
        name: torch.rand(parameters[name].shape, generator=generator) < 0.5
        for name in ("0.weight", "3.weight", "6.weight")
    }


def smallest(model: nn.Module, ratio: float) -> dict[str, torch.Tensor]:
    weight = model.get_parameter("6.weight")
    threshold = weight.abs().flatten().sort().values[int(ratio * weight.numel())]
    return {"6.weight": weight.abs() >= threshold}


RECIPE = Recipe(epochs=3, learning_rate=0.05, batch_size=16, augmentation="crop_flip")
# What a setting has in common; the rest is made anew in each process.
CASES: dict[str, dict] = {
    "sgd": {},
    "adam, masks": {"recipe": {"optimiser": "adam", "learning_rate": 3e-3, "weight_decay": 1e-3}, "is_masked": True},
    "penalties": {"recipe": {"l1_penalty": 1e-3, "l2_penalty": 1e-2, "label_smoothing": 0.1}},
    "corrupted images": {"recipe": {"train_corruptions": ("gaussian_noise", "contrast")}},
    "parts of batches": {"images_at_once": 3},
    "best epoch": {"recipe": {"keep": "best", "learning_rate": 0.2}},
    "growing masks": {"grows": True},
    # 16 + 16 + 16 + 3: the last batch is too small for three workers.
    "a small last batch": {"num": 51},
    "one image left over": {"num": 49},
}


def setting(case: Mapping, **fields) -> Setting:
    recipe = RECIPE.model_copy(update=case.get("recipe", {}))
    dtype = case.get("dtype", torch.float64)
    growth = Growth(Gradual(begin=0.0, end=0.7, frequency=2), 0.6, smallest) if case.get("grows") else None
    return Setting(
        **{
            "objective": objective_of("classification"),
            "recipe": recipe,
            "epochs": recipe.epochs,
            "seed": 3,
            "is_retraining": False,
            "train": ResidentImages(arrays(case.get("num", 60), seed=0), CPU),
            "validation": ResidentImages(arrays(24, seed=1), CPU),
            "normalise": Normalisation(*(torch.full((3, 1, 1), value, dtype=dtype) for value in (0.4, 0.25))),
            "augmentation": "crop_flip",
            "eval_batch_size": 10,
            "device": CPU,
            "growth": growth,
            "images_at_once": case.get("images_at_once"),
            "penalised": frozenset(["0.weight", "6.weight"]),
            **fields,
        }
    )


def trained(case: Mapping, **fields) -> State:
    """Weights, masks and history of one process."""
    torch.set_num_threads(1)
    model = network()
    masks = half_masks(model) if case.get("is_masked") else {}
    done = train(model, masks, setting(case, **fields))
    return left(model, done.history, done.masks)


def left(model: nn.Module, history, masks) -> State:
    state = {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}
    state |= {f"mask/{name}": mask.numpy() for name, mask in masks.items()}
    state["losses"] = np.array([[one.train_loss, one.validation_loss, one.validation_error] for one in history])
    return state


def of_workers(work: Callable, size: int, folder: Path, *given) -> list:
    """What `work(group, *given)` returns on each of some processes that meet."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    meeting = Meeting(str(folder / "meeting"), is_local=True)
    pipes, processes = [], []
    for rank in range(size):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_worker, args=(there, meeting, Share(rank, size), work, given))
        process.start()
        there.close()
        pipes.append(here)
        processes.append(process)
    found = []
    try:
        for pipe in pipes:
            assert pipe.poll(60), "a worker says nothing"
            found.append(pipe.recv())
    finally:
        for process in processes:
            process.kill()
            process.join()
    for one in found:
        if isinstance(one, Exception):
            raise one
    return found


def _worker(pipe, meeting: Meeting, share: Share, work: Callable, given: tuple) -> None:
    torch.set_num_threads(1)
    try:
        with joined(meeting, share, device=CPU, sync_batch_norm=True) as group:
            pipe.send(work(group, *given))
    except Exception as error:
        pipe.send(error)


def _train_together(group: Group, case: Mapping, resume: ResumeState | None = None) -> tuple[State, list[ResumeState]]:
    """Only rank 0 knows weights and masks; what the others begin with is wrong on purpose."""
    model = network(seed=0 if group.is_first else 77, dtype=case.get("dtype", torch.float64))
    masks = half_masks(model) if case.get("is_masked") and group.is_first else {}
    saved: list[ResumeState] = []

    given = setting(case, group=group)
    if not group.is_first and case.get("grows"):
        given = setting(case, group=group, growth=Growth(given.growth.gradual, 0.6, lambda model, ratio: None))
    if group.is_first:
        # What is given to be saved moves on with the network.
        given = setting(case, group=group, save=lambda state: saved.append(copy.deepcopy(state)), save_seconds=0.0)
    done = train(model, masks, given, resume=resume if group.is_first else None)
    return left(model, done.history, done.masks), saved


def assert_within_rounding(found: State, expected: State) -> None:
    """Sums in another order, in float64.

    Measured: 14 units of 2^-53 of the largest value at most, in 12 steps and more. The least fault seen, fractions of
    a batch that are rounded to float32, leaves 10^-9 to 6 x 10^-8. Between them 10^-11: rounding may grow five thousand
    times as far as measured.

    Losses are added up in float32: 16 parts of a batch and 4 batches, each sum rounded by 2^-24, on both sides.
    """
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value.dtype == bool:
            assert np.array_equal(found[name], value), name
            continue
        tolerance = 2 * 20 * 2**-24 if name == "losses" else 1e-11
        assert np.abs(found[name] - value).max() <= tolerance * np.abs(value).max(), name


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_workers_train_what_one_process_trains_within_rounding(case: dict, size: int, tmp_path: Path):
    expected = trained(case)
    found = [state for state, _ in of_workers(_train_together, size, tmp_path, case)]
    assert_within_rounding(found[0], expected)
    for other in found[1:]:
        assert all(np.array_equal(other[name], value) for name, value in found[0].items())


def test_what_two_workers_saved_three_and_one_continue(tmp_path: Path):
    case = CASES["adam, masks"]
    expected = trained(case)
    (_, saved), _ = of_workers(_train_together, 2, tmp_path, case)
    (tmp_path / "three").mkdir()
    assert [len(state.values["history"]) for state in saved] == [1, 2]
    three = of_workers(_train_together, 3, tmp_path / "three", case, saved[0])[0][0]
    assert_within_rounding(three, expected)
    model = network(seed=5)
    done = train(model, half_masks(network()), setting(case), resume=saved[1])
    assert_within_rounding(left(model, done.history, done.masks), expected)


def test_batches_in_parts_have_the_gradient_of_the_whole():
    expected = trained({})
    for images_at_once in (1, 5, 16, 100):
        assert_within_rounding(trained({"images_at_once": images_at_once}), expected)


def _say(group: Group) -> list:
    message = {"rank": group.share.rank, "text": "é", "none": None}
    heard = group.tell(message if group.is_first else None)
    mine = {"rank": np.array(group.share.rank), "bits": np.array([True, False]), "half": np.ones((0, 2), np.float16)}
    told = group.tell_arrays(mine if group.is_first else None)
    collected = group.collect(mine)
    total = group.sum(torch.tensor([float(group.share.rank), 1.0]))
    return [heard, {key: (value.shape, value.dtype.str) for key, value in told.items()}, collected, total.tolist()]


def test_workers_hear_what_rank_0_says_and_rank_0_collects_what_they_have(tmp_path: Path):
    said = of_workers(_say, 3, tmp_path)
    for heard, told, _, total in said:
        assert heard == {"rank": 0, "text": "é", "none": None}
        assert told == {"rank": ((), "<i8"), "bits": ((2,), "|b1"), "half": ((0, 2), "<f2")}
        assert total == [3.0, 3.0]
    assert [int(one["rank"]) for one in said[0][2]] == [0, 1, 2]
    assert said[1][2] == said[2][2] == []


def _batch_norm(group: Group) -> State:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, CLASSES)).double()
    done = train(model, {}, setting({}, group=group))
    return left(model, done.history, done.masks)


def test_running_statistics_are_those_of_rank_0_everywhere(tmp_path: Path):
    first, second = of_workers(_batch_norm, 2, tmp_path)
    assert all(np.array_equal(second[name], value) for name, value in first.items())
    assert int(first["1.num_batches_tracked"]) == 12


def test_synchronised_batch_norm_is_of_other_modules_over_the_same_tensors():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4)))
    synchronised = with_sync_batch_norm(model)
    assert [type(module) for module in synchronised.modules()].count(nn.SyncBatchNorm) == 2
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    for one, other in (
        (model.named_parameters(), synchronised.named_parameters()),
        (model.named_buffers(), synchronised.named_buffers()),
    ):
        assert {name: id(tensor) for name, tensor in one} == {name: id(tensor) for name, tensor in other}


@given(num=st.integers(1, 70), size=st.integers(1, 9))
def test_shares_of_a_batch_are_disjoint_whole_and_even_and_nobody_has_a_single_image(num: int, size: int):
    shares = [Share(rank, size).of(num) for rank in range(size)]
    assert [image for share in shares for image in share] == list(range(num))
    busy = [len(share) for share in shares if share]
    assert max(busy) - min(busy) <= 1
    assert min(busy) >= 2 or num == 1 or num == 3 == sum(busy)
    assert all(len(Share(rank, size).to_read(num)) >= min(2, num) for rank in range(size))


@given(num=st.integers(0, 200), size=st.integers(1, 9), batch_size=st.integers(1, 40))
def test_shares_of_an_evaluation_are_the_batches_that_one_process_makes(num: int, size: int, batch_size: int):
    shares = [Share(rank, size).of_batches(num, batch_size=batch_size) for rank in range(size)]
    assert [image for share in shares for image in share] == list(range(num))
    assert all(share.start % batch_size == 0 for share in shares if share)


@pytest.mark.parametrize("augmentation", ["none", "crop_flip", "resized_crop_flip"])
def test_a_part_of_a_batch_is_augmented_as_in_the_whole(augmentation: str):
    images = torch.from_numpy(arrays(11, seed=2).images_NCHW)
    whole = augment(images, augmentation=augmentation, generator=torch.Generator().manual_seed(5))
    for span in (range(4), range(4, 11)):
        generator = torch.Generator().manual_seed(5)
        part = augment(
            images[span.start : span.stop], augmentation=augmentation, generator=generator, part=Part(span, 11)
        )
        assert torch.equal(part, whole[span.start : span.stop])


@pytest.mark.parametrize("kind", [ResidentImages, StreamedImages])
@pytest.mark.parametrize("corruptions", [(), ("gaussian_noise", "brightness")], ids=["clean", "corrupted"])
def test_what_workers_read_is_what_one_reads(kind, corruptions: tuple[str, ...]):
    images = kind(arrays(23, seed=4), CPU)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(1))
    how = {"batch_size": 8, "augmentation": "crop_flip", "seed": 6, "corruptions": corruptions}
    whole = list(images.read(order, **how))
    for rank in range(3):
        share = Share(rank, 3)
        mine = list(images.read(order, **how, share=share))
        for batch, one in zip(whole, mine, strict=True):
            span = share.to_read(len(batch.ids_B))
            for all_of_it, part in zip(batch, one, strict=True):
                assert torch.equal(all_of_it[span.start : span.stop], part)


def test_precision_is_the_recipes_on_every_worker(tmp_path: Path):
    case = {"recipe": {"numerics": Numerics(precision="bfloat16")}, "dtype": torch.float32}
    first, second = (state for state, _ in of_workers(_train_together, 2, tmp_path, case))
    assert all(np.array_equal(second[name], value) for name, value in first.items())


def _listening(group: Group) -> set[str]:
    group.tell({})
    found = psutil.Process().net_connections(kind="inet")
    return {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}


def test_workers_of_one_machine_listen_on_loopback_alone(tmp_path: Path):
    assert of_workers(_listening, 2, tmp_path) == [{LOOPBACK}] * 2


def test_the_store_that_workers_of_several_machines_meet_at_listens_where_it_is_told():
    before = _listening(ALONE)
    with socket.create_server((LOOPBACK, 0)) as listener:
        meeting = Meeting(f"{LOOPBACK}:{listener.getsockname()[1]}", is_local=True)
        with joined(meeting, Share(0, 1), device=CPU, sync_batch_norm=False, listener=listener) as group:
            assert _listening(group) - before <= {LOOPBACK}
            assert LOOPBACK in _listening(group)
