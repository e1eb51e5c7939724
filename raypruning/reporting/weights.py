"""What `prune-cli weights` says: a sentence, tables for a terminal, one JSON object, figures and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from raypruning.analysis.weights import (
    CurveWeights,
    LayerWeights,
    NetworkWeights,
    SweepWeights,
    by_population,
    mean_ratios,
    shown_layers,
)
from raypruning.core.populations import PopulationNumber
from raypruning.core.records import Probe
from raypruning.reporting import wording
from raypruning.reporting.drawing import Panel, series_colours

JSON = dict[str, object]
_MAX_RATIOS = 6  # columns of the terminal's table
_MAX_NAMED = 3
# Layers whose ratios differ by less are cut alike: rounding to whole weights moves small ones by as much.
_ALIKE = 0.01


# -- what to conclude ------------------------------------------------------------------------------------------------


class _Group(NamedTuple):
    """The most pruned networks of a method and budget, one of each seed."""

    method: str
    budget: int
    networks: list[NetworkWeights]


def _most_pruned(found: SweepWeights) -> list[_Group]:
    last = {(method, budget): networks for (method, budget, _), networks in by_population(found.curves).items()}
    return [_Group(method, budget, networks) for (method, budget), networks in last.items()]


def conclusion(found: SweepWeights) -> str:
    """One sentence: which layers are cut the most and the least, and how many units are left without a weight."""
    groups = _most_pruned(found)
    has_budgets = len({group.budget for group in groups}) > 1
    texts = [_verdict(group, has_budgets=has_budgets) for group in groups[:_MAX_NAMED]]
    more = [f"and {len(groups) - _MAX_NAMED} more"] if len(groups) > _MAX_NAMED else []
    return "; ".join([*texts, *more]) + "."


def _verdict(group: _Group, *, has_budgets: bool) -> str:
    networks = group.networks
    name = f"{group.method} after {wording.epochs(group.budget)}" if has_budgets else group.method
    over = f", mean of {len(networks)} seeds" if len(networks) > 1 else ""
    at = f"at {wording.percent(fmean(network.ratio for network in networks))} removed{over}"
    return f"{name} cuts {_cuts(networks)} {at}, {_deaths(networks)}"


def _cuts(networks: Sequence[NetworkWeights]) -> str:
    names = [layer.name for layer in networks[0].layers]
    ratios = mean_ratios(networks)
    most, least = max(ratios), min(ratios)
    high, low = wording.percent(most), wording.percent(least)
    if most - least < _ALIKE:
        return f"every layer alike ({high if high == low else f'{wording.interval(least, most)} %'})"
    return f"{names[ratios.index(most)]} the most ({high}) and {names[ratios.index(least)]} the least ({low})"


def _deaths(networks: Sequence[NetworkWeights]) -> str:
    removed = _counted([name for network in networks for name in network.removed_layers])
    num_units = sum(layer.num_units for layer in networks[0].layers)
    num_dead = fmean(network.num_dead for network in networks)
    dead = [fmean(network.layers[index].num_dead for network in networks) for index in range(len(networks[0].layers))]
    if not num_dead:
        return "and leaves every unit a weight"
    worst = networks[0].layers[dead.index(max(dead))]
    text = f"and leaves {_number(num_dead)} of {wording.thousands(num_units)} units without a weight"
    text += f" ({_number(max(dead))} of {worst.num_units} in {worst.name})"
    return f"{text}; nothing at all is left of {removed}" if removed else text


def _counted(names: Sequence[str]) -> str:
    every = list(dict.fromkeys(names))
    more = [f"{len(every) - _MAX_NAMED} more"] if len(every) > _MAX_NAMED else []
    return wording.listing([*every[:_MAX_NAMED], *more])


def _number(value: float) -> str:
    """A mean over seeds, or a count."""
    return wording.thousands(value) if value == round(value) or value >= 100 else f"{value:.1f}"


def notes(found: SweepWeights) -> list[str]:
    """What is not shown, and why."""
    lines = []
    num, num_shown = len(found.curves[0].parent.layers), len(shown_layers(found.curves))
    if num > num_shown:
        lines.append(
            f"{num_shown} of {num} layers are drawn and listed: the first, the last, and those cut the most at the "
            "largest ratio; layers.csv has all"
        )
    for probes, what in ((found.missing, "not in the store, so not shown"), (found.failed, "failed, so not shown")):
        if probes:
            lines.append(f"{what}: {_counted([probe_label(one) for one in probes])}")
    if found.missing:
        lines.append(f"`prune-cli sweep {found.sweep}` trains what is missing again")
    return lines


def probe_label(probe: Probe) -> str:
    """Such as `the parent of seed 0`, `wt, 2 epochs, seed 0 at 90 %`."""
    if probe.curve.is_parent:
        return f"the parent of seed {probe.curve.seed}"
    return f"{probe.curve.label} at {100 * probe.ratio:g} %"


# -- for a terminal --------------------------------------------------------------------------------------------------


class WeightsReport:
    """The answer for a terminal: print it with a rich Console."""

    def __init__(self, found: SweepWeights) -> None:
        self.found = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the sentence, a table for each curve, and what is not shown."""
        yield Text.assemble((self.found.sweep, "bold"), "  ", conclusion(self.found))
        for one in self.found.curves:
            yield Text()
            yield from _curve_table(one, shown=shown_layers(self.found.curves), task=self.found.task)
        for line in notes(self.found):
            yield Text(line, style="dim")


