"""The API as its clients see it: its names, its answers, and routes of your own beside ours."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from flight_delays import project
from flight_delays.bundle import ROWS
from flight_delays.errors import UserError
from flight_delays.settings import load
from flight_delays.training import fitting, snapshots

OWN = "flight_delays.project.routes"
OURS = {"predictions", "outcomes", "state"}
JSON = {"content-type": "application/json"}


NONE = {"journal": {"url": ""}}


def routes(client: TestClient) -> list[Any]:
    """Our routes that the document shows."""
    app: Any = client.app
    found: list[Any] = [*iter_route_contexts(app.routes)]
    shown = (r for r in found if getattr(r, "include_in_schema", False))
    return [r for r in shown if OURS & {*getattr(r, "tags", ())}]


# Its names


def test_the_names_of_the_api_are_those_that_clients_were_made_of(client: TestClient) -> None:
    """Generated clients are called so: a name that changes breaks them."""
    document = client.get("/openapi.json").json()
    operations = {
        (method, path): operation["operationId"]
        for path, found in document["paths"].items()
        for method, operation in found.items()
        if OURS & set(operation.get("tags", ()))
    }
    assert operations == {
        ("post", "/predictions"): "predict",
        ("post", "/predictions/batch"): "predict_batch",
        ("put", "/predictions/{id}/outcome"): "put_outcome",
        ("get", "/predictions/{id}"): "get_prediction",
        ("delete", "/predictions/{id}"): "erase_prediction",
        ("delete", "/predictions"): "erase_predictions",
        ("get", "/healthz"): "get_health",
        ("get", "/readyz"): "get_readiness",
        ("get", "/version"): "get_version",
    }
    assert document["components"]["schemas"].keys() >= {
        *("PredictionRequest", "RequestFeatures", "Prediction", "BatchRequest", "BatchPrediction"),
        *("OutcomeRequest", "AcceptedOutcome", "StoredPrediction", "ErasedCount"),
        *("Health", "Readiness", "ServedModel", "ErrorResponse", "RequestError"),
    }


def test_the_root_leads_to_the_page(client: TestClient) -> None:
    page = client.get("/")
    assert (page.status_code, page.url.path) == (200, "/docs")
    assert "/openapi.json" in page.text


# Its answers


@pytest.mark.problem
@pytest.mark.format
def test_every_held_out_row_is_answered_as_the_trained_pipeline_does(
    start: Callable[..., TestClient], trained: Path
) -> None:
    """Training and serving do not drift apart: each row over HTTP against the estimator itself."""
    settings = load()
    judged = fitting.judge(snapshots.find("").read(), settings.train)
    fitted = judged.refit(settings.train.seed)
    expected = fitted.scores(judged.table.matrix[judged.first :]).tolist()
    rows = ROWS.validate_python(snapshots.records(judged.late[snapshots.FIELDS]))
    (trained / "var" / "versions" / "current").write_text("1")
    client = start(trained / "var" / "versions", **NONE)
    asked = [{"features": row.model_dump(mode="json")} for row in rows]
    one = [client.post("/predictions", json=ask).json() for ask in asked]
    many = client.post("/predictions/batch", json={"rows": asked[:1000]}).json()["predictions"]
    for answer, scores in zip([*one, *many], [*expected, *expected[:1000]], strict=True):
        if fitted.classes is None:
            assert answer["prediction"] == pytest.approx(scores, rel=1e-4, abs=1e-3)
        else:
            assert list(answer["probabilities"].values()) == pytest.approx(scores, abs=1e-4)


def fits(model: Any, body: bytes) -> bool:
    """Whether a body is what a model says: nothing is missing, of another type, or besides."""
    adapter = TypeAdapter(model)
    read = adapter.validate_json(body)
    return adapter.dump_python(read, mode="json", exclude_unset=True) == json.loads(body)


@pytest.mark.problem
@pytest.mark.format
def test_every_answer_is_as_its_model_says(
    start: Callable[..., TestClient], bundles: Path, tmp_path: Path, features: dict[str, Any]
) -> None:
    """Predictions are not validated when they are answered, so they are here, as all else is.

    Every route is asked well and badly, with and without a model and a journal. What it declares
    comes, and nothing else.
    """
    (tmp_path / "down.db").mkdir()  # no database can be opened there
    small = {"serving": {"max_body_mb": 0.05}}
    down = {"journal": {"url": f"sqlite:///{tmp_path}/down.db"}}
    whole = start(**small)
    clients = [whole, start(**small, **NONE), start(tmp_path / "none", ready=False, **down)]
    bodies = {
        "predict": {"features": features, "key": "mine"},
        "predict_batch": {"rows": [{"features": features}] * 2},
    }
    for route in routes(whole):
        success = route.status_code or 200
        models = {success: route.response_model}
        models |= {status: given["model"] for status, given in route.responses.items()}
        seen = set()
        for client in clients:
            made = whole.post("/predictions", json=bodies["predict"]).json()
            bodies["put_outcome"] = {"outcome": made["prediction"]}
            path = route.path.replace(":path", "")
            good: dict[str, Any] = {"url": path.replace("{id}", made["id"]), "headers": JSON}
            if route.name == "erase_predictions":
                good["params"] = {"key": "mine"}
            bad: list[dict[str, Any]] = [
                {"url": path.replace("{id}", "unknown")},
                {"url": path.replace("{id}", "%00")},
                {"params": {"key": "", "time": "soon"}},
            ]
            if route.name in bodies:
                good["content"] = json.dumps(bodies[route.name]).encode()
                texts = [b"{", b"[]", b"{}", b"\xff", b"", b" " * 60_000, b"[" * 40_000]
                bad += [{"content": text} for text in texts]
                bad += [{"headers": JSON | {"content-encoding": "gzip"}}, {"headers": {}}]
            (method,) = route.methods
            for change in [*bad, {}]:
                answer = client.request(method, **good | change)
                status, asked = answer.status_code, (route.name, change, answer.text[:300])
                seen.add(status)
                assert status in models, asked
                if models[status] is None:
                    assert not answer.content, asked
                else:
                    assert answer.headers["content-type"] == "application/json"
                    assert fits(models[status], answer.content), asked
        assert seen == models.keys(), f"{route.name} never answered what it declares"


# Routes of your own

ROUTES = """
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from ..bundle import Bundle
from ..predict import predict
from ..serving.own_routes import served_bundle
from .features import Features

