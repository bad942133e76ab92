"""What is served is what was trained: on held-out rows, on probes, and number by number."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, SplineTransformer
from sklearn.tree import DecisionTreeRegressor

from flight_delays import bundle as bundles
from flight_delays import contract, errors, predictor, settings
from flight_delays.batch import score
from flight_delays.bundle import Bundle
from flight_delays.errors import BundleError, UserError
from flight_delays.evaluation import unseen
from flight_delays.project import features
from flight_delays.project import model as project_model
from flight_delays.training import export, fitting, probes, provenance, rounding
from flight_delays.training import snapshots as data

pytestmark = [pytest.mark.problem, pytest.mark.format]


@pytest.fixture(scope="module")
def frame(trained_home: Path) -> pd.DataFrame:
    (path,) = (trained_home / "data" / "snapshots").glob("*.parquet")
    return pd.read_parquet(path)


@pytest.fixture(scope="module")
def halves(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to train on, and later ones that miss nothing."""
    half = len(frame) // 2
    whole = frame.iloc[half:].dropna(subset=data.FIELDS)
    if whole.empty:
        pytest.skip("no row is complete")
    return frame.iloc[:half], whole.head(50)


@pytest.fixture(scope="module")
def fitted(halves: tuple[pd.DataFrame, pd.DataFrame]) -> fitting.Fitted:
    early, _ = halves
    return fitting.fit(fitting.Table.of(early), 0, len(early), 0)


@pytest.fixture
def exported(
    fitted: fitting.Fitted,
    halves: tuple[pd.DataFrame, pd.DataFrame],
    bundle_dir: Path,
    tmp_path: Path,
) -> Callable[..., Bundle]:
    """Exports the fitted model, served through `change` of its predictor."""

    def made(monkeypatch: pytest.MonkeyPatch | None = None, change: Any = None) -> Bundle:
        real = predictor.load
        if monkeypatch:
            monkeypatch.setattr(export.predictor, "load", lambda path: change(real(path)))
        manifest = bundles.Manifest.model_validate_json((bundle_dir / "manifest.json").read_text())
        names = {"numbers": fitted.numbers, "categories": fitted.categories}
        manifest = manifest.model_copy(update={"classes": fitted.classes, **names})
        reference = json.loads((bundle_dir / "reference.json").read_text())
        return export.export(fitted, *halves, manifest, reference, tmp_path / "bundle")

    return made


def nullable(kind: str) -> list[str]:
    """Fields of a kind that may be missing and that derive() passes on under their name."""
    fields = features.Features.model_fields
    return [n for n, k in contract.KINDS.items() if k == kind and not fields[n].is_required()]


