"""What pruning itself takes, beside the peers, in one run with one thread.

    pip install "raypruning[benchmarks]"
    python benchmarks/pruning.py

masks       global magnitude masks of ResNet-101 at 50 and 90 %, chosen and applied, beside torch.nn.utils.prune
scores      SiPP and PFP per image, beside the original's way (a loop over images and filters) and its published cost
compaction  l1 filter masks of ResNet-101 at half of all channels and the smaller network, beside Torch-Pruning's
            set-up and step
retraining  a training step under masks, beside one without

Ours and the peer take turns, so that a noisy machine disturbs both alike; each row prints the median of the ratios,
their spread and how many there are. Times are seconds of the process's CPU. Before each, what the one before left in
reference cycles is collected, outside of the clock: Torch-Pruning leaves whole networks there, for others to pay.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from raypruning.compaction.compact import compact
from raypruning.core.records import MethodChoice
from raypruning.methods import layer_inputs
from raypruning.methods.method import Masks, Network, Samples
from raypruning.methods.prune import apply_masks, make_masks, resolve_method
from raypruning.models.layers import prunable_layers
from raypruning.models.resolve import build_model

# CPU seconds per image of the original code on one thread, with the studies' fixtures: its reference measurement.
PUBLISHED = {
    ("sipp", "resnet20"): 0.10,
    ("pfp", "resnet20"): 0.17,
    ("sipp", "wrn16_8"): 2.22,
    ("pfp", "wrn16_8"): 3.53,
}


class Row(NamedTuple):
    """One comparison: how many times as long the peer takes, run by run."""

    what: str
    peer: str
    wanted: str
    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    def line(self) -> str:
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        ratios = self.ratios
        return (
            f"{self.what:<34} {ours:>9.4f} {theirs:>9.4f} {statistics.median(ratios):>8.2f}  "
            f"({min(ratios):.2f} to {max(ratios):.2f}, n={len(ratios)})  {self.wanted:<14} {self.peer}"
        )


HEADER = f"{'':<34} {'ours, s':>9} {'peer, s':>9} {'peer/ours':>9}"


def seconds_of(work: Callable[[], object]) -> float:
    gc.collect()
    begin = time.process_time()
    work()
    return time.process_time() - begin


def in_turns(ours: Callable[[], object], theirs: Callable[[], object], *, runs: int) -> tuple[list[float], list[float]]:
    """CPU seconds of both, alternating, after one run of each that is not counted."""
    ours(), theirs()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        times[0].append(seconds_of(ours))
        times[1].append(seconds_of(theirs))
    return times


def network(name: str, image_size: int, *, num_classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, num_classes=num_classes, in_channels=3, image_size=image_size, options={}).eval()


def masks_rows(runs: int) -> list[Row]:
    model = network("resnet101", 224, num_classes=1000)
    method = resolve_method(MethodChoice(name="wt"))
    example = torch.zeros(1, 3, 224, 224)

    def ours(fresh: nn.Module, ratio: float) -> None:
        apply_masks(fresh, make_masks(method, fresh, ratio, example_NCHW=example, seed=0))

    def theirs(fresh: nn.Module, ratio: float) -> None:
        weights = [(layer, "weight") for layer in prunable_layers(fresh).values()]
        torch_prune.global_unstructured(weights, pruning_method=torch_prune.L1Unstructured, amount=ratio)

    def seconds(work: Callable[[nn.Module, float], None], ratio: float) -> float:
        fresh = copy.deepcopy(model)  # Outside what is measured: torch's pruning leaves its own parts in a network.
        return seconds_of(lambda: work(fresh, ratio))

    rows = []
    for ratio in (0.5, 0.9):
        times = [(seconds(ours, ratio), seconds(theirs, ratio)) for _ in range(runs + 1)][1:]
        mine, peer = (list(column) for column in zip(*times, strict=True))
        rows.append(Row(f"masks, ResNet-101, {ratio:.0%}", "torch.nn.utils.prune", "at least 15", mine, peer))
    return rows


def scores_rows(runs: int, *, num_images: int) -> list[Row]:
    rows = []
    for name in ("resnet20", "wrn16_8"):
        model = network(name, 32)
        # As many as a sweep takes would only repeat this: both ways grow with the number of images.
        generator = torch.Generator().manual_seed(0)
        samples = Samples(torch.randn(num_images, 3, 32, 32, generator=generator), torch.zeros(num_images).long())
        for method_name in ("sipp", "pfp"):
            method = resolve_method(MethodChoice(name=method_name))
            given = Network(
                model=model,
                layers=prunable_layers(model),
                example_NCHW=samples.images_NCHW[:1],
                generator=torch.Generator(),
                granularity=method.granularity,
                samples=samples,
            )
            one = Samples(samples.images_NCHW[:1], samples.labels_N[:1])

            def ours(method=method, given=given) -> None:
                method.score(given)

            def theirs(model=model, one=one, method_name=method_name) -> None:
                one_by_one(model, one.images_NCHW, takes_maximum=method_name == "pfp")

            mine, peer = in_turns(ours, theirs, runs=runs)
            mine = [seconds / num_images for seconds in mine]
            wanted = "at least 8" if method_name == "sipp" else "at least 4"
            what = f"scores per image, {method_name}, {name}"
            rows.append(Row(what, "a loop over filters, as the original has it", "", mine, peer))
            published = [PUBLISHED[method_name, name]] * runs
            rows.append(Row("", "the original's published cost", wanted, mine, published))
    return rows


@torch.no_grad()
def one_by_one(model: nn.Module, images_NCHW: Tensor, *, takes_maximum: bool) -> None:
    """Sensitivities by the definition as the original computes them: an image and a filter at a time, element-wise."""

    def hook_for(layer: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            patches_KP = layer_inputs.unfold(layer, inputs[0])[0]
            for part_OK in (layer.weight.flatten(1).clamp(min=0.0), layer.weight.flatten(1).clamp(max=0.0)):
                for inputs_KP in (patches_KP.clamp(min=0.0), (-patches_KP).clamp(min=0.0)):
                    if not bool(inputs_KP.any()):
                        continue
                    for filter_K in part_OK:
                        products_KP = filter_K[:, None] * inputs_KP
                        shares_KP = (products_KP / products_KP.sum(0)).nan_to_num_(0.0)
                        shares_KP.amax(1) if takes_maximum else shares_KP.mean(1)

        return hook

    hooks = [layer.register_forward_pre_hook(hook_for(layer)) for layer in prunable_layers(model).values()]
    for image_CHW in images_NCHW:
        model(image_CHW[None])
    for hook in hooks:
        hook.remove()


def compaction_row(runs: int) -> Row:
    import torch_pruning

    model = network("resnet101", 224, num_classes=1000)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    masks = half_of_all_channels(model)

    def ours() -> None:
        compact(model, half_of_all_channels(model), images)

    def theirs() -> None:
        fresh = copy.deepcopy(model)
        pruner = torch_pruning.pruner.BasePruner(
            fresh,
            images[:1],
            importance=torch_pruning.importance.MagnitudeImportance(p=1),
            pruning_ratio=0.5,
            ignored_layers=[fresh.fc],
        )
        pruner.step()

    small = compact(model, masks, images).model
    before, after = (sum(value.numel() for value in one.parameters()) for one in (model, small))
    print(f"ResNet-101 with half of its channels: {before / 1e6:.2f} -> {after / 1e6:.2f} M parameters")
    return Row("scores and compaction, ResNet-101", "Torch-Pruning", "at least 1", *in_turns(ours, theirs, runs=runs))


def half_of_all_channels(model: nn.Module) -> Masks:
    """The filters of lowest l1 norm; where skip connections join layers, of lowest norm of them together."""
    layers = dict(model.named_modules())
    groups: dict[str, list[str]] = {}
    for name in list(prunable_layers(model))[:-1]:
        is_joined = name.endswith("conv3") or "downsample" in name
        groups.setdefault(name.split(".")[0] if is_joined else name, []).append(name)
    masks: Masks = {}
    for names in groups.values():
        norms_O = torch.stack([layers[name].weight.detach().abs().flatten(1).sum(1) for name in names]).sum(0)
        keep_O = torch.ones(len(norms_O), dtype=torch.bool)
        keep_O[norms_O.argsort()[: len(norms_O) // 2]] = False
        for name in names:
            masks[f"{name}.weight"] = keep_O.view(-1, 1, 1, 1).expand(layers[name].weight.shape)
            norm = f"{name.rpartition('.')[0]}.1" if "downsample" in name else name.replace("conv", "bn")
            masks[f"{norm}.weight"] = masks[f"{norm}.bias"] = keep_O
    return masks


def retraining_rows(runs: int) -> list[Row]:
    rows = []
    for name, channels, px in (("lenet5", 1, 28), ("resnet20", 3, 32)):
        torch.manual_seed(0)
        model = build_model(name, num_classes=10, in_channels=channels, image_size=px, options={})
        model = model.to(memory_format=torch.channels_last)
        masks = make_masks(
            resolve_method(MethodChoice(name="wt")), model, 0.8, example_NCHW=torch.zeros(1, channels, px, px), seed=0
        )
        images, labels = torch.randn(128, channels, px, px), torch.arange(128) % 10
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

        def step(held: Mapping[str, Tensor], model=model, images=images, labels=labels, optimiser=optimiser) -> None:
            for _ in range(20):
                loss = nn.functional.cross_entropy(model(images), labels)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                apply_masks(model, held)

        masked, plain = in_turns(lambda step=step, masks=masks: step(masks), lambda step=step: step({}), runs=runs)
        rows.append(Row(f"20 retraining steps, {name}", "the same steps without masks", "at least 0.97", masked, plain))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--images", type=int, default=16, help="for the scores")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        *masks_rows(arguments.runs),
        *scores_rows(arguments.runs, num_images=arguments.images),
        compaction_row(arguments.runs),
        *retraining_rows(arguments.runs),
    ]
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, one thread, torch {torch.__version__}\n{HEADER}")
    for row in rows:
        print(row.line())
    if arguments.json:
        found = [{**row._asdict(), "ratios": row.ratios} for row in rows]
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
