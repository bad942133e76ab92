"""Reads and writes tables: CSV, Parquet, SQL, on disk or wherever fsspec reaches."""

from collections.abc import Iterator
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from .contract import ALIASES, KINDS
from .errors import UserError, reason, shown
from .project.features import KEY

EXACT = 2**53
"""Above this float64 does not hold every integer."""
_TEXTS = [name for name, kind in KINDS.items() if kind == "category"]
if KEY and KEY not in KINDS:
    _TEXTS.append(KEY)
CSV: dict[str, Any] = {
    "keep_default_na": False,
    "na_values": [""],
    "low_memory": False,  # or each megabyte would have types of its own
    "dtype": {name: str for text in _TEXTS for name in (text, *ALIASES.get(text, ()))},
}
"""How a CSV is read: only what is empty is missing, and a code such as 02134 keeps its zero."""


def is_sql(uri: str) -> bool:
    """Whether `uri` is a database's address, such as postgresql+psycopg://host/db#table."""
    scheme = uri.partition("://")[0]
    return scheme.partition("+")[0] in {"postgresql", "sqlite", "mysql", "mssql", "oracle"}


def split_sql(uri: str) -> tuple[str, str]:
    """The database's URL and the table; raises UserError where the table is not named."""
    url, _, table = uri.partition("#")
    if not table:
        raise UserError(f"{shown(uri)}: names no table; write URL#TABLE")
    return url, table


