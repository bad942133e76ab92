"""Files, whatever they hold."""

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A draft that becomes the file at `path` in the end, and is removed if anything fails.

    So the file is there whole or as it was, whoever else writes it. Makes its folder if need be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    """Writes a text, whole or not at all, whoever else writes it; makes its folder if need be."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
