"""A sweep as it goes on: a table that renews itself in a terminal, plain lines elsewhere. On standard error."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from raypruning.core.plan import Plan
from raypruning.core.progress import CurveProgress, curves_progress
from raypruning.core.records import ProbeResult
from raypruning.reporting.wording import count, duration, percent

PLAIN_SECONDS = 20.0  # between plain lines, while results come
SILENT_SECONDS = 60.0  # after which one is due although none came: a large parent trains for hours


class LiveReport:
    """Told of every result; shows how far each curve is and how long it may still take.

    Args:
        console: on standard error.
        quiet: show nothing but what `say` is given.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._live: Live | None = None
        self._plan: Plan | None = None
        self._results: Mapping[str, ProbeResult] = {}
        self._num_running = 0
        self._num_new = 0
        self._began = self._said = time.monotonic()
        self._is_over = threading.Event()

    def __enter__(self) -> LiveReport:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_over.set()
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """A line that a person should read."""
        self._print(Text(line, style="yellow"))

    def begin(self, plan: Plan) -> None:
        """Show the plan in a line, and the table in a terminal."""
        self._plan = plan
        self._began = self._said = time.monotonic()
        if self._quiet:
            return
        spec = plan.spec
        self._console.print(
            f"[bold]{spec.name}[/]: {spec.model.name} on {escape(spec.data.name)}, {count(len(plan.curves), 'curve')}, "
            f"{count(len(plan.tasks), 'task')}, delta {', '.join(f'{delta:g}' for delta in spec.deltas)}"
        )
        if self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=2, transient=True)
            self._live.start()
        else:
            threading.Thread(target=self._break_silence, daemon=True).start()

    def update(self, result: ProbeResult, results: Mapping[str, ProbeResult], *, num_running: int) -> None:
        """One more result is there."""
        self._results, self._num_running = dict(results), num_running
        self._num_new += result.attempts > 0
        if result.failure is not None:
            curve = result.probe.curve
            self._print(
                Text(f"failed: {curve.label}, ratio {result.probe.ratio:.4f}: {result.failure.message}", style="red")
            )
        if self._live is None and not self._quiet and time.monotonic() - self._said >= PLAIN_SECONDS:
            self._say_how_far()

    def _say_how_far(self) -> None:
        self._said = time.monotonic()
        self._console.print(self._line(), highlight=False)

    def _break_silence(self) -> None:
        while not self._is_over.wait(max(0.0, self._said + SILENT_SECONDS - time.monotonic())):
            if time.monotonic() - self._said >= SILENT_SECONDS:
                self._say_how_far()

    def _print(self, line: Text) -> None:
        # Not folded: a terminal does that by itself, and a log is searched for what a line says.
        self._console.print(line, soft_wrap=True)

    def _rows(self) -> list[CurveProgress]:
        assert self._plan is not None
        return curves_progress(self._plan, self._results)

    def _line(self) -> str:
        rows = self._rows()
        return (
            f"{duration(time.monotonic() - self._began)}: {count(self._num_done, 'probe')} done, "
            f"{sum(row.num_open for row in rows)} thresholds open{self._time_left(rows)}"
        )

    @property
    def _num_done(self) -> int:
        return sum(result.is_done for result in self._results.values())

    def _time_left(self, rows: list[CurveProgress]) -> str:
        """From the time per new result so far. Nothing before three are there: the first ones load everything."""
        if self._num_new < 3:
            return ""
        left = sum(max(0, row.num_expected - row.num_done) for row in rows)
        seconds = (time.monotonic() - self._began) / self._num_new * left
        return f", about {duration(seconds)} left" if left else ""

    def _table(self) -> Table:
        rows = self._rows()
        table = Table(box=None, padding=(0, 2, 0, 0), caption=self._line(), caption_justify="left", header_style="bold")
        for heading in ("method", "retraining", "seed", "weakest task", "potential between"):
            table.add_column(heading, no_wrap=True)
        for heading in ("open", "probes"):
            table.add_column(heading, justify="right")
        room = max(4, self._console.height - 6)
        shown = sorted(rows, key=lambda row: row.num_open == 0)[:room]
        for row in shown:
            between = f"{percent(row.bracket.low)} and {percent(row.bracket.high)}" if row.bracket else "…"
            table.add_row(
                row.curve.method,
                count(row.curve.budget, "epoch"),
                str(row.curve.seed),
                row.weakest_task or f"waits for {row.waits_for}",
                between,
                str(row.num_open) if row.num_open else "[green]closed[/]",
                f"{row.num_done} of {row.num_expected}",
            )
        if len(shown) < len(rows):
            table.add_row(f"… {len(rows) - len(shown)} more")
        return table
