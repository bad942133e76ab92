"""Reads and writes tables: CSV, Parquet, SQL, on disk or wherever fsspec reaches."""

from pathlib import Path
from typing import Any

import pandas as pd

from .contract import KINDS
from .errors import UserError, reason, shown

CSV: dict[str, Any] = {
    "keep_default_na": False,
    "na_values": [""],
    "dtype": {name: str for name, kind in KINDS.items() if kind == "category"},
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


def read(uri: str) -> pd.DataFrame:
    """All rows of a CSV or Parquet file, or of a SQL table given as URL#TABLE.

    Credentials come from the environment: the database driver's own variables, or the object
    store's. Raises UserError when the source cannot be read or holds no row.
    """
    try:
        if is_sql(uri):
            import sqlalchemy as sa

            url, table = split_sql(uri)
            with sa.create_engine(url).connect() as connection:
                frame = pd.read_sql_table(table, connection)
        elif uri.endswith((".csv", ".csv.gz")):
            frame = pd.read_csv(uri, **CSV)
        elif uri.endswith((".parquet", ".pq")):
            frame = pd.read_parquet(uri)
        else:
            raise UserError(
                f"{shown(uri)}: is not a source; use .csv, .csv.gz, .parquet or URL#TABLE"
            )
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(
            f"{shown(uri)}: no such file, looked from {Path.cwd()}; set DATA_URI"
        ) from None
    except Exception as error:
        raise UserError(f"{shown(uri)}: cannot be read: {reason(error, uri)}") from None
    if frame.empty:
        raise UserError(f"{shown(uri)}: holds no rows")
    return frame
