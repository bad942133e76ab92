"""Files, whatever they hold."""

import hashlib
import uuid
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Writes a text, whole or not at all, whoever else writes it; makes its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
