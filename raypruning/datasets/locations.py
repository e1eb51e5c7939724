"""Where datasets are looked for, and what is said when one is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raypruning.datasets.cache import cache_dir
from raypruning.errors import DataError

NO_DATA_NEEDED = "use --dataset strokes, which needs no data"


def search_root(data_dir: Path | None) -> Path | None:
    """The folder to look in: `data_dir`, or without one the folder that earlier downloads went to, if it exists."""
    if data_dir is not None:
        return data_dir.expanduser()
    downloads = download_root(None)
    return downloads if downloads.is_dir() else None


def download_root(data_dir: Path | None) -> Path:
    """The folder that downloads go to: `data_dir`, or without one a folder of the cache."""
    return data_dir.expanduser() if data_dir is not None else cache_dir() / "downloads"


def candidates(root: Path | None, subfolders: Sequence[str]) -> list[Path]:
    """The subfolders of `root` ("" is itself) that exist, in the order given; none without a root."""
    folders = [root / name for name in subfolders] if root is not None else []
    return [folder for folder in folders if folder.is_dir()]


def missing_data(
    dataset: str,
    data_dir: Path | None,
    *,
    subfolders: Sequence[str],
    layout: str,
    can_download: bool = True,
    no_data_needed: str = NO_DATA_NEEDED,
) -> DataError:
    """An error of one line for data that is not there: what, where it was looked for, what is expected, what to type.

    Args:
        dataset: what the user typed.
        data_dir: what the user gave; None, a folder that does not exist, and a folder without the data differ.
        subfolders: where in it was looked, "" for itself.
        layout: what should be there, such as "train/<class>/ with one folder per class".
        can_download: whether --download helps.
        no_data_needed: what to take instead.
    """
    instead = f"add --download, or {no_data_needed}" if can_download else f"or {no_data_needed}"
    if data_dir is None:
        return DataError(
            f"{dataset}: the images are not on this machine and no data folder was given: "
            f"pass --data-dir DIR, where DIR holds {layout}; {instead}"
        )
    folder = data_dir.expanduser()
    if not folder.exists():
        return DataError(
            f"{dataset}: the data folder {folder} does not exist: give --data-dir a folder with {layout}; {instead}"
        )
    if not folder.is_dir():
        return DataError(f"{dataset}: --data-dir {folder} is a file: give the folder that holds {layout}; {instead}")
    looked = ", ".join(str(folder / name) if name else str(folder) for name in subfolders)
    return DataError(f"{dataset}: no images found, looked in {looked}: expected {layout}; {instead}")
