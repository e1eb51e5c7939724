"""Several processes that train one network together, each on its share of every batch, and measure it together.

Rank 0 decides, reads and writes; the others do as it says, in step. They exchange tensors and JSON, never pickles.
"""

# N images, B of a batch

from __future__ import annotations

import contextlib
import copy
import json
import os
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.distributed as dist
from safetensors.numpy import load as arrays_of_bytes
from safetensors.numpy import save as bytes_of_arrays
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Arrays = Mapping[str, np.ndarray]

# Rank 0 chooses masks, and writes checkpoints, while the others wait for it.
TIMEOUT = timedelta(hours=2)
# All are up, and have torch imported.
MEETING_TIMEOUT = timedelta(minutes=3)
LOOPBACK = "127.0.0.1"


class Share(NamedTuple):
    """The part of each batch that falls to one of `size` workers."""

    rank: int = 0
    size: int = 1

    def of(self, num: int) -> range:
        """Which images of a batch of `num`; none where there are fewer than two for each worker.

        A single image has no variance, which batch norm divides by where nothing else is left to average.
        """
        num_busy = max(1, min(self.size, num // 2))
        if self.rank >= num_busy:
            return range(0)
        return range(self.rank * num // num_busy, (self.rank + 1) * num // num_busy)

    def to_read(self, num: int) -> range:
        """The same; for a worker without any the first of the batch, which it computes and which do not count."""
        return self.of(num) or range(min(2, num))

    def of_batches(self, num: int, *, batch_size: int) -> range:
        """Which of `num` images fall to it where each is taken once, in whole batches: the same batches as alone."""
        num_batches = -(-num // batch_size)
        first, last = (rank * num_batches // self.size * batch_size for rank in (self.rank, self.rank + 1))
        return range(min(first, num), min(last, num))


WHOLE = Share()


@dataclass(frozen=True)
class Group:
    """This process among those that train one network. One that is alone has nothing to say to anybody.

    Attributes:
        sync_batch_norm: batch norm sees the whole batch and not this worker's share of it. GPUs only.
    """

    share: Share = WHOLE
    sync_batch_norm: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.share.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other."""
        return self.share.size == 1

    def sum(self, values: Tensor) -> Tensor:
        """Of all workers, elementwise, the same bits for each."""
        if not self.is_alone:
            dist.all_reduce(values)
        return values

    def tell(self, message: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """What rank 0 has to say, as JSON; the others pass nothing."""
        text = self._send_bytes(json.dumps(message).encode())
        return cast("Mapping[str, Any]", json.loads(text))

    def tell_arrays(self, arrays: Arrays | None = None) -> Arrays:
        """Arrays of rank 0; the others pass nothing."""
        if self.is_alone:
            assert arrays is not None
            return arrays
        return arrays_of_bytes(self._send_bytes(_packed(arrays or {})))

    def _send_bytes(self, data: bytes) -> bytes:
        if self.is_alone:
            return data
        size = torch.tensor([len(data)])
        dist.broadcast(size, src=0)
        content = _tensor_of(data) if self.is_first else torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(content, src=0)
        return content.numpy().tobytes()

    def collect(self, arrays: Arrays) -> Sequence[Arrays]:
        """At rank 0 those of all workers, by rank; elsewhere nothing."""
        if self.is_alone:
            return [arrays]
        if not self.is_first:
            data = _packed(arrays)
            dist.send(torch.tensor([len(data)]), dst=0)
            dist.send(_tensor_of(data), dst=0)
            return []
        found = [arrays]
        for rank in range(1, self.share.size):
            size = torch.empty(1, dtype=torch.int64)
            dist.recv(size, src=rank)
            content = torch.empty(int(size), dtype=torch.uint8)
            dist.recv(content, src=rank)
            found.append(arrays_of_bytes(content.numpy().tobytes()))
        return found

    def take_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors with those of rank 0."""
        if not self.is_alone:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def wrap(self, model: nn.Module) -> nn.Module:
        """What to train in place of the model: the same parameters and buffers, gradients averaged over all workers.

        With synchronised batch norm it is of other modules; the model's own stay what they are.
        """
        if self.is_alone:
            return model
        if self.sync_batch_norm and next(model.parameters()).is_cuda:
            model = with_sync_batch_norm(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # Torch 2.13 has another word for it, and 2.11 only this.
            return DistributedDataParallel(model, broadcast_buffers=False)


ALONE = Group()


def with_sync_batch_norm(model: nn.Module) -> nn.Module:
    """A network of the same parameters and buffers whose batch norm is synchronised. The model itself is left alone."""
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return cast("nn.Module", nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model, shared)))


def average_later(net: nn.Module) -> contextlib.AbstractContextManager[None]:
    """While a part of a batch is computed whose gradients wait for those of the next one."""
    if isinstance(net, DistributedDataParallel):
        return net.no_sync()
    return contextlib.nullcontext()


class Meeting(NamedTuple):
    """Where the workers of a probe find each other.

    Attributes:
        place: a file that does not exist yet, for workers of one machine; or the `host:port` of rank 0.
        is_local: whether all are on this machine: then they talk over the loopback interface alone.
    """

    place: str
    is_local: bool


@contextlib.contextmanager
def joined(
    meeting: Meeting,
    share: Share,
    *,
    device: torch.device,
    sync_batch_norm: bool,
    listener: socket.socket | None = None,
) -> Iterator[Group]:
    """Meet the others, and part at the end.

    Args:
        listener: of rank 0, bound to the meeting's place where that is no file.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    host, colon, port = meeting.place.rpartition(":")
    store: dist.Store
    if not colon:
        store = dist.FileStore(meeting.place, share.size)
    else:
        descriptor = listener.detach() if listener is not None else None
        store = dist.TCPStore(
            host, int(port), share.size, share.rank == 0, timeout=TIMEOUT, master_listen_fd=descriptor
        )
    store.set(f"here/{share.rank}", "")
    store.wait([f"here/{rank}" for rank in range(share.size)], MEETING_TIMEOUT)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with _interface(_loopback() if meeting.is_local else None):
        dist.init_process_group(backend, store=store, rank=share.rank, world_size=share.size, timeout=TIMEOUT)
    try:
        yield Group(share, sync_batch_norm)
    finally:
        dist.destroy_process_group()


def is_of_the_connection(error: RuntimeError) -> bool:
    """Whether an error says that another worker cannot be reached: none of this one's own."""
    # Gloo has no type of its own for it, only the place in its sources.
    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL"))


def _loopback() -> str:
    """The name of that interface: `lo`, or `lo0`."""
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


@contextlib.contextmanager
def _interface(name: str | None) -> Iterator[None]:
    """The network interface that gloo listens on; it would take the one that the machine's name belongs to."""
    before = os.environ.get("GLOO_SOCKET_IFNAME")
    if name is None or before is not None:
        yield
        return
    os.environ["GLOO_SOCKET_IFNAME"] = name
    try:
        yield
    finally:
        del os.environ["GLOO_SOCKET_IFNAME"]


def _packed(arrays: Arrays) -> bytes:
    return bytes_of_arrays({name: np.asarray(array, order="C") for name, array in arrays.items()})


def _tensor_of(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
