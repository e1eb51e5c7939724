"""What all trackers share: writing in the background, and going on without the place that is written to."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from raypruning.core.populations import Losses
from raypruning.core.records import Curve, ProbeResult, SweepResults, SweepSpec

logger = logging.getLogger("raypruning.mlflow")

Read = Callable[[str], Mapping[str, bytes]]  # training id -> its files by name

TIMEOUT_SECONDS = 6  # of one request; a loaded server was seen to take 2
TRY_SECONDS = 5.0  # no new attempt after so long; with the timeout, an outage is known after 11 s at most
PAUSE_SECONDS = 30.0  # nothing is tried for so long after an outage; `finish` makes up for it
OPEN_ALLOWANCE = 60.0  # importing mlflow and making a database, on a loaded machine
WRITE_ALLOWANCE = 15.0  # how long `finish` waits for one write
UPLOAD_BYTES_PER_SECOND = 2e6  # `finish` does not wait for slower uploads


class View(Protocol):
    """Where one sweep is shown. Its methods block, raise, and may be repeated: each writes only what is lacking."""

    def show_probe(self, result: ProbeResult) -> None:
        """Show a probe, and its point on the curve."""

    def show_answer(self, results: SweepResults, curve: Curve) -> None:
        """Show the potentials and excess errors of a curve, which is then complete."""

    def upload(self, training_id: str, read: Read) -> None:
        """Keep the files of a training whose probe was shown."""

    def show_losses(self, results: SweepResults, losses: Losses) -> None:
        """Show what was lost: numbers of populations, and files."""

    def describe(self, results: SweepResults) -> None:
        """Say in words what came out."""

    def interrupt(self) -> None:
        """Mark what is not complete as such."""

    def distrust(self) -> None:
        """Take into account that a write may have succeeded although it raised."""


class NullTracker:
    """Shows nothing and has no problems."""

    problems: Sequence[str] = ()
    experiment_id: str | None = None
    experiment_url: str = ""

    def start(self, spec: SweepSpec) -> None:
        """Nothing to make ready."""

    def log_probe(self, result: ProbeResult) -> None:
        """Nothing to show."""

    def finish(
        self, results: SweepResults, *, checkpoints: Sequence[str], read: Read, losses: Losses | None = None
    ) -> None:
        """Nothing to write."""

    def close(self) -> None:
        """Nothing to wait for."""


class BackgroundTracker:
    """A tracker that writes in one thread, in order, and never fails or delays the sweep: see `core.ports.Tracker`.

    Args:
        open_view: called in the thread, and again after it failed.
        name: of the place, as problems call it.
        hide: what is replaced in messages, such as an uri that holds a password.
        is_outage: whether an exception means that the place is not there, rather than that it refuses one write.
    """

    def __init__(
        self,
        open_view: Callable[[SweepSpec], View],
        *,
        name: str,
        hide: Mapping[str, str],
        is_outage: Callable[[BaseException], bool],
    ) -> None:
        self._open_view = open_view
        self._name = name
        self._hide = hide
        self._is_outage = is_outage
        self._view: View | None = None
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_over = threading.Event()
        self._give_up_at = 0.0  # by time.monotonic; moved on with each write, so that a long backlog is waited for
        self._missing: dict[str, str] = {}  # what could not be written -> why
        self._was_warned = False
        self._failed_at: float | None = None

    def start(self, spec: SweepSpec) -> None:
        """Begin in the background. Returns at once."""
        if self._thread is not None:
            return
        self._spec = spec
        self._give_up_at = time.monotonic() + OPEN_ALLOWANCE
        self._jobs.put(partial(self._attempt, "the sweep", lambda view: None))
        # A daemon, since an interpreter that wants to exit must not wait for a server that hangs.
        self._thread = threading.Thread(target=self._work, name="raypruning-tracker", daemon=True)
        self._thread.start()

    def log_probe(self, result: ProbeResult) -> None:
        """Show a finished probe. Returns at once."""
        self._jobs.put(partial(self._show_probe, result))

    def finish(
        self, results: SweepResults, *, checkpoints: Sequence[str], read: Read, losses: Losses | None = None
    ) -> None:
        """Write the answer and whatever is still missing, then close. An outage delays it by some 15 s at most."""
        self.start(results.spec)
        self._jobs.put(partial(self._finish, results, checkpoints=tuple(checkpoints), read=read, losses=losses))
        self._close()

    def close(self) -> None:
        """Write what is pending and close, for a sweep that was interrupted."""
        if self._thread is not None:
            self._jobs.put(partial(self._attempt, "that it was interrupted", lambda view: view.interrupt()))
            self._close()

    @property
    def problems(self) -> Sequence[str]:
        """What could not be written, one line per reason; empty when all was."""
        lacking: dict[str, list[str]] = {}
        for what, why in list(self._missing.items()):
            lacking.setdefault(why, []).append(what)
        return tuple(
            f"{self._name} lacks {_named(whats)}: {why}. `prune-cli track` writes it later"
            for why, whats in lacking.items()
        )

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
        self._is_over.set()

    def _close(self) -> None:
        self._jobs.put(None)
        self._give_up_at = max(self._give_up_at, time.monotonic() + WRITE_ALLOWANCE)
        while not self._is_over.wait(max(0.0, self._give_up_at - time.monotonic())):
            if time.monotonic() >= self._give_up_at:
                self._note("the rest", "no answer in time")
                return

    def _finish(self, results: SweepResults, *, checkpoints: Sequence[str], read: Read, losses: Losses | None) -> None:
        self._failed_at = None  # an outage may be over: one more try
        for result in results.probes:
            self._show_probe(result)
        for curve in dict.fromkeys(result.probe.curve for result in results.probes):
            self._show_curve(results, curve)
        if losses is not None:
            allowance = upload_seconds(sum(map(len, losses.files.values())))
            self._attempt("what was lost", lambda view: view.show_losses(results, losses), allowance=allowance)
        by_id = {result.probe.id: result for result in results.probes}
        for training_id in dict.fromkeys(checkpoints):
            if training_id in by_id:
                self._upload(by_id[training_id], read)
        self._attempt("the answer in words", lambda view: view.describe(results))

    def _show_probe(self, result: ProbeResult) -> None:
        self._attempt(f"probe {result.probe.id}", lambda view: view.show_probe(result))

    def _show_curve(self, results: SweepResults, curve: Curve) -> None:
        self._attempt(f"curve {curve.label}", lambda view: view.show_answer(results, curve))

    def _upload(self, result: ProbeResult, read: Read) -> None:
        if result.checkpoint is not None:
            allowance = upload_seconds(result.checkpoint.num_bytes)
            training_id = result.probe.id
            what = f"checkpoint {training_id}"
            self._attempt(what, lambda view: view.upload(training_id, read), allowance=allowance)

    def _attempt(self, what: str, write: Callable[[View], None], *, allowance: float = WRITE_ALLOWANCE) -> None:
        """Write, trying for some seconds. What fails is noted under `what`, until that succeeds."""
        if self._failed_at is not None and time.monotonic() < self._failed_at + PAUSE_SECONDS:
            self._missing.setdefault(what, next(iter(self._missing.values()), "no answer"))
            return
        self._give_up_at = max(self._give_up_at, time.monotonic() + allowance)
        try:
            self._retry(write)
        except Exception as error:  # a tracker must not fail a sweep, whatever happens; `problems` tells
            if self._is_outage(error):
                self._failed_at = time.monotonic()
                self._distrust()
            self._note(what, _in_one_line(error))
            return
        self._failed_at = None
        self._missing.pop(what, None)
        self._missing.pop("the sweep", None)  # a view is open now, though its first attempt may have failed

    def _retry(self, write: Callable[[View], None]) -> None:
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_exponential

        Retrying(
            stop=stop_after_attempt(4) | stop_after_delay(TRY_SECONDS),
            wait=wait_exponential(multiplier=0.2, max=2),
            retry=retry_if_exception(self._is_outage),
            before_sleep=lambda state: self._distrust(),
            reraise=True,
        )(self._write, write)

    def _write(self, write: Callable[[View], None]) -> None:
        if self._view is None:
            self._view = self._open_view(self._spec)
        write(self._view)

    def _distrust(self) -> None:
        if self._view is not None:
            self._view.distrust()

    def _note(self, what: str, why: str) -> None:
        for secret, shown in self._hide.items():
            why = why.replace(secret, shown)
        self._missing[what] = why
        if not self._was_warned:
            self._was_warned = True
            logger.warning("%s: %s. The sweep goes on; `prune-cli track` shows it there later", self._name, why)


def upload_seconds(num_bytes: int) -> float:
    """How long an upload may take."""
    return WRITE_ALLOWANCE + num_bytes / UPLOAD_BYTES_PER_SECOND


def _in_one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def _named(whats: Sequence[str]) -> str:
    more = f" and {len(whats) - 3} more" if len(whats) > 3 else ""
    return ", ".join(whats[:3]) + more
