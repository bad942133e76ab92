"""Routes of your own: `router: APIRouter` of project/routes.py, if that is there."""

import re
from importlib import import_module
from importlib.util import find_spec

from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import iter_route_contexts
from starlette.routing import Match

from ..bundle import Bundle
from ..errors import UserError
from ..settings import PACKAGE

ROUTES = f"{PACKAGE}.project.routes"


async def served_bundle(request: Request) -> Bundle:
    """The bundle in use, for routes of your own: `Annotated[Bundle, Depends(served_bundle)]`.

    Until there is one, the request is answered with 503.
    """
    bundle: Bundle = request.app.state.service.served.bundle
    return bundle


def add_own_routes(app: FastAPI) -> None:
    """Adds your routes to an application that has all of ours.

    Raises UserError where the module has no router, or a path that ours would answer at.
    """
    if not find_spec(ROUTES):
        return
    router = getattr(import_module(ROUTES), "router", None)
    if not isinstance(router, APIRouter):
        raise UserError("project/routes.py: has no router; write `router = APIRouter()`")
    ours = [*iter_route_contexts(app.routes)]
    for route in iter_route_contexts(router.routes):
        for method in sorted(route.methods or {"GET"}):
            path = re.sub("{.*?}", "1", str(route.path))
            scope = {"type": "http", "method": method, "path": path}
            if any(our.matches(scope)[0] is Match.FULL for our in ours):
                raise UserError(
                    f"project/routes.py: {method} {route.path} is answered by the service "
                    "already; give it another path"
                )
    app.include_router(router)
