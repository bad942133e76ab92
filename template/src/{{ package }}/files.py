"""Files, whatever they hold."""

import hashlib
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Writes a text, whole or not at all; makes its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
