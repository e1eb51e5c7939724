"""Bytes under a root: a local folder or a bucket. The smallest port that the store and the leases need.

Paths are relative, POSIX, and name no place outside the root.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from raypruning.errors import ResourceError, SpecError, StorageFullError, StoreError
from raypruning.runtime.untrusted import MAX_FILE_BYTES, check_size, read_regular

T = TypeVar("T")
Names = list[str]  # inside the classes below, `list` is their method

TEMPORARY = ".tmp-"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR)


class Blobs(Protocol):
    """Named bytes. Every write is whole or absent to all readers.

    All methods raise SpecError for a path that leaves the root, ResourceError where the storage does not allow the
    operation, and StoreError where it stopped answering or is full.
    """

    uri: str

    def read(self, path: str, *, at_most: int = MAX_FILE_BYTES) -> bytes | None:
        """The bytes at a path, None if nothing lies there. More than `at_most` raise TooLargeError, a StoreError."""

    def write(self, path: str, data: bytes) -> None:
        """Replace the bytes at a path, making the folders above it. On return they survive a power cut."""

    def exists(self, path: str) -> bool:
        """True if bytes lie at exactly this path; false for a folder."""

    def list(self, prefix: str = "") -> Names:
        """Sorted paths, relative to the root, of all files in the folder `prefix` and below; empty if it is absent."""

    def list_folders(self, prefix: str = "") -> Names:
        """Sorted names of the folders directly in `prefix`. A folder whose last file went may still be named."""

    def move(self, path: str, target: str) -> None:
        """Rename one file, replacing what lies at the target. Nothing happens if the file is absent."""

    def delete(self, path: str) -> None:
        """Remove one file. Nothing happens if it is absent."""

    def delete_tree(self, prefix: str) -> None:
        """Remove a folder with all below it. Nothing happens if it is absent."""

    def size(self, prefix: str = "") -> int | None:
        """Bytes of a file, or of all files in a folder; None if nothing lies there (or 0, for an empty folder)."""

    def clean(self, *, older_than_seconds: float = 3600.0) -> int:
        """Remove what interrupted writes left behind; returns how many bytes that freed."""


def open_blobs(uri: str, *, read_only: bool = False) -> Blobs:
    """Open a local path, a file:// or an s3:// address.

    Args:
        uri: a relative path counts from the working directory; `~` is the home directory. An s3 address may carry
            `?endpoint_override=http%3A%2F%2Fhost%3A9000&region=...`; without, AWS_ENDPOINT_URL and AWS_REGION count.
        read_only: leave out making the root and the test write, for looking at a store that belongs to others.

    Raises:
        SpecError: another kind of address, or an option it does not have.
        ResourceError: the root cannot be written, or not be reached.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    if not uri or "\0" in uri:
        raise SpecError(f"storage must be a folder, file:///folder or s3://bucket/prefix, got {uri!r}")
    blobs: LocalBlobs | S3Blobs
    if scheme is None:
        blobs = LocalBlobs(uri)
    elif scheme[1].lower() == "file":
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost"):
            raise SpecError(f"storage {uri}: a file address has three slashes, such as file:///data/sweeps")
        blobs = LocalBlobs(unquote(parts.path))
    elif scheme[1].lower() == "s3":
        blobs = S3Blobs(uri)
    else:
        raise SpecError(
            f"storage {uri}: {scheme[1]}:// is not known; use a folder, file:///folder or s3://bucket/prefix"
        )
    if not read_only:
        _check_writable(blobs)
    return blobs


def _check_writable(blobs: Blobs) -> None:
    path = f"write-test-{uuid.uuid4().hex}"
    try:
        blobs.write(path, b"raypruning")
        blobs.delete(path)
    except (StoreError, ResourceError) as error:
        cause = error.__cause__
        reason = (isinstance(cause, OSError) and cause.strerror) or " ".join(str(cause or error).split())
        raise ResourceError(f"storage {blobs.uri} cannot be written: {reason}") from error


