"""Reads a pickle and writes it as skops: `python -m ... IN OUT`.

A pickle can run any code as it is read, so that happens here, in a process of its own, and what
goes on is a skops file, which holds no code. Ends with 1 and a line on stderr where that cannot be,
as where the model was written by another scikit-learn than this one.
"""

import sys
import warnings

import joblib
import skops.io
from sklearn.exceptions import InconsistentVersionWarning


def main() -> None:
    """Reads and writes."""
    warnings.simplefilter("error", InconsistentVersionWarning)
    try:
        skops.io.dump(joblib.load(sys.argv[1]), sys.argv[2])
    except InconsistentVersionWarning as warning:
        sys.exit(f"it was written by scikit-learn {warning.original_sklearn_version}")
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


if __name__ == "__main__":
    main()
