from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from raypruning.errors import SpecError, StoreError
from raypruning.runtime.blobs import LocalBlobs
from raypruning.runtime.leases import (
    Heartbeat,
    HeldBy,
    Lease,
    Owner,
    acquire,
    is_expired,
    release,
    renew,
    this_owner,
)

NAME = "sweeps/lenet"


class Clock:
    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path)


def elsewhere(token: str = "x") -> Owner:
    return Owner(host="another-host.invalid", pid=1, started=0.0, token=token)


def taken(outcome: Lease | HeldBy) -> Lease:
    assert isinstance(outcome, Lease), outcome
    return outcome


def test_free_lease_is_taken_and_refused_to_others(blobs: LocalBlobs, clock: Clock) -> None:
    first = this_owner()
    taken(acquire(blobs, NAME, now=clock, owner=first))
    for other in (this_owner(), elsewhere()):
        outcome = acquire(blobs, NAME, now=clock, owner=other)
        assert isinstance(outcome, HeldBy)
        assert outcome.lease.owner == first
        assert str(os.getpid()) in str(outcome)
    taken(acquire(blobs, "sweeps/other", now=clock, owner=elsewhere()))


def test_own_lease_is_taken_again(blobs: LocalBlobs, clock: Clock) -> None:
    owner = elsewhere()
    taken(acquire(blobs, NAME, now=clock, owner=owner))
    clock.seconds += 30
    assert taken(acquire(blobs, NAME, now=clock, owner=owner)).heartbeat == clock.seconds


@pytest.mark.parametrize(("age_seconds", "is_free"), [(60.0, False), (60.1, True), (-60.0, False), (-60.1, True)])
def test_lease_expires_when_its_heartbeat_is_far_from_now(
    blobs: LocalBlobs, clock: Clock, age_seconds: float, is_free: bool
) -> None:
    taken(acquire(blobs, NAME, now=clock, owner=elsewhere("first")))
    clock.seconds += age_seconds
    outcome = acquire(blobs, NAME, now=clock, owner=elsewhere("second"))
    assert isinstance(outcome, Lease) == is_free


def test_renewed_lease_does_not_expire(blobs: LocalBlobs, clock: Clock) -> None:
    lease = taken(acquire(blobs, NAME, now=clock, owner=elsewhere("first")))
    clock.seconds += 50
    lease = taken(renew(blobs, lease, now=clock))
    clock.seconds += 50
    assert isinstance(acquire(blobs, NAME, now=clock, owner=elsewhere("second")), HeldBy)


def test_lease_that_was_taken_over_stays_with_the_other(blobs: LocalBlobs, clock: Clock) -> None:
    lost = taken(acquire(blobs, NAME, now=clock, owner=elsewhere("first")))
    clock.seconds += 61
    other = taken(acquire(blobs, NAME, now=clock, owner=elsewhere("second")))
    outcome = renew(blobs, lost, now=clock)
    assert isinstance(outcome, HeldBy)
    assert outcome.lease == other
    release(blobs, lost)
    assert isinstance(acquire(blobs, NAME, now=clock, owner=elsewhere("third")), HeldBy)


def test_released_lease_is_free(blobs: LocalBlobs, clock: Clock) -> None:
    release(blobs, taken(acquire(blobs, NAME, now=clock, owner=elsewhere("first"))))
    taken(acquire(blobs, NAME, now=clock, owner=elsewhere("second")))


def test_lease_of_a_dead_process_on_this_host_is_free_at_once(blobs: LocalBlobs, clock: Clock) -> None:
    script = "from raypruning.runtime.leases import this_owner; print(this_owner().model_dump_json())"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    dead = Owner.model_validate_json(printed)
    taken(acquire(blobs, NAME, now=clock, owner=dead))
    taken(acquire(blobs, NAME, now=clock, owner=this_owner()))


