"""`make own`: what it sees in a table, and what it writes for it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from flight_delays import own as package_of_own
from flight_delays.cli.app import app
from flight_delays.errors import UserError
from flight_delays.own import code
from flight_delays.own.table import MOST_COLUMNS, Plan, plan

from ..helpers import inside
from .conftest import Another

ROOT = Path(str(package_of_own.__file__)).parents[3]
N = 400


def customers(**columns: Any) -> pd.DataFrame:
    """A table that has one of everything."""
    random = np.random.default_rng(0)
    age = random.integers(18, 80, N)
    made = {
        "customer.id": [f"C{i:05}" for i in random.permutation(N)],
        "since": pd.date_range("2023-01-01", periods=N, freq="7h").strftime("%d/%m/%Y %H:%M"),
        "age": age,
        "class": random.choice(["gold", "silver"], N),
        "Preço (R$)": random.integers(1000, 9000, N) / 4,
        "zip": random.choice(["02134", "10001"], N),
        "vip": random.choice(["yes", "no"], N),
        "score": np.where(random.random(N) < 0.2, "NA", random.integers(0, 9, N).astype(str)),
        "remark": [f"called on day {i}" for i in range(N)],
        "line": np.arange(N) * 2,
        "source": "web",
        "churned": np.where(age + random.normal(0, 9, N) > 50, "yes", "no"),
    }
    return pd.DataFrame(made | columns)


def planned(folder: Path, frame: pd.DataFrame, target: str = "churned", **how: Any) -> Plan:
    frame.to_csv(folder / "rows.csv", index=False)
    return plan(str(folder / "rows.csv"), target, **how)


def types(made: Plan) -> dict[str, str]:
    return {column.name: column.type for column in made.fields}


def reasons(made: Plan) -> dict[str, str]:
    return {column.name: column.out for column in made.columns if column.out}


def written(made: Plan, to: Path) -> dict[str, str]:
    """The files by their name, as they end up: clean by the project's own rules."""
    with inside(ROOT):
        texts = code.files(made, "flight_delays")
    (to / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    for path, text in texts.items():
        (to / path).parent.mkdir(parents=True, exist_ok=True)
        (to / path).write_text(text)
    with inside(to):
        code.tidy(list(texts))
        ruff = [sys.executable, "-m", "ruff", "check", "--quiet", "."]
        assert not subprocess.run(ruff, check=False).returncode
    return {Path(path).name: (to / path).read_text() for path in texts}


def test_each_column_has_its_type_or_a_reason(tmp_path: Path) -> None:
    made = planned(tmp_path, customers())
    assert types(made) == {
        **{"since": "datetime", "age": "float", "class": "str", "Preço (R$)": "float"},
        **{"zip": "str", "vip": "bool", "score": "float"},
    }
    assert [column.name for column in made.fields if column.missing] == ["score"]
    assert made.time
    assert (made.key, made.time.name, made.kind) == ("customer.id", "since", "two")
    out = reasons(made)
    assert out["source"] == "is 'web' in every row"
    assert out["line"] == "numbers the rows"
    assert "free, an identifier" in out["remark"]


def test_what_is_written_reads_the_table_and_trains(tmp_path: Path, another: Another) -> None:
    where = tmp_path / "rows.csv"
    frame = customers().rename(columns={"since": "Desde (dia)"})
    frame.to_csv(where, index=False, sep=";", decimal=",", encoding="latin-1")
    texts = written(plan(str(where), "churned"), tmp_path)
    assert "noqa" not in "".join(texts.values())
    assert 'class_: str = Field(alias="class"' in texts["features.py"]
    assert 'preço_r: float = Field(alias="Preço (R$)"' in texts["features.py"]
    assert "# - remark: 400 different texts" in texts["features.py"]
    package = another("pass")
    for name in ("features", "target", "data", "metrics", "model"):
        (tmp_path / "another" / "project" / f"{name}.py").write_text(texts[f"{name}.py"])
    settings = package("settings").load(journal={"url": ""}, train={"windows": [1.0], "folds": 1})
    frame = package("training.snapshots").snapshot(settings).read()
    assert frame["preço_r"].between(250, 2250).all()
    assert frame["desde_dia"].is_monotonic_increasing
    assert frame["desde_dia"].iloc[-1] == pd.Timestamp("2023-04-27 09:00")
    judged = package("training.fitting").judge(frame, settings.train)
    assert judged.table.categories == ["class_", "zip"]
    assert judged.table.numbers[-2:] == ["desde_dia_hour", "desde_dia_weekday"]
    (value,) = judged.tried.values()
    assert value > 0.8
    # the table of examples, as training leaves it, is read in the same way
    examples = [{"customer.id": "1", "Desde (dia)": "2023-01-01T05:00:00", "Preço (R$)": 1.5}]
    package("cli.lifecycle").write_examples(
        type("Bundle", (), {"examples": [{"features": row} for row in examples]})
    )
    read = package("sources").read("reports/example.csv")
    assert read.to_dict("records") == examples


def test_labels_may_lack_the_time_that_the_table_has(tmp_path: Path, another: Another) -> None:
    load = 'CSV = {"parse_dates": ["at"], "date_format": "%d/%m/%Y"}\n\n\ndef load'
    read = another("at: datetime", **{"def load": load})("sources").read
    for name, text in {"rows": "at,y\n31/12/2013,1\n", "labels": "id,outcome\na,1\n"}.items():
        (tmp_path / f"{name}.csv").write_text(text)
    assert read(str(tmp_path / "rows.csv"))["at"].tolist() == [pd.Timestamp("2013-12-31")]
    assert read(str(tmp_path / "labels.csv")).to_dict("records") == [{"id": "a", "outcome": 1}]


@pytest.mark.parametrize("years", [np.arange(N) % 9 + 1990, np.arange(N) % 9 + 1990.0])
def test_a_panel_has_a_key_and_years(years: np.ndarray, tmp_path: Path) -> None:
    frame = customers().drop(columns="since").assign(year=years, firm=np.arange(N) // 9)
    made = planned(tmp_path, frame, key="firm", time="year")
    assert made.time
    assert (made.key, made.time.name, made.parts) == ("firm", "year", [])
    assert made.time.example == "1990-01-01T00:00:00"


def test_days_and_months_are_not_guessed(tmp_path: Path) -> None:
    frame = customers(since=["03/04/2023", "01/12/2023"] * (N // 2))
    assert "day or month first" in reasons(planned(tmp_path, frame))["since"]


def test_what_says_the_target_is_left_out(tmp_path: Path) -> None:
    frame = customers()
    gone = frame["churned"] == "yes"
    frame["left"] = gone.map({True: 7, False: 3})
    frame["days"] = np.where(gone, np.random.default_rng(1).integers(1, 90, N), 999)
    frame["why"] = np.where(gone, np.where(frame["age"] % 2, "price", "service"), "")
    out = reasons(planned(tmp_path, frame))
    assert all("predicts churned alone" in out[name] for name in ("left", "days", "why"))
    assert "age" not in out
    random = np.random.default_rng(0)
    number = pd.DataFrame({"a": random.normal(size=N), "y": random.normal(size=N)})
    number["twice"] = number["y"] * 2
    assert types(planned(tmp_path, number, "y")) == {"a": "float"}


@pytest.mark.parametrize(
    ("labels", "classifies", "kind"),
    [
        (np.arange(N) % 2, False, "two"),
        (np.where(np.arange(N) % 40, "good", "bad"), True, "two rare"),
        (np.array([*"abc"])[np.arange(N) % 3], True, "many"),
        (np.array([*"ab"] * 12 + ["c"])[np.arange(N) % 25], True, "many rare"),
        (np.arange(N) % 7, True, "many"),
        (np.arange(N) % 7, False, "counts"),
        (np.minimum(np.arange(N) % 40, 7), True, "counts"),
        (np.arange(N) % 7 + 0.5, True, "number"),
    ],
)
def test_metrics_and_model_fit_the_target(
    labels: np.ndarray, classifies: bool, kind: str, tmp_path: Path
) -> None:
    shuffled = np.random.default_rng(0).permutation(labels)
    made = planned(tmp_path, customers(churned=shuffled), classifies=classifies)
    assert made.kind == kind
    with inside(ROOT):
        texts = code.files(made, "flight_delays")
    regression = kind in code.REGRESSIONS
    forest = "RandomForestRegressor(" if regression else "RandomForestClassifier("
    assert forest in texts["src/flight_delays/project/model.py"]
    scope: dict[str, Any] = {}
    exec(texts["src/flight_delays/project/metrics.py"], scope)
    assert scope.get("RARE", 0) == 0
    actual = np.array([1.0, 2.0, 3.0]) if regression else np.array([0, 1, 0])
    for name, metric in scope["METRICS"].items():
        best = metric(actual, actual if regression else np.eye(2)[actual])
        assert best == pytest.approx(float(not regression and name != "log_loss"))


def test_odd_names_make_fields(tmp_path: Path) -> None:
    names = ["user.name", "user name", "user_name", "2nd", "copy", "model_size", "_x", 'a "b"', "é"]
    frame = pd.DataFrame({name: np.arange(N) % (7 + i) for i, name in enumerate(names)})
    frame["y"] = np.random.default_rng(0).integers(0, 2, N)
    made = planned(tmp_path, frame, "y")
    assert [column.field for column in made.columns] == [
        *("user_name", "user_name_", "user_name__", "column_2nd", "copy_", "model_size_", "x"),
        *("a_b", "é"),
    ]
    scope: dict[str, Any] = {}
    exec(written(made, tmp_path)["features.py"], scope)
    assert [field.alias or name for name, field in scope["Features"].model_fields.items()] == names


def wide(columns: int) -> str:
    return ",".join(map(str, range(columns))) + ",y\n" + "1," * columns + "1\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("y\n1\n2\n", "has 1 column; .* write a table"),
        ("a,y\n1,2\n", "is 2 in every row"),
        ("a,yy\n1,2\n", "TARGET=y: is no column of .* it has a, yy"),
        (wide(MOST_COLUMNS + 1), "has 1,002 columns; .* write a table"),
        ("a,a,y\n1,2,3\n", "more than one column a"),
        ("a,y\n1,\n2,\n", "holds no value"),
        ("a,y\n1,x\n1,z\n", "no column is left to predict y from"),
        ("a,y\n", "holds no rows"),
        ("", "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(
    text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(UserError, match=said) as error:
        plan(str(tmp_path / "rows.csv"), "y")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["rows.xlsx", "rows.zip", "rows.csv.zip"])
def test_a_sheet_and_an_archive_say_what_to_do(name: str) -> None:
    with pytest.raises(UserError, match=r"save a sheet of Excel as CSV; unpack an archive"):
        plan(name, "y")


def test_a_password_stays_out_of_the_code() -> None:
    with pytest.raises(UserError, match="secret") as error:
        plan("postgresql+psycopg://ada:lovelace@host/db#rows", "y")
    assert "lovelace" not in str(error.value)


def test_odd_tables_just_work(tmp_path: Path) -> None:
    frame = customers()
    frame.loc[::2, "churned"] = None
    made = planned(tmp_path, frame.rename(columns={"age": ""}))  # a name that is empty
    assert (made.rows, made.labelled) == (N, N // 2)
    assert types(made)["Unnamed: 2"] == "float"
    for how, said in {"key": "of their own", "time": "TIME=churned|of their own"}.items():
        with pytest.raises(UserError, match=said):
            planned(tmp_path, frame, **{how: "churned"})
    with pytest.raises(UserError, match="TIME=age: holds no times"):
        planned(tmp_path, frame, time="age")
    mixed = [*range(9), "x"] * (N // 10)
    frame = customers(mixed=mixed, list=[[1]] * N, kind=pd.Categorical(["a", "b"] * (N // 2)))
    frame.astype({"mixed": object}).drop(columns="mixed").to_parquet(tmp_path / "rows.parquet")
    made = plan(str(tmp_path / "rows.parquet"), "churned")
    assert types(made)["kind"] == "str"
    assert reasons(made)["list"] == "holds values of different kinds (mixed)"
    assert "clean()" in reasons(made)["since"], "only read_csv parses what is not ISO 8601"
    assert types(planned(tmp_path, frame.drop(columns="list")))["mixed"] == "str"


def test_only_what_git_holds_is_overwritten(tmp_path: Path) -> None:
    def own(*more: str) -> str:
        result = CliRunner().invoke(app, ["own", *more, "--", "rows.csv", "churned"])
        return f"{result.output} {result.exception}"

    def git(*command: str) -> None:
        who = ["-c", "user.name=ada", "-c", "user.email=ada@localhost"]
        subprocess.run(["git", *who, *command], check=True, capture_output=True)

    customers().to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    model = Path("src/flight_delays/project/model.py")
    with inside(tmp_path):
        model.parent.mkdir(parents=True)
        model.write_bytes((ROOT / model).read_bytes())
        assert "git init" in own("--yes")
        git("init")
        assert "model.py: has changes that git does not hold" in own("--yes")
        git("add", ".")
        git("commit", "-m", "start")
        assert "YES=1" in own()
        assert not model.with_name("target.py").exists()
        assert "7 files are written" in own("--yes")
        assert "has changes" in own("--yes")
