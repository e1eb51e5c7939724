"""What evaluating a network on many tasks takes, beside a plain DataLoader loop, in one run with one thread.

    python benchmarks/evaluation.py --data-dir ../shared/data --runs 5

LeNet-5 on MNIST's 10 000 test images: nominal, all corruptions at severity 3, and the paper's fourteen levels of noise,
34 tasks. Ours reads each task as a probe does (corrupted sets from disk, noise drawn anew, predictions kept for every
image). The peer is the loop most code has: a Dataset of the same corrupted arrays that makes each image a float tensor
and normalises it, a DataLoader of 128 images, the number of wrong answers kept. Both in float32; they must agree on it.
Noise is left out for the peer, which has no such data at hand.

Times are seconds of the process's CPU; the ratio is peer / ours for an image, median and spread over runs in turns.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from raypruning.analysis.metrics import metric_of
from raypruning.core.records import DataChoice, Task
from raypruning.datasets.resolve import open_dataset
from raypruning.models.resolve import build_model
from raypruning.tasks import task_store
from raypruning.tasks.task import TaskDefinition, describe_task, expand_tasks, resolve_task
from raypruning.training.classification import Classification
from raypruning.training.images import open_changed, open_images
from raypruning.training.inputs import Normalisation, Source, TaskInputs, batch_size_for

CPU = torch.device("cpu")
PATTERNS = ("nominal", "corruption/*/3", "noise/uniform/*")
PEER_BATCH = 128


class Plain(Dataset[tuple[Tensor, int]]):
    """Images one by one, as most code reads them."""

    def __init__(self, images: Tensor, labels: Tensor, normalise: Normalisation) -> None:
        self._images, self._labels, self._normalise = images, labels, normalise

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self._images[index].float() / 255.0
        return (pixels - self._normalise.mean_C11) / self._normalise.std_C11, int(self._labels[index])


def plain_num_wrong(model: nn.Module, images: Tensor, labels: Tensor, normalise: Normalisation) -> int:
    model.eval()
    wrong = 0
    with torch.no_grad():
        for inputs, targets in DataLoader(Plain(images, labels, normalise), batch_size=PEER_BATCH):
            wrong += int((model(inputs).argmax(1) != targets).sum())
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dataset = open_dataset(DataChoice(name="mnist"), data_dir=options.data_dir, download=False)
    split = dataset.split("test")
    num = len(split)
    metric = metric_of("classification")
    plain = build_model("lenet5", num_classes=10, in_channels=1, image_size=28, options={})
    model = copy.deepcopy(plain).to(memory_format=torch.channels_last)  # As a probe builds it.
    normalise = Normalisation.of(dataset, CPU)

    def stored(task: Task) -> Tensor:
        change = resolve_task(task.name).on_bytes
        assert change is not None
        return torch.from_numpy(
            task_store.open_set(dataset, task=task.name, fingerprint=task.fingerprint, change=change, device=CPU).copy()
        )

    tasks = [describe_task(name, dataset) for name in expand_tasks(PATTERNS, dataset="mnist")]
    corrupted = [task for task in tasks if task.name.startswith("corruption/")]
    sets = {task.name: stored(task) for task in corrupted}
    nominal = open_images(split, CPU)
    labels = torch.from_numpy(split.labels_N)

    def source(task: Task, definition: TaskDefinition) -> Source:
        if task.name not in sets:
            return Source(nominal)
        return Source(open_changed(split.labels_N, sets[task.name].numpy(), CPU), is_changed=True)

    inputs = TaskInputs(source, normalise, max_bytes=0)  # As if no task had been seen before.

    def ours(chosen: list[Task]) -> list[int]:
        batch_size = batch_size_for(dataset, CPU)
        found = []
        for task in chosen:
            batches = inputs.batches(task, resolve_task(task.name), batch_size=batch_size)
            found.append(metric.num_wrong(Classification().predict(model, batches, precision="float32")))
        return found

    every, own, theirs, ratios = [], [], [], []
    for _ in range(options.runs):
        begin = time.process_time()
        ours(tasks)
        every.append(time.process_time() - begin)
        begin = time.process_time()
        wrong = ours(corrupted)
        own.append((time.process_time() - begin) / (num * len(corrupted)))
        begin = time.process_time()
        one = plain_num_wrong(plain, sets[corrupted[0].name], labels, normalise)
        theirs.append((time.process_time() - begin) / num)
        assert one == wrong[0], "both must count the same errors"
        ratios.append(theirs[-1] / own[-1])
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread, {options.runs} runs")
    print(
        f"a probe on all {len(tasks)} tasks  {statistics.median(every):.1f} s  ({min(every):.1f} to {max(every):.1f})"
    )
    print(f"images per second       ours {1 / statistics.median(own):.0f}, peer {1 / statistics.median(theirs):.0f}")
    print(f"ratio                   {statistics.median(ratios):.1f}  ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
