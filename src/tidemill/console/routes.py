"""The console's addresses: a page for people, the same as JSON and for Prometheus, and what a person may do there."""

from __future__ import annotations

import hmac
import secrets
from typing import Annotated

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import bearer_scheme, get_user, requires_access_view
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from tidemill import config
from tidemill.console.actions import HEADER, act, from_this_page, may_read_log
from tidemill.console.logs import driver_log
from tidemill.console.metrics import exposition
from tidemill.console.queries import Status, read_status
from tidemill.errors import ConfigError, TidemillError
from tidemill.lifecycle.describe import format_duration

_templates = Environment(
    loader=PackageLoader("tidemill.console"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
_templates.filters["span"] = format_duration
_may_look = requires_access_view(AccessView.JOBS)


def build() -> FastAPI:
    """The application that Airflow's server mounts. Airflow leaves the routes of plugins open: each has its guard."""
    app = FastAPI(title="Tidemill", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(TidemillError, _say)
    look = [Depends(_may_look)]
    app.add_api_route("/", page, response_class=HTMLResponse, dependencies=look)
    app.add_api_route("/api/status", status, dependencies=look)
    app.add_api_route("/logs/{stream}", driver_log, response_class=HTMLResponse, dependencies=[Depends(may_read_log)])
    app.add_api_route("/metrics", metrics, dependencies=[Depends(may_scrape)])
    # Who may act is asked for by `act` itself, which needs to know who it is.
    app.add_api_route("/streams/{stream}/{action}", act, methods=["POST"], dependencies=[Depends(from_this_page)])
    return app


def status() -> Status:
    """Streams, models and open incidents."""
    return read_status(config.load())


def page(found: Annotated[Status, Depends(status)]) -> HTMLResponse:
    """The same, to look at. Nothing but what stands in the page itself is run or loaded."""
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self';"
        " frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
    )
    return HTMLResponse(render(found, nonce), headers={"Content-Security-Policy": policy, "Cache-Control": "no-store"})


def render(found: Status, nonce: str) -> str:
    """The page's text."""
    return _templates.get_template("status.html").render(status=found, nonce=nonce, header=HEADER)


def metrics(request: Request) -> Response:
    """For Prometheus. Answers 200 with the database away, too: ``tidemill_database_up`` says it."""
    text, content_type = exposition(status, request.headers.get("accept", ""))
    # Not as media_type, to which a second charset would be added.
    return Response(text, headers={"Content-Type": content_type})


async def may_scrape(request: Request) -> None:
    """A scraper has no login of Airflow: it shows the token from the secrets file. Anybody else needs the usual right.

    Raises:
        HTTPException: 401 or 403.
    """
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and _is_metrics_token(given.strip()):
        return
    _may_look(request, await get_user(request, None, await bearer_scheme(request)))


def _is_metrics_token(given: str) -> bool:
    try:
        token = config.load().secret(config.METRICS_TOKEN).get_secret_value()
    except ConfigError:  # none was made: then none is accepted
        return False
    # Takes as long for a wrong token as for the right one.
    return bool(token) and hmac.compare_digest(given.encode(), token.encode())


def _say(request: Request, error: Exception) -> Response:
    """One sentence instead of a stack trace. The database being away is the usual reason."""
    return JSONResponse({"detail": str(error)}, status_code=503)
