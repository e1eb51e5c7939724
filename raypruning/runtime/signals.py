"""Ctrl-C and SIGTERM: stop at the next safe point, say how to go on, exit 130 or 143."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any


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


class HoldSignals:
    """While entered, SIGINT and SIGTERM wait for the next `check`; a second one does as before.

    For code that an exception out of nowhere breaks, such as Ray's, which is not all Python. Does nothing outside the
    main thread, where no signal arrives.
    """

    def __init__(self) -> None:
        self._signum: int | None = None

    def __enter__(self) -> HoldSignals:
        self._is_main = threading.current_thread() is threading.main_thread()
        self._before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
        self.take()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._put(self._before)
        if kind is None:
            self.check()

    def take(self) -> None:
        """Take the signals, again if something else took them meanwhile."""
        if self._signum is None:
            self._put(dict.fromkeys(self._before, self._keep))

    def check(self) -> None:
        """Raise Interrupted if a signal came."""
        if self._signum is not None:
            raise Interrupted(self._signum)

    def _keep(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum
        self._put(self._before)

    def _put(self, handlers: Mapping[signal.Signals, Any]) -> None:
        for signum, handler in handlers.items() if self._is_main else ():
            signal.signal(signum, handler)
