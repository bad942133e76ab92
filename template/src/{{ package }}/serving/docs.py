"""The page at /docs, without anything from another host, so that it works in a closed network."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

ASSETS = "/docs/assets"


def add_docs(app: FastAPI) -> None:
    """Adds /docs to an application that was made with `docs_url=None`.

    The package fastapi-offline is used for its copy of Swagger UI only; without it the browser
    fetches one from the address FastAPI knows.
    """
    spec = find_spec("fastapi_offline")
    places = spec.submodule_search_locations if spec else None
    names = {"swagger_js_url": "swagger-ui-bundle.js", "swagger_css_url": "swagger-ui.css",
             "swagger_favicon_url": "favicon.png"}  # fmt: skip
    if places:
        app.mount(ASSETS, StaticFiles(directory=Path(places[0]) / "static"))

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        files: dict[str, Any] = {}
        if places:
            files = {key: f"{root}{ASSETS}/{name}" for key, name in names.items()}
        return get_swagger_ui_html(openapi_url=f"{root}/openapi.json", title=app.title, **files)
