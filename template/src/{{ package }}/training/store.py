"""The store, [data] store: the snapshot of each registered version, named by its digest.

It is a folder, or an address that fsspec supports, such as s3://bucket/path. A snapshot is stored
completely or not at all, and its digest is checked when it is fetched.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import StoreUnavailable, UserError, reason, shown
from ..files import sha256, whole
from ..settings import PACKAGE

ATOMIC = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}
"""Protocols that show a file only when it is complete. Elsewhere a file is renamed at the end."""
MIN_AGE = 86_400
"""Seconds before a snapshot may be deleted: a training may be about to register a version."""


def keep(snapshot: Path, url: str) -> None:
    """Puts a snapshot into the store; raises StoreUnavailable if that fails.

    A complete copy there is written again only if it is older than half of MIN_AGE.
    """
    with _opened(url) as (files, root):
        target = f"{root}/{snapshot.name}"
        whole = files.exists(target) and files.size(target) == snapshot.stat().st_size
        if whole and _age(files, target) < MIN_AGE / 2:
            return
        if url.partition("://")[0] in ATOMIC:
            files.put_file(str(snapshot), target)
            return
        files.makedirs(root, exist_ok=True)
        draft = f"{root}/.{snapshot.name}.{uuid.uuid4().hex}"
        try:
            files.put_file(str(snapshot), draft)
            files.mv(draft, target)
        finally:
            with suppress(Exception):  # it was renamed, or the error above matters more
                files.rm_file(draft)


def check(url: str) -> None:
    """Raises StoreUnavailable if the store does not answer: better before a training than after."""
    with _opened(url) as (files, root):
        files.exists(root)


def fetch(digest: str, url: str, to: Path) -> None:
    """Copies a snapshot from the store to `to`, completely or not at all; raises UserError."""
    with whole(to) as draft:
        with _opened(url) as (files, root):
            files.get_file(f"{root}/{digest}.parquet", str(draft))
        if not sha256(draft).startswith(digest):
            raise UserError(
                f"snapshot {digest[:12]} in {shown(url)} was changed or cut short: its digest does "
                "not match; delete it there, and put a complete copy in its place"
            )


def digests(url: str, seconds: float = 0) -> list[str]:
    """The snapshots in the store that are at least so many seconds old."""
    with _opened(url) as (files, root):
        paths = files.ls(root, detail=False) if files.exists(root) else []
        found = {Path(path).stem: path for path in paths if path.endswith(".parquet")}
        return sorted(name for name, path in found.items() if _age(files, path) >= seconds)


def remove(digest: str, url: str) -> None:
    """Deletes a snapshot from the store, if nobody wrote it anew since it was found to be old."""
    with _opened(url) as (files, root):
        target = f"{root}/{digest}.parquet"
        if _age(files, target) >= MIN_AGE:
            files.rm_file(target)


def _age(files: Any, path: str) -> float:
    return time.time() - files.modified(path).timestamp()


@contextmanager
def _opened(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of a store, and the folder of this project's snapshots in it.

    Raises StoreUnavailable, in one line, for whatever the store's client raises.
    """
    import fsspec

    try:
        files, root = fsspec.url_to_fs(url)
        files.invalidate_cache()
        yield files, f"{root.rstrip('/')}/{PACKAGE}"
    except UserError:
        raise
    except Exception as error:  # each client has errors of its own
        message = f"[data] store = {shown(url)}: {reason(error, url)}"
        if isinstance(error, ImportError):  # it names the package
            message += "; add it to `train` in pyproject.toml, then run `make lock`"
        raise StoreUnavailable(message) from None
