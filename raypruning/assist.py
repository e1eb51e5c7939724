"""What all workers of a probe but the first do: as rank 0 says, until it says no more. Knows no Ray."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from raypruning import registry
from raypruning.bench import Bench, check_memory, fresh_network, out_of_memory_as_ours, predictions_of, setting_of
from raypruning.core.ports import ProbeJob
from raypruning.core.records import Task, Training
from raypruning.methods.method import Masks
from raypruning.models.layers import prunable_layers
from raypruning.models.weights import load_weights
from raypruning.training.data_parallel import Group
from raypruning.training.gradual import Growth
from raypruning.training.loop import train


def assist(job: ProbeJob, bench: Bench, group: Group) -> None:
    """Take part in `run_probe` of rank 0. Neither reads the store nor writes it.

    Raises: errors of ours; RuntimeError when rank 0 is gone.
    """
    registry.import_plugins(job.plugins)
    torch.set_num_threads(job.probe.training.recipe.numerics.threads)
    dataset = bench.dataset(job)
    model: nn.Module | None = None
    with out_of_memory_as_ours(job):
        while (asked := group.tell())["do"] != "end":
            if asked["do"] == "evaluate":
                assert model is not None, "there is always a network before there is something to measure"
                group.collect(predictions_of(model, Task.model_validate(asked["task"]), job, bench, dataset, group))
                continue
            training = Training.model_validate(asked["training"])
            model = fresh_network(training, dataset, bench.device)
            if asked["do"] == "load":
                arrays = group.tell_arrays()
                load_weights(model, {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
            else:
                _train(model, training, job, bench, group)


def _train(model: nn.Module, training: Training, job: ProbeJob, bench: Bench, group: Group) -> None:
    """In step with rank 0, which has weights and masks, and chooses those that grow."""

    def keep(model: nn.Module, ratio: float) -> Masks | None:
        return None

    growth = Growth(training.gradual, training.mask.ratio, keep) if training.gradual and training.mask else None
    penalised = frozenset(f"{name}.weight" for name in prunable_layers(model))
    setting = setting_of(training, job, bench, bench.dataset(job), group, growth=growth, penalised=penalised)
    check_memory(model, setting, bench.dataset(job))
    train(model, {}, setting)
