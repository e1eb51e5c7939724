"""Downloads of published datasets, by torchvision, which knows the mirrors and checks the md5 sums."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from raypruning.datasets.locations import NO_DATA_NEEDED
from raypruning.errors import DataError


def download_published(dataset: str, root: Path) -> None:
    """Fetch mnist, fashion_mnist, cifar10 or cifar100 into `root`, in torchvision's layout. Keeps what is there.

    Raises:
        DataError: the network or the disk failed.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        _classes()[dataset](str(root), download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{dataset} could not be downloaded to {root} ({reason}): get it on a machine with a network and pass "
            f"--data-dir, or {NO_DATA_NEEDED}"
        ) from error


def _classes() -> dict[str, Callable[..., object]]:
    # Here and not above: it imports torch, which takes seconds, and most callers have their data.
    from raypruning.models.torchvision_import import import_torchvision

    published = import_torchvision().datasets
    return {
        "mnist": published.MNIST,
        "fashion_mnist": published.FashionMNIST,
        "cifar10": published.CIFAR10,
        "cifar100": published.CIFAR100,
    }
