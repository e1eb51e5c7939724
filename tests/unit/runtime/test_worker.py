"""A worker's advisory lease: it waits for whoever trains the same network, and for nobody who is gone."""

from __future__ import annotations

import threading
import time

import pytest

from raypruning.core.ports import ProbeJob
from raypruning.core.records import Curve, Probe
from raypruning.runtime import leases
from raypruning.runtime.store import ObjectStore, open_store
from raypruning.runtime.worker import Worker
from raypruning.testing.store_contract import TRAINING, sample_masks, sample_result, sample_weights


@pytest.fixture
def store(tmp_path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def job() -> ProbeJob:
    curve = Curve(model="lenet5", dataset="strokes", method="wt", budget=1, seed=0)
    return ProbeJob(probe=Probe(curve=curve, ratio=0.5, training=sample_result().training), tasks=())


def hold(store: ObjectStore, *, heartbeat: float) -> None:
    owner = leases.this_owner().model_copy(update={"host": "elsewhere"})
    held = leases.acquire(store.blobs, f"trainings/{TRAINING}", now=lambda: heartbeat, owner=owner)
    assert isinstance(held, leases.Lease)


def test_worker_waits_for_the_training_that_another_process_is_at_and_trains_nothing(store, job):
    hold(store, heartbeat=time.time())
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(Worker(store).run(job)))
    thread.start()
    store.commit_training(sample_result(), weights=sample_weights(), masks=sample_masks())
    thread.join(timeout=60)
    assert outcomes and not outcomes[0].was_trained


def test_worker_takes_over_the_training_of_a_process_whose_heartbeat_stopped(store, job):
    hold(store, heartbeat=time.time() - 2 * leases.EXPIRY_SECONDS)
    Worker(store).run(job)  # The sample's data exist nowhere: what matters is that the lease was taken and given back.
    assert leases.current(store.blobs, f"trainings/{TRAINING}", now=time.time) is None
