"""Reads and writes tables: CSV, Parquet, SQL, on disk or wherever fsspec reaches."""

from pathlib import Path

import pandas as pd

from .errors import UserError


def is_sql(uri: str) -> bool:
    """Whether `uri` is a database's address, such as postgresql+psycopg://host/db#table."""
    scheme = uri.partition("://")[0]
    return scheme.partition("+")[0] in {"postgresql", "sqlite", "mysql", "mssql", "oracle"}


def split_sql(uri: str) -> tuple[str, str]:
    """The database's URL and the table; raises UserError where the table is not named."""
    url, _, table = uri.partition("#")
    if not table:
        raise UserError(f"{uri}: names no table; write URL#TABLE")
    return url, table


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
            frame = pd.read_csv(uri, keep_default_na=False, na_values=[""])
        elif uri.endswith((".parquet", ".pq")):
            frame = pd.read_parquet(uri)
        else:
            raise UserError(f"{uri}: is not a source; use .csv, .csv.gz, .parquet or URL#TABLE")
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{uri}: no such file, looked from {Path.cwd()}; set DATA_URI") from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{uri}: cannot be read: {reason}") from None
    if frame.empty:
        raise UserError(f"{uri}: holds no rows")
    return frame
