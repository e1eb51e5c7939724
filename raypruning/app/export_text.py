"""What `prune-cli export` shows in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.filesize import decimal

if TYPE_CHECKING:
    from raypruning.app.export import Exported
    from raypruning.compaction.latency import Latency


def export_text(exported: Exported) -> str:
    """A table of before and after, what was kept, and how to load it."""
    plan = exported.plan
    source, channels, check = plan.source, plan.channels, plan.check
    chosen = f"within {source.delta:g} on {source.task}" if source.delta is not None else "chosen by its id"
    lines = [
        f"{plan.model.name} of {source.sweep}: {source.method}, {source.ratio:.4f} removed, budget {source.budget}, "
        f"seed {source.seed}, {chosen}",
        "",
        *_table(exported),
        "",
        "as stored: masks alone, with the removed weights as zeros: these make nothing faster.",
    ]
    if plan.after.nonzeros < plan.after.parameters:
        lines.append(
            f"{_share(plan.after.parameters - plan.after.nonzeros, plan.after.parameters)} of the exported parameters "
            "are still zeros: single weights cannot be taken out."
        )
    lines += [
        "",
        f"filters and units   {channels.num_outputs:,}, {channels.num_dead:,} dead, {channels.num_removed:,} removed",
    ]
    lines += [f"  kept dead {num:>8,}   {reason}" for reason, num in channels.kept.items()]
    lines.append(f"outputs             differ by {check.max_difference:.1e} at most on {check.num_images} test images")
    for name, value in (("onnxruntime", check.onnx_max_difference), ("torch.export", check.torch_max_difference)):
        if value is not None:
            lines.append(f"{name:<20}differs by {value:.1e} at most")
    lines += [
        "",
        f"wrote   {exported.folder}: {', '.join(f'{n} {decimal(size)}' for n, size in exported.files.items())}",
    ]
    lines.append(f'load    from raypruning import load_exported; model = load_exported("{exported.folder}")')
    return "\n".join(lines)


def _table(exported: Exported) -> list[str]:
    before, after = exported.plan.before, exported.plan.after
    rows: list[tuple[str, str, str, str]] = [("", "as stored", "exported", "")]
    for name, field in (("parameters", "parameters"), ("non-zeros", "nonzeros"), ("multiply-adds", "macs")):
        rows.append(_counts(name, getattr(before, field), getattr(after, field)))
    rows.append(_counts("  of non-zeros", before.effective_macs, after.effective_macs))
    for name, field in (("file, dense", "dense"), ("  sparse", "sparse"), ("  zipped", "zipped")):
        old, new = getattr(before, f"bytes_{field}"), getattr(after, f"bytes_{field}")
        rows.append((name, decimal(old), decimal(new), _factor(old, new)))
    slow, fast = exported.plan.latency_before, exported.plan.latency_after
    if slow and fast:
        rows.append(("one image", _ms(slow), _ms(fast), _factor(slow.median_ms, fast.median_ms)))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    table = [
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}".rstrip()
        for row in rows
    ]
    if slow and fast:
        table.append(
            f"{'':<{widths[0]}}  median and quartiles of {fast.runs} runs in turns, "
            f"{fast.threads} thread{'s' if fast.threads > 1 else ''}, on this machine's CPU"
        )
    return table


def _counts(name: str, old: int, new: int) -> tuple[str, str, str, str]:
    return name, f"{old:,}", f"{new:,}", _factor(old, new)


def _factor(old: float, new: float) -> str:
    return f"{old / new:.2f}x" if new else ""


def _ms(latency: Latency) -> str:
    return f"{latency.median_ms:.3g} ms ({latency.low_ms:.3g}-{latency.high_ms:.3g})"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"