def test_pid_that_another_process_has_now_counts_as_dead(clock: Clock) -> None:
    mine = this_owner()
    lease = Lease(name=NAME, owner=mine, heartbeat=clock.seconds)
    assert not is_expired(lease, now=clock)
    earlier = mine.model_copy(update={"started": mine.started - 100})
    assert is_expired(lease.model_copy(update={"owner": earlier}), now=clock)
    # Nothing is known of processes on other hosts.
    abroad = earlier.model_copy(update={"host": "another-host.invalid"})
    assert not is_expired(lease.model_copy(update={"owner": abroad}), now=clock)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"name": 1}', b"\xff"])
def test_lease_that_cannot_be_read_is_replaced(blobs: LocalBlobs, clock: Clock, content: bytes) -> None:
    blobs.write(f"leases/{NAME}.json", content)
    taken(acquire(blobs, NAME, now=clock, owner=elsewhere()))
    assert isinstance(acquire(blobs, NAME, now=clock, owner=this_owner()), HeldBy)


@pytest.mark.parametrize("name", ["", "..", "../x", "a//b", "/a", "a\n", ".x", "a b"])
def test_names_that_leave_the_folder_are_refused(blobs: LocalBlobs, clock: Clock, name: str) -> None:
    with pytest.raises(SpecError):
        acquire(blobs, name, now=clock, owner=elsewhere())


def test_of_two_that_ask_at_once_one_at_most_believes_to_be_alone(tmp_path: Path, clock: Clock) -> None:
    """The later write counts: whoever reads it back afterwards agrees."""

    class RacedBlobs(LocalBlobs):
        after_write: Callable[[], None] | None = None

        def write(self, path: str, data: bytes) -> None:
            super().write(path, data)
            if self.after_write is not None:
                race, self.after_write = self.after_write, None
                race()

    blobs = RacedBlobs(tmp_path)
    late = Lease(name=NAME, owner=elsewhere("late"), heartbeat=clock.seconds)
    blobs.after_write = lambda: blobs.write(f"leases/{NAME}.json", late.model_dump_json().encode())
    outcome = acquire(blobs, NAME, now=clock, owner=elsewhere("early"))
    assert isinstance(outcome, HeldBy)
    assert outcome.lease == late


class ObservedBlobs(LocalBlobs):
    """Tells when so many writes were made; fails those it is told to."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.num_left = 0
        self.num_failures = 0
        self.is_reached = threading.Event()

    def write(self, path: str, data: bytes) -> None:
        self.num_left -= 1
        if self.num_left <= 0:
            self.is_reached.set()
        if self.num_failures > 0:
            self.num_failures -= 1
            raise StoreError("the storage does not answer")
        super().write(path, data)


def test_heartbeat_renews_over_failures_and_releases_at_the_end(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    blobs = ObservedBlobs(tmp_path)
    lease = taken(acquire(blobs, NAME, now=clock, owner=this_owner()))
    clock.seconds += 50
    blobs.num_left, blobs.num_failures = 3, 1
    blobs.is_reached.clear()
    with Heartbeat(blobs, lease, now=clock, every_seconds=0.01) as heartbeat:
        assert blobs.is_reached.wait(10)
        clock.seconds += 50
        assert isinstance(acquire(LocalBlobs(tmp_path), NAME, now=clock, owner=elsewhere()), HeldBy)
        assert not heartbeat.is_lost
    assert "does not answer" in caplog.text
    assert blobs.list("leases") == []


def test_heartbeat_says_when_the_lease_was_taken_over(tmp_path: Path, clock: Clock) -> None:
    class TellingBlobs(LocalBlobs):
        is_read = threading.Semaphore(0)

        def read(self, path: str) -> bytes | None:
            data = super().read(path)
            self.is_read.release()
            return data

    lease = Lease(name=NAME, owner=this_owner(), heartbeat=clock.seconds)
    other = taken(acquire(LocalBlobs(tmp_path), NAME, now=clock, owner=elsewhere()))
    blobs = TellingBlobs(tmp_path)
    heartbeat = Heartbeat(blobs, lease, now=clock, every_seconds=0.01)
    with heartbeat:
        assert blobs.is_read.acquire(timeout=10)
    assert heartbeat.is_lost
    assert isinstance(acquire(LocalBlobs(tmp_path), NAME, now=clock, owner=this_owner()), HeldBy)
    assert other.owner == elsewhere()
