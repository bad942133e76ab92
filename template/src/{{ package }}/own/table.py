"""What a table holds: each column's type, the kind of target, key and time, what to leave out."""

import keyword
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype
from pandas.tseries.api import guess_datetime_format
from pydantic import BaseModel
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.class_weight import compute_sample_weight

from .. import values
from ..errors import UserError, shown
from ..sources import EXACT, read

MOST_COLUMNS = 1000
MOST_TEXTS = 500
"""Different texts of a category: each becomes a column of the model."""
MOST_CLASSES = 100
MOST_NUMBERS = 10
"""Different whole numbers of a target that are still classes, if none is rare."""
RARE = 0.05
"""A class with a smaller share of the rows is rare."""
TELLS = 0.98
"""A column that alone predicts this well, from 0 to 1, is thought to be known only afterwards."""
SAMPLE = 4000
"""Rows that such a column shows in."""
MISSING = {"NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "?", "-", ".", "#N/A"}
"""How tables write what is missing, beside the empty cell."""
NUMBER = r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?"
TRUTHS = {"yes", "no", "true", "false", "t", "f", "y", "n"}
# What pandas calls the values of a column.
NUMBERS = {"integer", "floating", "mixed-integer-float"}
TIMES = {"datetime64", "datetime", "date"}
IDENTIFIER = re.compile(r"(^|[\W_])(id|key|uuid|guid)$|[a-z](Id|ID)$", re.IGNORECASE)
COUNTER = re.compile(r"unnamed: \d+|index|rownames?|row[ _]?(id|number)", re.IGNORECASE)


@dataclass
class Column:
    """A column of the table, and what becomes of it."""

    name: str
    """As the table has it."""
    field: str
    """As Features has it."""
    type: str = ""
    """float, bool, str or datetime; empty if it is left out."""
    missing: bool = False
    out: str = ""
    """Why it is left out."""
    form: str = ""
    """How its times are written, if not as ISO 8601."""
    example: Any = None

    def times(self, data: pd.Series) -> pd.Series:
        """The values of a column of times."""
        if self.form:
            return pd.to_datetime(data.astype("str"), format=self.form)
        return values.times(data, self.name)

    def leave(self, why: str) -> None:
        """Leaves it out."""
        self.type, self.out = "", why


@dataclass
class Plan:
    """What is written."""

    source: str
    target: str
    kind: str
    """Of the target: two, two rare, many, many rare, counts or number."""
    about: str
    """The target in words."""
    rarest: int
    """The number of the rarest class."""
    rows: int
    labelled: int
    csv: dict[str, Any] | None
    """The options of read_csv that the table needs; None if it is no CSV."""
    columns: list[Column] = field(default_factory=list)
    key: str | None = None
    time: Column | None = None
    parts: list[str] = field(default_factory=list)
    """What the model sees of the time: hour, weekday, month."""

    @property
    def fields(self) -> list[Column]:
        """The columns of the contract."""
        return [column for column in self.columns if column.type]


def plan(uri: str, target: str, key: str = "", time: str = "", *, classifies: bool = True) -> Plan:
    """Reads a table and decides; raises UserError where it cannot.

    `classifies` says how a few whole numbers are understood: as classes or as numbers.
    """
    if shown(uri) != uri:
        raise UserError(
            f"{shown(uri)}: has a secret in it, which project/data.py would keep; give it in the "
            "driver's own environment variable, such as PGPASSWORD"
        )
    csv = dialect(uri) if uri.endswith((".csv", ".csv.gz")) else None
    frame = read(uri, csv)
    names = [str(name) for name in frame]
    frame.columns = pd.Index(names)
    _named(names, uri, {"TARGET": target, "KEY": key, "TIME": time})
    for name in names:
        if (kept := infer_dtype(frame[name])) == "categorical":
            frame[name] = frame[name].astype(object).infer_objects()
        elif kept == "decimal":
            frame[name] = frame[name].astype(float)
    rows, frame = len(frame), frame.dropna(subset=[target]).reset_index(drop=True)
    if frame.empty:
        raise UserError(f"TARGET={target}: holds no value in any row")
    labels = values.labels(frame[target], f"TARGET={target}")
    kind, about = _kind(labels, target, classifies)
    rarest = sorted(labels.unique()).index(labels.value_counts().index[-1])
    made = Plan(uri, target, kind, about, rarest, rows, len(frame), csv)
    taken = {target, "datetime", "float", "str", "bool"}
    for name in filter(target.__ne__, names):
        column = Column(name, _field(name, taken))
        taken.add(column.field)
        made.columns.append(column)
        _look(column, frame[name], years=name == time and csv is not None)
    _key(made, frame, key)
    _time(made, frame, time)
    _leaks(made, frame, labels)
    if not made.parts and all(column is made.time for column in made.fields):
        why = "; ".join(f"{column.name}: {column.out}" for column in made.columns[:3])
        raise UserError(f"{uri}: no column is left to predict {target} from ({why})")
    return made


def dialect(uri: str) -> dict[str, Any]:
    """The options of read_csv that a file needs, where they are not the defaults."""
    csv: dict[str, Any] = {}
    try:  # the header decides: what makes the most columns of it separates them
        tops = {sep: pd.read_csv(uri, sep=sep, nrows=0, encoding="latin-1") for sep in ",;\t|"}
        sep = max(tops, key=lambda sep: tops[sep].shape[1])
        csv |= {"sep": sep} if sep != "," else {}
    except (OSError, ValueError):
        pass  # reading all of it says why
    try:
        texts = read(uri, csv | {"dtype": str})
    except UserError as error:
        if not isinstance(error.__context__, UnicodeDecodeError):
            raise
        csv["encoding"] = "cp1252"
        texts = read(uri, csv | {"dtype": str})
    marks, points, padded = set[str](), set[str](), []
    if texts.shape[1] > MOST_COLUMNS:
        return csv  # which is refused
    for name, column in texts.items():
        filled = column.drop_duplicates().dropna()
        number = filled.str.fullmatch(NUMBER)
        if number.any() and MISSING.issuperset(filled[~number]):
            marks |= {*filled[~number]}
            points |= {p for p in ",." if filled[number].str.contains(p, regex=False).any()}
        if filled.str.fullmatch(r"0\d+").any():
            padded.append(name)
    csv |= {"na_values": sorted(marks)} if marks else {}
    csv |= {"decimal": ","} if csv.get("sep") == ";" and points == {","} else {}
    return csv | {"dtype": dict.fromkeys(padded, str)}  # a code such as 02134 keeps its zero


def _named(names: list[str], uri: str, options: dict[str, str]) -> None:
    """Raises UserError for a table that is too narrow or wide, or lacks what an option names."""
    if not 1 < len(names) <= MOST_COLUMNS:
        raise UserError(
            f"{uri}: has {len(names):,} column{'s' * (len(names) > 1)}; a model takes the target "
            f"and from 1 to {MOST_COLUMNS:,} more: write a table of those that matter"
        )
    for option, name in options.items():
        if name not in names and (name or option == "TARGET"):
            raise UserError(
                f"{option}={name}: is no column of {uri}; it has {', '.join(names[:20])}"
            )
    given = [name for name in options.values() if name]
    if len({*given}) < len(given):
        raise UserError("TARGET, KEY and TIME must be columns of their own")


def _field(name: str, taken: set[str]) -> str:
    """A field's name for a column: its own where it can be one; "Preço (R$)" is preço_r."""
    made = unicodedata.normalize("NFKC", name)
    if not made.isidentifier() or made.startswith("_"):
        made = re.sub(r"\W+", "_", made.lower()).strip("_")
        made = made if made and not made[0].isdigit() else f"column_{made}"
    own = keyword.iskeyword(made) or hasattr(BaseModel, made) or made.startswith("model_")
    while own or made in taken:
        made, own = f"{made}_", False
    return made


def _kind(labels: pd.Series, target: str, classifies: bool) -> tuple[str, str]:
    """Of the target: its kind, and what it is in words; raises UserError for what is no target."""
    counts = labels.value_counts()
    if len(counts) < 2:
        raise UserError(
            f"TARGET={target}: is {labels.iloc[0]} in every row: there is nothing to learn"
        )
    numeric = infer_dtype(labels) in NUMBERS
    whole = numeric and (labels % 1 == 0).all()
    rare = counts.iloc[-1] < RARE * len(labels)
    classes = len(counts) == 2 or (len(counts) <= MOST_NUMBERS and classifies and not rare)
    if numeric and not (whole and classes):
        return ("counts", "counts") if whole and labels.min() in (0, 1) else ("number", "a number")
    if len(counts) > max(2, min(MOST_CLASSES, len(labels) / 4)):
        raise UserError(
            f"TARGET={target}: {len(counts):,} different texts in {len(labels):,} rows are neither "
            "classes nor numbers; group them in the table"
        )
    most = ", ".join(f"{name} {n:,}" for name, n in counts.head(5).items())
    more = f", ..., {counts.index[-1]} {counts.iloc[-1]:,}" * (len(counts) > 5)
    kind = "two" if len(counts) == 2 else "many"
    return kind + (" rare" if rare else ""), f"{len(counts)} classes: {most}{more}"


def _look(column: Column, data: pd.Series, *, years: bool) -> None:
    """Fills in the type and an example, or the reason to leave it out."""
    filled = data.dropna()
    kind = infer_dtype(filled)
    column.missing = len(filled) < len(data)
    if filled.empty:
        column.out = "is empty"
    elif kind not in {*NUMBERS, *TIMES, "boolean", "string"}:
        column.out = f"holds values of different kinds ({kind})"
    elif filled.nunique() == 1 and not column.missing:
        column.out = f"is {values.cut(values.plain(filled.head(1))[0])} in every row"
    elif kind in TIMES:
        column.type = "datetime"
    elif years and kind in NUMBERS and filled.between(1000, 9999).all():
        column.type, column.form = "datetime", "%Y" if kind == "integer" else "%Y.0"
    elif kind == "boolean" or (kind == "string" and TRUTHS.issuperset(filled.str.lower().unique())):
        column.type = "bool"
    elif kind == "string":
        _text(column, filled)
    else:
        _number(column, filled)
    if column.type == "datetime":
        column.example = column.times(filled.head(1)).iloc[0].isoformat()
    else:
        column.example = next(iter(values.plain(filled.head(1))), None)


def _number(column: Column, filled: pd.Series) -> None:
    numbers = filled.astype(float)
    rising = numbers.is_monotonic_increasing and (numbers % 1 == 0).all()
    if numbers.abs().max() > EXACT:
        column.out = "holds infinity, or integers that float64 rounds"
    elif numbers.is_unique and (rising or COUNTER.fullmatch(column.name)):
        column.out = "numbers the rows"
    else:
        column.type = "float"


def _text(column: Column, filled: pd.Series) -> None:
    different = filled.drop_duplicates()
    try:
        values.times(different, column.name)
        forms = [""]
    except UserError:
        forms = _forms(different)
    if len(forms) == 1:
        column.type, column.form = "datetime", forms[0]
    elif forms:
        column.out = f"{values.cut(filled.iloc[0])}: day or month first? Parse it in clean()"
    elif len(different) > max(20, min(len(filled) / 2, MOST_TEXTS)):
        column.out = f"{len(different):,} different texts: free, an identifier, or to be grouped"
    else:
        column.type = "str"


def _forms(texts: pd.Series) -> list[str]:
    """The formats of dates, such as %d/%m/%Y, in which all texts can be read."""
    guesses = {guess_datetime_format(texts.iloc[0], dayfirst=first) for first in (True, False)}
    dates = [form for form in guesses if form and re.search("%[yY]", form)]
    return [f for f in dates if pd.to_datetime(texts, format=f, errors="coerce").notna().all()]


def _key(made: Plan, frame: pd.DataFrame, wanted: str) -> None:
    """Takes the key: the one that is asked for, or an identifier that is another in every row."""
    for column in made.columns:
        data = frame[column.name]
        named = IDENTIFIER.search(column.name) and infer_dtype(data) in ("integer", "string")
        if column.name == wanted or (named and data.is_unique and not wanted and not made.key):
            values.keys(data, f"KEY={column.name}")
            made.key = column.name
            column.leave("KEY names the rows")
        elif named and column.type and data.nunique() > len(data) / 2:
            column.leave(f"an identifier; KEY={column.name} makes it the key")


def _time(made: Plan, frame: pd.DataFrame, wanted: str) -> None:
    """Takes the time: the one that is asked for, or the only one; others are left out."""
    times = [column for column in made.fields if column.type == "datetime"]
    whole = [c for c in times if not c.missing and (made.csv is not None or not c.form)]
    chosen = [column for column in whole if column.name == wanted or not wanted]
    if wanted and not chosen:
        why = "has empty cells" if frame[wanted].isna().any() else "holds no times"
        raise UserError(
            f"TIME={wanted}: {why}; write them as ISO 8601, such as 2013-01-01T06:00:00Z"
        )
    for column in times:
        if [column] != chosen:
            how = f"TIME={column.name} takes it" if column in whole else "parse it in clean()"
            column.leave(f"a time; {how}")
    if len(chosen) == 1:
        (made.time,) = chosen
        at = made.time.times(frame[made.time.name])
        if made.time.form:
            made.csv = {**(made.csv or {}), "parse_dates": [made.time.name]}
            made.csv["date_format"] = made.time.form
        again = at.max() - at.min() > pd.Timedelta(days=400)
        tells = {
            "hour": (at.dt.normalize() != at).any(),
            "weekday": at.dt.day.nunique() > 1,
            "month": again and at.dt.month.nunique() > 1,
        }
        made.parts = [part for part, does in tells.items() if does]


def _leaks(made: Plan, frame: pd.DataFrame, labels: pd.Series) -> None:
    """Leaves out what says the target: the same by another name, or known only afterwards."""
    some = labels.sample(min(len(labels), SAMPLE), random_state=0)
    classes = made.kind not in ("counts", "number")
    actual = pd.factorize(some)[0] if classes else some.to_numpy(float)
    for column in made.fields:
        data = frame[column.name].loc[some.index]
        numbers = column.type == "float"
        inputs = data.to_numpy(float, na_value=np.nan) if numbers else pd.factorize(data)[0]
        if column is not made.time and _told(inputs, actual, classes) >= TELLS:
            column.leave(f"predicts {made.target} alone: is it known only afterwards?")


def _told(inputs: np.ndarray, actual: np.ndarray, classes: bool) -> float:
    """How well a tree on one column predicts one half of the rows by the other: 1 is perfectly."""
    half = len(actual) // 2
    if half < 2 or len(np.unique(actual[half:])) < 2:
        return 0.0
    matrix = np.clip(inputs.astype(float), -1e38, 1e38)[:, None]  # what float32 holds
    kind = DecisionTreeClassifier if classes else DecisionTreeRegressor
    tree = kind(min_samples_leaf=3, random_state=0).fit(matrix[:half], actual[:half])
    weights = compute_sample_weight("balanced", actual[half:]) if classes else None
    return float(tree.score(matrix[half:], actual[half:], weights))