def engine(url: str) -> Any:
    """A database where every statement, those that make tables too, is part of a transaction."""
    import sqlalchemy as sa

    made = sa.create_engine(url)
    if made.dialect.name == "sqlite":  # whose driver would commit before and after such a one

        @sa.event.listens_for(made, "connect")
        def _(connection: Any, _: Any) -> None:
            connection.isolation_level = None

        @sa.event.listens_for(made, "begin")
        def _(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN")

    return made


def read(uri: str, csv: dict[str, Any] | None = None) -> pd.DataFrame:
    """All rows of a CSV or Parquet file, or of a SQL table given as URL#TABLE.

    Credentials come from the environment: the database driver's own variables, or the object
    store's. `CSV` in project/data.py, where there is one, holds options of pandas.read_csv; `csv`
    takes the place of these and of what the contract says.
    Raises UserError when the source cannot be read or holds no row.
    """
    frame = next(partitions(uri, None, csv), None)
    if frame is None or frame.empty:
        raise UserError(f"{shown(uri)}: holds no rows")
    return frame


def partitions(
    uri: str, size: int | None, csv: dict[str, Any] | None = None
) -> Iterator[pd.DataFrame]:
    """The rows of a source as `read` gives them, at most `size` at a time; all at once if None."""
    try:
        for frame in _frames(uri, size, csv):
            yield plain(frame)
    except UserError as error:
        raise UserError(f"{shown(uri)}: {error}") from None
    except FileNotFoundError:
        raise UserError(
            f"{shown(uri)}: cannot be read: no such file, looked from {Path.cwd()}"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{shown(uri)}: cannot be read: {error.reason} at byte {error.start}, so it is not "
            'UTF-8; name its encoding in project/data.py: CSV = {"encoding": "latin-1"}'
        ) from None
    except Exception as error:
        raise UserError(f"{shown(uri)}: cannot be read: {reason(error, uri)}") from None


def count(uri: str) -> int | None:
    """How many rows a source has, where that is known without reading it."""
    import pyarrow as pa

    if not Path(uri).exists() or not (Path(uri).is_dir() or uri.endswith((".parquet", ".pq"))):
        return None
    try:
        return int(_parts(uri).count_rows())
    except (OSError, pa.ArrowException):  # who reads it says what is wrong
        return None


def _frames(uri: str, size: int | None, csv: dict[str, Any] | None) -> Iterator[pd.DataFrame]:
    """As pandas reads them, with types that keep an integer beside a missing value."""
    if is_sql(uri):
        import sqlalchemy as sa

        url, table = split_sql(uri)
        with sa.create_engine(url).connect() as connection:
            found: Any = pd.read_sql_table(
                table, connection, chunksize=size, dtype_backend="numpy_nullable"
            )
            yield from [found] if size is None else found
    elif uri.endswith((".csv", ".csv.gz")):
        options = csv_options(uri, csv)
        found = pd.read_csv(uri, chunksize=size, dtype_backend="numpy_nullable", **options)
        for frame in [found] if size is None else found:
            if "index_col" not in options and not isinstance(frame.index, pd.RangeIndex):
                raise UserError("has rows with more fields than its header names")
            yield frame
    elif not uri.endswith((".parquet", ".pq")) and not Path(uri).is_dir():
        raise UserError(
            "is not a source; use .csv, .csv.gz, .parquet, .pq, a folder of Parquet files or "
            "URL#TABLE (save a sheet of Excel as CSV; unpack an archive)"
        )
    elif size is None:
        yield pd.read_parquet(uri, dtype_backend="numpy_nullable")
    else:
        import pyarrow as pa

        types = {
            pa.type_for_alias(name.lower()): pd.api.types.pandas_dtype(name)
            for name in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
        }
        for batch in _batches(uri, size):
            yield batch.to_pandas(types_mapper=types.get)


def _parts(uri: str) -> Any:
    """The parts of one table: the Parquet files of a folder, or one file."""
    import pyarrow.dataset as ds

    return ds.dataset(uri, format="parquet", partitioning="hive")


def _batches(uri: str, size: int) -> Iterator[Any]:
    import pyarrow.parquet as pq

    if Path(uri).is_dir():
        batches = _parts(uri).to_batches(batch_size=size, batch_readahead=1, fragment_readahead=1)
        yield from (batch for batch in batches if batch.num_rows)
        return
    # where an address is no path pandas asks for fsspec, too
    at = import_module("fsspec").open(uri) if "://" in uri else nullcontext(uri)
    with at as file, pq.ParquetFile(file) as parquet:
        yield from parquet.iter_batches(size)


def csv_options(uri: str, csv: dict[str, Any] | None = None) -> dict[str, Any]:
    """The options of read_csv; raises UserError where the header has a name twice."""
    from .project import data as project  # which imports this module

    own = getattr(project, "CSV", {}) if csv is None else csv
    dtype = own.get("dtype", {})
    if isinstance(dtype, dict) and csv is None:
        dtype = {**CSV["dtype"], **dtype}
    options = {**CSV, **own, "dtype": dtype}
    more = options["na_values"]
    if isinstance(more, str | list | tuple | set):  # what is empty is missing whatever else is
        options["na_values"] = [*CSV["na_values"], *([more] if isinstance(more, str) else more)]
    if {"names", "header"} & own.keys():
        return options
    top = pd.read_csv(uri, nrows=0, **options | {"parse_dates": False})
    names = [str(name) for name in top]
    if isinstance(times := options.get("parse_dates"), list):  # a file of labels may lack them
        options["parse_dates"] = [name for name in times if name in names]
    if any(f"{name}.1" in names for name in names):  # so pandas calls the second of a name
        plain = {k: v for k, v in own.items() if k in ("sep", "delimiter", "encoding", "skiprows")}
        top = pd.read_csv(uri, nrows=1, header=None, dtype=str, keep_default_na=False, **plain)
        _once(top.iloc[0].tolist())
    return options


def _once(names: list[Any]) -> None:
    if twice := sorted({str(name) for name in names if names.count(name) > 1}):
        raise UserError(f"has more than one column {', '.join(twice)}; rename or drop one")


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Usual types, but integers beside missing values stay integers where floats would round.

    Raises UserError for two columns of one name.
    """
    if frame.index.names != [None]:
        frame = frame.reset_index()
    _once(list(frame.columns))
    for name, column in frame.items():
        kind: Any = column.dtype
        if isinstance(kind, pd.ArrowDtype) or getattr(kind, "na_value", None) is not pd.NA:
            continue
        if isinstance(kind, pd.StringDtype):
            frame[name] = column.astype("str")
        elif not column.hasnans:
            frame[name] = column.astype(kind.numpy_dtype)
        elif pd.api.types.is_bool_dtype(kind):
            frame[name] = column.astype(object).where(column.notna(), None)
        elif (
            pd.api.types.is_float_dtype(kind) or column.isna().all() or column.abs().max() <= EXACT
        ):
            frame[name] = column.astype("float64")
    return frame.reset_index(drop=True)