def test_probes_are_proofs_and_no_requests(
    exported: Any, halves: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    bundle = exported()
    assert bundle.manifest.dtype == predictor.DTYPE
    assert bundle.manifest.parity <= bundles.TOLERANCE
    assert not any("probe" in example for example in bundle.examples)
    assert 0 < len(bundle.examples) <= export.EXAMPLES
    asked = [proof["probe"] for proof in bundle.proofs if "probe" in proof]
    assert 0 < len(asked) <= export.PROBES
    found = {probe.field for probe in probes.probes(*halves) if probe.kind == "missing"}
    assert found >= {*nullable("number"), *nullable("category"), *nullable("time")}


def test_probes_keep_to_the_contract(halves: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    made = probes.probes(*halves)
    bundles.ROWS.validate_python([probe.row.model_dump() for probe in made])
    kinds = {probe.kind for probe in made if probe.field}
    assert kinds - {"missing"} == set(contract.KINDS.values())


def test_a_model_that_differs_where_something_is_missing_is_refused(
    exported: Callable[..., Bundle], fitted: fitting.Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not {*nullable("number")} & {*fitted.numbers}:
        pytest.skip("no number may be missing")

    def change(real: Any) -> Any:
        def answer(numbers: np.ndarray, categories: np.ndarray) -> Any:
            gone = np.isnan(numbers).any(axis=1)
            scores = np.array(real(numbers, categories))
            scores[gone] = scores[gone] + 1
            return scores

        return answer

    with pytest.raises(UserError, match=r"differ by .* where .* missing; impute first") as error:
        exported(monkeypatch, change)
    assert "\n" not in str(error.value)


def test_only_one_side_that_refuses_is_a_difference(
    exported: Callable[..., Bundle], fitted: fitting.Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not {n for n, k in contract.KINDS.items() if k == "category"} & {*fitted.categories}:
        pytest.skip("no category")

    def change(real: Any) -> Any:
        def answer(numbers: np.ndarray, categories: np.ndarray) -> Any:
            if (categories == "never seen").any():
                raise ValueError("unknown category")
            return real(numbers, categories)

        return answer

    with (
        monkeypatch.context() as patch,
        pytest.raises(
            UserError, match="scikit-learn predicts and the exported model does not, where"
        ),
    ):
        exported(patch, change)


def test_difference_counts_rows_without_an_answer() -> None:
    nan, given = np.array([np.nan, 1.0, np.nan]), np.array([np.nan, np.nan, 2.0])
    assert bundles.differences(nan, given, False).tolist() == [0.0, np.inf, np.inf]
    apart = bundles.differences(np.array([200.0]), np.array([201.0]), False)
    assert apart == pytest.approx(0.005)


def large(n: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    start = 1_700_000_000 + random.integers(0, 30 * 86400, n)
    return start.astype(float), random.integers(30, 600, n).astype(float)


def test_columns_that_float32_spoils_are_found() -> None:
    start, length = large()
    other = np.random.default_rng(1).normal(size=len(start))
    other[::3] = np.nan

    def spoilt(*columns: np.ndarray) -> list[int]:
        exact = np.column_stack(columns)
        return rounding.collapsed(exact, exact.astype(np.float32))

    assert spoilt(other, start, start + length) == [1, 2]
    assert spoilt(start, np.where(other > 0, start + length, np.nan)) == [0, 1], "some missing"
    assert spoilt(other, 1e9 + length) == [1], "alone, where the step is as large as the spread"
    assert spoilt(start, other, start * 2 + 5, np.full_like(start, 1e9)) == []
    assert spoilt(other * 1e12, 2013 + np.floor(other), 52.37 + other / 20) == []
    assert spoilt(start - 1_700_000_000, start + length - 1_700_000_000) == []


def test_a_model_that_needs_more_than_float32_is_refused(
    frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, length = large(len(frame))
    derived = {"start": start, "end": start + length}
    monkeypatch.setattr(export.contract, "derive", lambda _: derived)
    monkeypatch.setattr(export, "SAMPLE", len(frame))
    matrix = np.column_stack([start, start + length]).astype(np.float32)

    def fitted(model: Any) -> fitting.Fitted:
        return fitting.Fitted(model.fit(matrix, length), None, ["start", "end"], [])

    with pytest.raises(UserError, match=r"start and end: float32.*subtract an origin.*derive"):
        export._refuse_rounding(fitted(LinearRegression()), frame)
    # scikit-learn itself sees no more
    export._refuse_rounding(fitted(RandomForestRegressor(5, max_depth=3)), frame)


def test_an_older_bundle_is_served_with_the_numbers_it_was_trained_on(bundle_dir: Path) -> None:
    manifest = json.loads((bundle_dir / "manifest.json").read_text())
    assert manifest.pop("dtype") == predictor.DTYPE
    older = bundles.Manifest.model_validate(manifest)
    seen = []

    def answer(numbers: np.ndarray, categories: np.ndarray) -> np.ndarray:
        seen.append(numbers.dtype)
        return np.zeros(len(numbers))

    rows = bundles.ROWS.validate_python([bundles.load(bundle_dir).examples[0]["features"]])
    for dtype in ("float32", "float64"):
        of = older if dtype == "float32" else older.model_copy(update={"dtype": dtype})
        bundles.Bundle(bundle_dir, of, answer).scores(contract.columns(rows))
    assert seen == [np.float32, np.float64]


@pytest.fixture
def refusing(trained: Path) -> tuple[Bundle, dict[str, Any], str]:
    """A bundle whose model knows only the categories of its training; a row; a field of it."""
    bundle = bundles.load(trained / "var/versions/1")
    names = [n for n in bundle.manifest.categories if contract.KINDS.get(n) == "category"]
    if not names:
        pytest.skip("no category")
    place = bundle.manifest.categories.index(names[0])

    def answer(numbers: np.ndarray, categories: np.ndarray) -> np.ndarray:
        if (categories[:, place] == "never seen").any():
            raise ValueError("unknown category\nin the second line more")
        return bundle.predictor(numbers, categories)

    row = bundle.examples[0]["features"]
    refuses = bundles.Bundle(bundle.path, bundle.manifest, answer)
    return refuses, row, names[0]


def test_a_row_that_the_model_refuses_is_named(
    refusing: tuple[Bundle, dict[str, Any], str],
) -> None:
    bundle, row, name = refusing
    wrong = bundles.ROWS.validate_python([row | {name: "never seen"}])
    said = f"{name} is 'never seen', which training did not see: unknown category"
    with pytest.raises(ValueError, match=said):
        bundle.scores(contract.columns(wrong))
    pd.DataFrame([row] * 3 + [row | {name: "never seen"}]).to_csv("new.csv", index=False)
    with pytest.raises(UserError, match=f"new.csv: row 3: the model has no answer: {said}$"):
        score.score(bundle, "new.csv", "out.csv")
    assert not Path("out.csv").exists()


def test_rows_without_an_answer_judge_nobody(
    refusing: tuple[Bundle, dict[str, Any], str],
    frame: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle, row, name = refusing
    rows = bundles.ROWS.validate_python([row, row | {name: "never seen"}, row, row])
    (expected, *_), given = bundle.scores(contract.columns(rows[:1])), contract.columns(rows)
    found = bundle.scores_or_nan(given)
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[[0, 2, 3]], [expected] * 3, atol=1e-6)
    assert np.isnan(bundle.scores_or_nan({k: v[[1]] for k, v in given.items()})).all()

    strange = np.arange(len(frame)) % 10 == 3
    frame = frame.assign(**{name: frame[name].astype(object).mask(strange, "never seen")})
    monkeypatch.setattr(unseen, "newer", lambda frame, bundle: np.ones(len(frame), dtype=bool))
    scores = unseen.scores(bundle, frame)
    np.testing.assert_array_equal(np.isnan(scores.reshape(len(frame), -1)).any(axis=1), strange)

    monkeypatch.setattr(contract, "derive", lambda columns: {})
    with pytest.raises(errors.BundleError, match="no longer gives"):
        bundle.scores_or_nan(given)


def test_a_model_that_refuses_rows_that_judge_it_is_one_line(
    frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = fitting.Table.of(frame)
    names = [n for n in table.categories if contract.KINDS.get(n) == "category"]
    if not names:
        pytest.skip("no category")
    classifies = hasattr(fitting.build([0], [], 0), "predict_proba")
    model = LogisticRegression() if classifies else LinearRegression()
    column = len(table.numbers) + table.categories.index(names[0])
    onehot = ColumnTransformer([("c", OneHotEncoder(), [column])])
    monkeypatch.setattr(fitting, "build", lambda *_: clone(make_pipeline(onehot, model)))
    last = np.arange(len(frame)) == len(frame) - 1
    frame = frame.assign(**{names[0]: frame[names[0]].astype(object).mask(last, "never seen")})
    with pytest.raises(
        UserError, match=r"cannot predict new rows.*unknown categories.*handle_unknown"
    ) as error:
        fitting.judge(frame, settings.load().train)
    assert "\n" not in str(error.value)


def store(
    model: Any, numbers: int, categories: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A model as it is served; skops trusts what it holds."""
    if predictor.FILE.endswith(".skops"):
        import skops.io

        types = skops.io.get_untrusted_types(data=skops.io.dumps(model))
        monkeypatch.setattr(project_model, "TRUSTED", types)
    predictor.export(model, numbers, categories, path)
    return predictor.load(path)


def table(n: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    numbers = random.normal(size=(n, 1)).astype(predictor.DTYPE)
    numbers[::5] = np.nan
    categories = random.choice(["a", "b"], size=(n, 1)).astype(object)
    return numbers, categories, (categories[:, 0] == "a") & ~(numbers[:, 0] > 0)


def test_an_unknown_category_that_is_an_error_is_a_value_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, categories, labels = table()
    onehot = ColumnTransformer([("c", OneHotEncoder(), [1])])
    model = make_pipeline(onehot, LogisticRegression())
    model.fit(contract.stack(numbers, categories), labels)
    predict = store(model, 1, 1, tmp_path / predictor.FILE, monkeypatch)
    assert predict(numbers, categories).shape == (200, 2)
    with pytest.raises(ValueError, match=r"(?i)unknown categor"):
        predict(numbers[:1], np.array([["z"]], dtype=object))


def test_histogram_boosting_is_served_as_it_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, categories, labels = table()
    model = HistGradientBoostingClassifier(max_iter=5).fit(numbers, labels)
    predict = store(model, 1, 0, tmp_path / predictor.FILE, monkeypatch)
    np.testing.assert_allclose(
        predict(numbers, categories[:, :0]), model.predict_proba(numbers), atol=1e-6
    )


@pytest.mark.skipif(predictor.FILE != "model.onnx", reason="skops stores all of scikit-learn")
def test_why_a_model_cannot_be_exported_is_one_line(tmp_path: Path) -> None:
    numbers, _, labels = table()
    model = make_pipeline(SplineTransformer(), LogisticRegression())
    model.fit(np.nan_to_num(numbers), labels)
    with pytest.raises(UserError, match=r"SplineTransformer.*or serving_format skops$") as error:
        predictor.export(model, 1, 0, tmp_path / "spline.onnx")
    assert "\n" not in str(error.value)

    texts = np.array([["Late"], ["early"]], dtype=object)
    for lowers in (True, False):
        words = ColumnTransformer([("words", TfidfVectorizer(lowercase=lowers), 0)])
        model = make_pipeline(words, LogisticRegression()).fit(texts, [0, 1])
        if lowers:
            with pytest.raises(UserError, match=r"locale.*set lowercase=False.*format skops$"):
                predictor.export(model, 0, 1, tmp_path / "words.onnx")
        else:
            predictor.export(model, 0, 1, tmp_path / "words.onnx")


def test_packages_that_serving_does_not_install_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    modules = {
        "builtins",
        "json.decoder",
        "flight_delays.project.model",
        "numpy",
        "sklearn.tree._tree",
    }
    Path("pyproject.toml").write_text('[project]\ndependencies = ["numpy>=2"]')
    assert provenance.not_served(modules) == ["sklearn"]
    Path("pyproject.toml").write_text('[project]\ndependencies = ["scikit-learn>=1,<2"]')
    assert provenance.not_served({*modules, "scipy.sparse", "joblib"}) == []


@pytest.mark.skipif(predictor.FILE != "model.skops", reason="ONNX holds no types")
def test_types_that_nobody_listed_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model = tmp_path / "model.skops", DecisionTreeRegressor().fit([[0], [1]], [0, 1])
    store(model, 1, 0, path, monkeypatch)
    monkeypatch.setattr(project_model, "TRUSTED", [])
    with pytest.raises(BundleError, match=r"model\.skops: .*sklearn\.tree\._tree\.Tree"):
        predictor.load(path)
    with pytest.raises(UserError, match="read what they do, then add them"):
        predictor.export(model, 1, 0, path)


@pytest.mark.skipif(predictor.FILE != "model.skops", reason="ONNX needs no package of the model's")
def test_a_model_of_such_a_package_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text('[project]\ndependencies = ["numpy>=2"]')
    with pytest.raises(UserError, match=r"needs .*sklearn.*`dependencies` in pyproject.toml"):
        store(LinearRegression().fit([[0], [1]], [0, 1]), 1, 0, tmp_path / "m.skops", monkeypatch)