router = APIRouter(prefix="/mine", tags=["mine"])


@router.post("/{name}/what-if")
def what_if(
    name: str, rows: list[Features], bundle: Annotated[Bundle, Depends(served_bundle)]
) -> dict[str, Any]:
    return {"name": name, "predictions": [p["prediction"] for p in predict(bundle, rows)]}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], int]]:
    """Makes a text the project's routes.py, for as long as the test runs."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.setattr(project, "__path__", [str(folder), *project.__path__])
    before = sys.modules.pop(OWN, None)
    yield (folder / "routes.py").write_text
    sys.modules.pop(OWN, None)
    if before:
        sys.modules[OWN] = before


def test_routes_of_your_own_are_answered_beside_ours(
    own: Callable[[str], int],
    start: Callable[..., TestClient],
    bundles: Path,
    tmp_path: Path,
    features: dict[str, Any],
) -> None:
    own(ROUTES)
    client = start()
    ours = client.post("/predictions", json={"features": features}).json()["prediction"]
    answer = client.post("/mine/a/what-if", json=[features] * 2).json()
    assert answer == {"name": "a", "predictions": [pytest.approx(ours)] * 2} or answer == {
        "name": "a",
        "predictions": [ours] * 2,
    }
    assert client.post("/mine/a/what-if", json=[{}]).status_code == 422
    wrong = client.get("/mine/a/what-if")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert client.get("/version").json()["version"] == "1"
    assert "/mine/{name}/what-if" in client.get("/openapi.json").json()["paths"]
    assert 'route="/mine/{name}/what-if",status="200"' in client.get("/metrics").text
    none = start(tmp_path / "none", ready=False, **NONE).post("/mine/a/what-if", json=[features])
    assert (none.status_code, "no model yet" in none.text) == (503, True)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/version"),
        ("GET", "/predictions/{mine}"),
        ("POST", "/predictions"),
        ("PUT", "/predictions/{a}/outcome"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
    ],
)
def test_a_path_of_your_own_that_ours_would_answer_is_refused_by_name(
    own: Callable[[str], int], start: Callable[..., TestClient], tmp_path: Path, method: str,
    path: str,
) -> None:  # fmt: skip
    text = "from fastapi import APIRouter\nrouter = APIRouter()\n"
    own(f"{text}\n@router.{method.lower()}('{path}')\ndef mine() -> None: ...\n")
    with pytest.raises(UserError) as error:
        start(tmp_path / "none", ready=False, **NONE)
    assert str(error.value).startswith(f"project/routes.py: {method} {path} ")
    assert "\n" not in str(error.value)


def test_a_path_beside_ours_and_another_method_are_yours(
    own: Callable[[str], int], start: Callable[..., TestClient], tmp_path: Path
) -> None:
    own(
        "from fastapi import APIRouter\nrouter = APIRouter()\n"
        "@router.get('/predictions/{id}/reasons')\n@router.get('/predictions')\n"
        "def mine(id: str = '') -> str:\n    return f'mine {id}'\n"
    )
    client = start(tmp_path / "none", ready=False, **NONE)
    assert client.get("/predictions").json() == "mine "
    assert client.get("/predictions/5/reasons").json() == "mine 5"


def test_a_database_of_your_own_that_fails_is_no_journal_of_ours(
    own: Callable[[str], int], start: Callable[..., TestClient], tmp_path: Path
) -> None:
    own(
        "import sqlalchemy as sa\nfrom fastapi import APIRouter\nrouter = APIRouter()\n"
        "@router.get('/mine')\ndef mine() -> None:\n"
        f"    sa.create_engine('sqlite:///{tmp_path}/none/x.db').connect()\n"
    )
    answer = start(tmp_path / "none", ready=False).get("/mine")
    assert (answer.status_code, "went wrong here" in answer.text) == (500, True)


def test_a_module_of_routes_without_a_router_is_refused(
    own: Callable[[str], int], start: Callable[..., TestClient], tmp_path: Path
) -> None:
    own("route = None\n")
    with pytest.raises(UserError, match=r"project/routes\.py: has no router"):
        start(tmp_path / "none", ready=False, **NONE)
