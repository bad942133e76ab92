"""The page at /docs, without anything from another host, so that it works in a closed network."""

from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

ASSETS = "/docs/assets"
NAMES = {
    "swagger_js_url": "swagger-ui-bundle.js",
    "swagger_css_url": "swagger-ui.css",
    "swagger_favicon_url": "favicon.png",
}


def add_docs(app: FastAPI) -> None:
    """Adds /docs to an application that was made with `docs_url=None`.

    The package fastapi-offline is there for its copy of Swagger UI.
    """
    app.mount(ASSETS, StaticFiles(directory=str(files("fastapi_offline") / "static")))

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        assets: dict[str, Any] = {key: f"{root}{ASSETS}/{name}" for key, name in NAMES.items()}
        return get_swagger_ui_html(openapi_url=f"{root}/openapi.json", title=app.title, **assets)
