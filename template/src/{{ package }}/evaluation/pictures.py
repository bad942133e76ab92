"""Pictures as files, without a display."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # the backend must be chosen first


@contextmanager
def panels(path: Path, size: tuple[float, float], number: int = 1) -> Iterator[list[Any]]:
    """Axes to draw in, side by side; what is drawn is saved as `path`. The size is in inches."""
    figure, (row,) = plt.subplots(1, number, figsize=size, sharey=True, squeeze=False)
    yield list(row)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)