def _checked(path: str) -> str:
    parts = path.split("/")
    if any(part in ("", ".", "..") or part.startswith(TEMPORARY) for part in parts) or "\0" in path or "\\" in path:
        raise SpecError(f"{path!r} is not a path below the storage")
    return path


class LocalBlobs:
    """A folder, on this machine or shared by all of them."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(os.path.realpath(Path(root).expanduser()))
        self.uri = str(self.root)

    def read(self, path: str, *, at_most: int = MAX_FILE_BYTES) -> bytes | None:
        """See `Blobs`."""
        place = self._locate(path)
        try:
            return read_regular(place, at_most=at_most)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise _named(error, place, "read") from error

    def write(self, path: str, data: bytes) -> None:
        """See `Blobs`. A temporary file in the same folder is synced, renamed, and its folder synced."""
        place = self._locate(path)
        try:
            try:
                self._replace(place, data)
            except FileNotFoundError:
                self._replace(place, data)  # somebody deleted the folder between its making and its use
        except OSError as error:
            raise _named(error, place, "written") from error

    def _replace(self, place: Path, data: bytes) -> None:
        _make_folder(place.parent)
        temporary = place.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, place)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_folder(place.parent)

    def exists(self, path: str) -> bool:
        """See `Blobs`."""
        return self._locate(path).is_file()

    def list(self, prefix: str = "") -> Names:
        """See `Blobs`. Links to folders are not followed."""
        return sorted(place.relative_to(self.root).as_posix() for place in self._files(prefix))

    def list_folders(self, prefix: str = "") -> Names:
        """See `Blobs`."""
        place = self._locate(prefix)
        try:
            with os.scandir(place) as entries:
                return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(TEMPORARY))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _named(error, place, "listed") from error

    def move(self, path: str, target: str) -> None:
        """See `Blobs`."""
        source, place = self._locate(path), self._locate(target)
        try:
            _make_folder(place.parent)
            os.replace(source, place)
            _sync_folder(place.parent)
            _sync_folder(source.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _named(error, source, "moved") from error

    def delete(self, path: str) -> None:
        """See `Blobs`."""
        place = self._locate(path)
        try:
            place.unlink()
            _sync_folder(place.parent)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _named(error, place, "deleted") from error

    def delete_tree(self, prefix: str) -> None:
        """See `Blobs`. The folder is renamed first, so that nobody sees half of it."""
        place = self._locate(_checked(prefix))
        if not place.is_dir():
            return
        doomed = place.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
        try:
            os.replace(place, doomed)
            _sync_folder(place.parent)
            shutil.rmtree(doomed)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _named(error, place, "deleted") from error

    def size(self, prefix: str = "") -> int | None:
        """See `Blobs`."""
        place = self._locate(prefix)
        found = _stat_of(place)
        if found is None or not stat.S_ISDIR(found.st_mode):
            return found and found.st_size
        return sum(_size_of(file) or 0 for file in self._files(prefix))

    def clean(self, *, older_than_seconds: float = 3600.0) -> int:
        """See `Blobs`. Younger ones may belong to a writer at work."""
        latest = time.time() - older_than_seconds
        num_bytes = 0
        for folder, folders, files in os.walk(self.root):
            for name in [name for name in (*folders, *files) if name.startswith(TEMPORARY)]:
                place = Path(folder, name)
                with suppress(FileNotFoundError):
                    if place.lstat().st_mtime > latest:
                        continue
                    if name in files or place.is_symlink():  # One to a folder is not followed out of here.
                        num_bytes += place.lstat().st_size
                        place.unlink()
                    else:
                        num_bytes += sum(_size_of(file) or 0 for file in place.rglob("*") if file.is_file())
                        shutil.rmtree(place)
            folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]
        return num_bytes

    def _files(self, prefix: str) -> Iterator[Path]:
        for folder, folders, files in os.walk(self._locate(prefix)):
            folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]
            yield from (Path(folder, name) for name in files if not name.startswith(TEMPORARY))

    def _has_link(self, path: str) -> bool:
        """Whether a part of a path is a link. Reports ask for ten thousand paths, and links are rare."""
        place = str(self.root)
        for part in path.split("/"):
            place = f"{place}/{part}"
            try:
                if stat.S_ISLNK(os.lstat(place).st_mode):
                    return True
            except OSError:  # There is nothing here, and so nothing below.
                return False
        return False

    def _locate(self, path: str) -> Path:
        if not path:
            return self.root
        path = _checked(path)
        place = self.root / path
        if self._has_link(path) and not Path(os.path.realpath(place)).is_relative_to(self.root):
            raise SpecError(f"{place} is a link that leaves the storage {self.root}")
        return place


def _size_of(place: Path) -> int | None:
    found = _stat_of(place)
    return found and found.st_size


def _stat_of(place: Path) -> os.stat_result | None:
    try:
        return place.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _named(error, place, "read") from error


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it so that they survive a power cut."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        _make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder)) from error
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def _named(error: OSError, place: Path, verb: str) -> ResourceError | StoreError:
    reason = error.strerror or str(error)
    if error.errno in NO_SPACE:
        return StorageFullError(f"{place} cannot be {verb}: {reason}; free some space, or see `prune-cli clean`")
    kind = ResourceError if error.errno in NOT_ALLOWED else StoreError
    return kind(f"{place} cannot be {verb}: {reason}")


# What a bucket answers when trying again cannot help; everything else (503, resets, timeouts) may pass.
_PERMANENT = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_BUCKET_NAME|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|EXPIRED_TOKEN"
    r"|SIGNATURE_DOES_NOT_MATCH|MISSING_AUTHENTICATION_TOKEN|HTTP status (301|400|401|403|405)"
)


class S3Blobs:
    """A prefix of a bucket, through pyarrow. Credentials are where AWS tools look for them, never in the address."""

    def __init__(self, uri: str, *, filesystem: Any = None, patience_seconds: float = 30.0) -> None:
        """Parse the address and make a client.

        Args:
            uri: see `open_blobs`.
            filesystem: a ready `pyarrow.fs.FileSystem` instead of one made from the address.
            patience_seconds: how long a request that fails in a way that may pass is tried again.
        """
        parts = urlsplit(uri)
        if not parts.hostname or "@" in parts.netloc:
            raise SpecError("storage: write s3://bucket/prefix; credentials belong in the environment, not the address")
        options = parse_qs(parts.query, keep_blank_values=True)
        if unknown := sorted(options.keys() - {"endpoint_override", "region", "scheme"}):
            raise SpecError(
                f"storage {uri}: {', '.join(unknown)} not known; allowed: endpoint_override, region, scheme"
            )
        path = unquote(parts.path).strip("/")
        if path:
            _checked(path)
        self.uri = uri
        self.root = f"{parts.netloc}/{path}".rstrip("/")
        self.patience_seconds = patience_seconds
        self._filesystem = filesystem or _s3_filesystem(
            parts.netloc, {key: values[-1] for key, values in options.items()}
        )

    def read(self, path: str, *, at_most: int = MAX_FILE_BYTES) -> bytes | None:
        """See `Blobs`."""

        def read() -> bytes | None:
            try:
                with self._filesystem.open_input_file(self._locate(path)) as file:
                    check_size(f"s3://{self._locate(path)}", file.size(), at_most=at_most)
                    return bytes(file.read())
            except FileNotFoundError:
                return None

        return self._patiently("read", path, read)

    def write(self, path: str, data: bytes) -> None:
        """See `Blobs`. A PUT, or a multipart upload that its last request completes, shows all or nothing."""

        def write() -> None:
            stream = self._filesystem.open_output_stream(self._locate(path))
            stream.write(data)
            stream.close()  # no `with`: leaving it by an error would complete an upload that lacks parts

        self._patiently("written", path, write)

    def exists(self, path: str) -> bool:
        """See `Blobs`."""
        return bool(self._found(path).is_file)

    def list(self, prefix: str = "") -> Names:
        """See `Blobs`."""
        return sorted(found.path.removeprefix(f"{self.root}/") for found in self._below(prefix) if found.is_file)

    def list_folders(self, prefix: str = "") -> Names:
        """See `Blobs`."""
        return sorted(found.base_name for found in self._below(prefix, recursive=False) if not found.is_file)

    def move(self, path: str, target: str) -> None:
        """See `Blobs`. A copy on the server, then a delete: both may be seen for a moment."""
        if self.exists(path):
            self._patiently("moved", path, lambda: self._filesystem.copy_file(self._locate(path), self._locate(target)))
            self.delete(path)

    def delete(self, path: str) -> None:
        """See `Blobs`."""

        def delete() -> None:
            with suppress(FileNotFoundError):
                self._filesystem.delete_file(self._locate(path))

        self._patiently("deleted", path, delete)

    def delete_tree(self, prefix: str) -> None:
        """See `Blobs`."""

        def delete() -> None:
            with suppress(FileNotFoundError):
                self._filesystem.delete_dir(self._locate(_checked(prefix)))

        self._patiently("deleted", prefix, delete)

    def size(self, prefix: str = "") -> int | None:
        """See `Blobs`."""
        if prefix and (found := self._found(prefix)).is_file:
            return int(found.size)
        files = [int(found.size) for found in self._below(prefix) if found.is_file]
        return sum(files) if files else None

    def clean(self, *, older_than_seconds: float = 3600.0) -> int:
        """Frees nothing: an interrupted upload is no object (a bucket's lifecycle rule ends those)."""
        return 0

    def _found(self, path: str) -> Any:
        return self._patiently("read", path, lambda: self._filesystem.get_file_info(self._locate(path)))

    def _below(self, prefix: str, *, recursive: bool = True) -> Sequence[Any]:
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._locate(prefix), recursive=recursive, allow_not_found=True)
        found: Sequence[Any] = self._patiently("listed", prefix, lambda: self._filesystem.get_file_info(selector))
        return found

    def _locate(self, path: str) -> str:
        return f"{self.root}/{_checked(path)}" if path else self.root

    def _patiently(self, verb: str, path: str, request: Callable[[], T]) -> T:
        """Send a request; again, with growing waits, where its failure may pass."""
        from tenacity import Retrying, retry_if_exception, stop_before_delay, wait_exponential, wait_random

        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, OSError) and not _PERMANENT.search(str(error))),
            wait=wait_exponential(multiplier=0.2, max=8.0) + wait_random(0, 0.2),  # eight tries in 30 s
            stop=stop_before_delay(self.patience_seconds),
            reraise=True,
        )
        try:
            return retrying(request)
        except OSError as error:
            reason = " ".join(str(error).split())
            kind = ResourceError if _PERMANENT.search(reason) else StoreError
            raise kind(f"s3://{self._locate(path)} cannot be {verb}: {reason}") from error


def _s3_filesystem(bucket: str, options: dict[str, str]) -> Any:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    environment = os.environ.get
    endpoint = (
        options.get("endpoint_override") or environment("AWS_ENDPOINT_URL_S3") or environment("AWS_ENDPOINT_URL") or ""
    )
    written_scheme, _, address = endpoint.rpartition("://")
    region = options.get("region") or environment("AWS_REGION") or environment("AWS_DEFAULT_REGION")
    try:
        return S3FileSystem(
            endpoint_override=address or None,
            scheme=options.get("scheme") or written_scheme or "https",
            region=region or ("us-east-1" if endpoint else resolve_s3_region(bucket)),
            # One try each, since `_patiently` counts them; a dead host is given up on in seconds.
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=1),
            connect_timeout=5,
            request_timeout=20,
            allow_delayed_open=True,  # small files go as one PUT instead of three requests
        )
    except (OSError, ValueError) as error:
        raise ResourceError(f"s3://{bucket} cannot be reached: {' '.join(str(error).split())}") from error
