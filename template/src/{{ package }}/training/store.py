"""The store, [data] store: each snapshot that a registered version was trained on, by its digest.

It is a folder, or an address that fsspec knows, such as s3://bucket/path. A snapshot is there whole
or not at all, and it must have its digest when it is fetched.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import StoreUnavailable, UserError, reason, shown
from ..files import sha256
from ..settings import PACKAGE

ATOMIC = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}
"""Where a file is there only once all of it was written. Elsewhere it gets its name last."""
SPARED = 86_400
"""Seconds for which nothing that was written may go: a version may be about to need it."""


def keep(snapshot: Path, url: str) -> None:
    """Puts a snapshot into the store; raises StoreUnavailable where that fails.

    One that is there already is written again once half of SPARED has passed.
    """
    with _opened(url) as (files, root):
        target = f"{root}/{snapshot.name}"
        whole = files.exists(target) and files.size(target) == snapshot.stat().st_size
        if whole and _age(files, target) < SPARED / 2:
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
            with suppress(Exception):  # it has its name, or what happened counts more
                files.rm_file(draft)


def check(url: str) -> None:
    """Raises StoreUnavailable where the store does not answer, so that nobody trains in vain."""
    with _opened(url) as (files, root):
        files.exists(root)


def fetch(digest: str, url: str, to: Path) -> None:
    """Puts a snapshot of the store at `to`, whole or not at all; raises UserError."""
    draft = to.with_name(f".{to.name}.{uuid.uuid4().hex}")
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _opened(url) as (files, root):
            files.get_file(f"{root}/{digest}.parquet", str(draft))
        if not sha256(draft).startswith(digest):
            raise UserError(
                f"snapshot {digest[:12]} in {shown(url)} was changed or cut short: its digest is "
                "another; delete it there, and put a whole copy in its place"
            )
        draft.replace(to)
    finally:
        draft.unlink(missing_ok=True)


def digests(url: str, seconds: float = 0) -> list[str]:
    """The snapshots that were written into the store so many seconds ago, or earlier."""
    with _opened(url) as (files, root):
        paths = files.ls(root, detail=False) if files.exists(root) else []
        found = {Path(path).stem: path for path in paths if path.endswith(".parquet")}
        return sorted(name for name, path in found.items() if _age(files, path) >= seconds)


def remove(digest: str, url: str) -> None:
    """Deletes a snapshot from the store, if nobody wrote it anew since it was found to be old."""
    with _opened(url) as (files, root):
        target = f"{root}/{digest}.parquet"
        if _age(files, target) >= SPARED:
            files.rm_file(target)


def _age(files: Any, path: str) -> float:
    return time.time() - files.modified(path).timestamp()


@contextmanager
def _opened(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of a store, and its folder for this project's snapshots in it.

    Raises StoreUnavailable, in a line, for whatever the store's client raises.
    """
    import fsspec

    try:
        files, root = fsspec.url_to_fs(url)
        files.invalidate_cache()
        yield files, f"{root.rstrip('/')}/{PACKAGE}"
    except UserError:
        raise
    except Exception as error:  # each client has errors of its own
        told = f"[data] store = {shown(url)}: {reason(error, url)}"
        if isinstance(error, ImportError):  # it names the package
            told += "; add it to `train` in pyproject.toml, then run `make lock`"
        raise StoreUnavailable(told) from None
