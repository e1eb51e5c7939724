"""Advisory leases: who is at work on a sweep or a training, so that two do not do the same at once.

They only save work. Two that hold one lease at the same time, through a race or a stopped clock, write the same things.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import threading
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Annotated, NamedTuple

from pydantic import Field, ValidationError

from raypruning.core.records import Record
from raypruning.errors import RaypruningError, SpecError
from raypruning.runtime.blobs import Blobs

log = logging.getLogger("raypruning.store")

EXPIRY_SECONDS = 60.0
RENEW_SECONDS = 15.0  # three renewals may fail before others take over

Clock = Callable[[], float]  # seconds since 1970, as time.time gives


class Owner(Record):
    """A process that may hold leases.

    Attributes:
        started: when the process began, in seconds since 1970: tells it from a later one with the same pid.
        token: random; tells two owners in one process apart.
    """

    host: str
    pid: Annotated[int, Field(ge=1, lt=2**31)]
    started: float
    token: str


class Lease(Record):
    """The right to work on something, for `expiry_seconds` after `heartbeat` (seconds since 1970)."""

    name: str
    owner: Owner
    heartbeat: float
    expiry_seconds: float = EXPIRY_SECONDS


class HeldBy(NamedTuple):
    """The lease of somebody else that is at work."""

    lease: Lease

    def __str__(self) -> str:
        owner = self.lease.owner
        return f"{self.lease.name} is held by process {owner.pid} on {owner.host}"


def this_owner() -> Owner:
    """A new owner that stands for this process."""
    import psutil  # type: ignore[import-untyped, unused-ignore]

    started = psutil.Process().create_time()
    return Owner(host=socket.gethostname(), pid=os.getpid(), started=started, token=uuid.uuid4().hex)


def acquire(
    blobs: Blobs, name: str, *, now: Clock, owner: Owner, expiry_seconds: float = EXPIRY_SECONDS
) -> Lease | HeldBy:
    """Take a lease that is free, expired, of a dead process, or the owner's own already.

    Args:
        blobs: where leases lie, in the folder `leases`.
        name: such as `sweeps/resnet20`: letters, digits, dots, dashes, underscores and slashes.
        now: the clock; those of several hosts may differ by less than the expiry.
        owner: who asks; see `this_owner`.
        expiry_seconds: how long the lease counts after its last heartbeat.
    """
    held = _read(blobs, name)
    if held is not None and held.owner != owner and not is_expired(held, now=now):
        return HeldBy(held)
    lease = Lease(name=name, owner=owner, heartbeat=now(), expiry_seconds=expiry_seconds)
    _write(blobs, lease)
    winner = _read(blobs, name)  # of two that ask at once, the later write counts
    return lease if winner is None or winner.owner == owner else HeldBy(winner)


def current(blobs: Blobs, name: str, *, now: Clock) -> Lease | None:
    """Who holds a lease now; None when nobody does."""
    held = _read(blobs, name)
    return held if held is not None and not is_expired(held, now=now) else None


def renew(blobs: Blobs, lease: Lease, *, now: Clock) -> Lease | HeldBy:
    """Say that the owner is still at work; whoever took the lease over in the meantime keeps it."""
    return acquire(blobs, lease.name, now=now, owner=lease.owner, expiry_seconds=lease.expiry_seconds)


def release(blobs: Blobs, lease: Lease) -> None:
    """Give a lease back; one that somebody else took over is left alone."""
    held = _read(blobs, lease.name)
    if held is not None and held.owner == lease.owner:
        blobs.delete(_path(lease.name))


def is_expired(lease: Lease, *, now: Clock) -> bool:
    """True when the last heartbeat is too far from now (either way: clocks may differ), or the owner is known dead."""
    return abs(now() - lease.heartbeat) > lease.expiry_seconds or _is_known_dead(lease.owner)


def _is_known_dead(owner: Owner) -> bool:
    if owner.host != socket.gethostname():
        return False
    import psutil  # type: ignore[import-untyped, unused-ignore]

    try:
        process = psutil.Process(owner.pid)
        # Linux derives the start from the boot time, which moves by some hundredths when the clock is set.
        return bool(process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - owner.started) > 2.0)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _path(name: str) -> str:
    if not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", part) for part in name.split("/")):
        raise SpecError(f"lease name {name!r}: letters, digits, dots, dashes, underscores and slashes are allowed")
    return f"leases/{name}.json"


def _read(blobs: Blobs, name: str) -> Lease | None:
    data = blobs.read(_path(name))
    if data is None:
        return None
    try:
        return Lease.model_validate(json.loads(data))
    except (ValidationError, ValueError, RecursionError):
        return None  # nobody can renew what cannot be read; it is replaced


def _write(blobs: Blobs, lease: Lease) -> None:
    blobs.write(_path(lease.name), lease.model_dump_json().encode())


class Heartbeat:
    """Renews a lease in the background while the block runs, and releases it at the end.

    A storage that does not answer is warned about and asked again at the next beat; a lease that was taken over is
    warned about once, and `is_lost` turns true. Neither ends the work.
    """

    def __init__(self, blobs: Blobs, lease: Lease, *, now: Clock, every_seconds: float = RENEW_SECONDS) -> None:
        self.is_lost = False
        self._blobs = blobs
        self._lease = lease
        self._now = now
        self._every_seconds = every_seconds
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease {lease.name}", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join(timeout=self._every_seconds)
        try:
            release(self._blobs, self._lease)
        except RaypruningError as problem:
            log.warning("lease %s was not released: %s", self._lease.name, problem)

    def _beat(self) -> None:
        while not self._is_over.wait(self._every_seconds):
            try:
                outcome = renew(self._blobs, self._lease, now=self._now)
            except RaypruningError as problem:
                log.warning("lease %s was not renewed: %s", self._lease.name, problem)
                continue
            if isinstance(outcome, HeldBy):
                self.is_lost = True
                log.warning("%s; both go on and write the same things", outcome)
                return