def _curve_table(one: CurveWeights, *, shown: Sequence[int], task: str) -> Iterator[Text | Table]:
    yield Text(f"{one.curve.label}: what is removed of each layer", style="bold")
    networks = _spread(one.networks)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    table.add_column("layer", no_wrap=True)
    table.add_column("weights", no_wrap=True, justify="right")
    for network in networks:
        table.add_column(f"at {wording.percent(network.ratio)}", no_wrap=True, justify="right")
    for index in shown:
        parent = one.parent.layers[index]
        cells = [_layer_cell(network.layers[index]) for network in networks]
        table.add_row(Text(parent.name), wording.thousands(parent.num_params), *cells)
    table.add_row("dead units", "", *(wording.thousands(network.num_dead) for network in networks), style="dim")
    errors = [wording.percent(network.result.evaluations[task].error) for network in (one.parent, *networks)]
    table.add_row(Text(f"error on {task}"), *errors, style="dim")
    yield table
    if len(networks) < len(one.networks):
        yield Text(f"{len(networks)} of {len(one.networks)} ratios are listed; layers.csv has all", style="dim")
    yield Text(_dead_line(one.networks[-1]), style="dim")


def _layer_cell(layer: LayerWeights) -> Text:
    return Text(wording.percent(layer.ratio)) if layer.num_kept else Text("all", style="bold red")


def _dead_line(network: NetworkWeights) -> str:
    worst = sorted(network.layers, key=lambda one: -one.num_dead)
    dead = [f"{one.num_dead} of {one.num_units} in {one.name}" for one in worst if one.num_dead]
    where = f"; at {wording.percent(network.ratio)} removed {_counted(dead)}" if dead else ""
    return f"dead units are those without a weight{where}"


def _spread(networks: Sequence[NetworkWeights]) -> list[NetworkWeights]:
    """As many as a table has room for, first and last among them."""
    if len(networks) <= _MAX_RATIOS:
        return list(networks)
    step = (len(networks) - 1) / (_MAX_RATIOS - 1)
    return [networks[round(step * place)] for place in range(_MAX_RATIOS)]


# -- for others ------------------------------------------------------------------------------------------------------


def weights_json(found: SweepWeights, *, folder: str, files: Sequence[str]) -> JSON:
    """One object for `--json`. Networks are flat; layers are in the order of the network."""
    return {
        "sweep": found.sweep,
        "storage": found.storage,
        "task": found.task,
        "conclusion": conclusion(found),
        "folder": folder,
        "files": list(files),
        "curves": [
            {
                **one.curve.model_dump(mode="json"),
                "parent": one.parent.result.probe.id,
                "networks": [_network_json(network, found.task) for network in one.all_networks],
            }
            for one in found.curves
        ],
        "missing": [_probe_json(probe) for probe in found.missing],
        "failed": [_probe_json(probe) for probe in found.failed],
    }


def _probe_json(probe: Probe) -> JSON:
    return {**probe.curve.model_dump(mode="json"), "ratio_asked": probe.ratio, "training": probe.id}


def _network_json(network: NetworkWeights, task: str) -> JSON:
    return {
        "ratio_asked": network.result.probe.ratio,
        "ratio": network.ratio,
        "training": network.result.probe.id,
        "error": network.result.evaluations[task].error,
        "num_dead_units": network.num_dead,
        "removed_layers": list(network.removed_layers),
        "layers": [layer_row(layer) for layer in network.layers],
    }


def layer_row(layer: LayerWeights) -> JSON:
    """What is said of a layer in JSON and CSV. Norms of units are of those that are not dead; None without any."""
    alive = sorted(float(norm) for norm in layer.unit_norms_U[~layer.is_dead_U])
    return {
        "layer": layer.name,
        "num_params": layer.num_params,
        "num_kept": layer.num_kept,
        "ratio": layer.ratio,
        "mean_magnitude": layer.mean_magnitude,
        "norm": layer.norm,
        "num_units": layer.num_units,
        "num_dead_units": layer.num_dead,
        "smallest_unit_norm": alive[0] if alive else None,
        "mean_unit_norm": fmean(alive) if alive else None,
        "largest_unit_norm": alive[-1] if alive else None,
    }


def numbers(found: SweepWeights) -> list[PopulationNumber]:
    """For MLflow, means over the seeds that were looked at: ratios of the layers that are drawn, dead units in all."""
    shown = shown_layers(found.curves)
    numbers = []
    for (method, budget, _), networks in by_population(found.curves).items():
        ratio = fmean(network.ratio for network in networks)
        ratios = mean_ratios(networks)
        values = {f"weights/ratio_of/{networks[0].layers[index].name}": ratios[index] for index in shown}
        values["weights/dead_units"] = fmean(network.num_dead for network in networks)
        values["weights/removed_layers"] = fmean(len(network.removed_layers) for network in networks)
        numbers += [PopulationNumber(method, budget, ratio, name, value) for name, value in values.items()]
    return numbers


def panels(found: SweepWeights) -> list[Panel]:
    """Of the first seed of each method and budget: ratios of layers, and the weights at the largest ratio."""
    from raypruning.reporting.weight_plots import histogram_drawings, layer_ratio_drawing

    shown, colours = shown_layers(found.curves), method_colours(found)
    first = {(one.curve.method, one.curve.budget): one for one in reversed(found.curves)}
    drawn = []
    for one in reversed(first.values()):
        # Axes must hold what the parent and this network have, and no other.
        only = one._replace(networks=one.networks[-1:])
        colour = colours[one.curve.method]
        weights = histogram_drawings(only, "weights", shown=shown, task=found.task, colour=colour)
        drawn += [layer_ratio_drawing(one).panel, weights[-1].panel]
    return drawn


def method_colours(found: SweepWeights) -> dict[str, str]:
    """A colour for each method, the one it has in the sweep's report."""
    return series_colours(found.methods)
