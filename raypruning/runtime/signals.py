"""Ctrl-C and SIGTERM: stop at the next safe point, say how to go on, exit 130 or 143."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class Interrupted(BaseException):
    """A signal asked the command to stop. Not an Exception, so that nothing takes it for a failure of a probe.

    Attributes:
        exit_code: 128 + the signal's number.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


class StopOnSignal:
    """While entered, SIGINT and SIGTERM raise Interrupted in the main thread, once; a second Ctrl-C does as usual."""

    def __enter__(self) -> StopOnSignal:
        self._before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
        for signum in self._before:
            signal.signal(signum, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self._restore()
        raise Interrupted(signum)

    def _restore(self) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
