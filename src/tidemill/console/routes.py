"""The console's addresses: a page for people, the same as JSON and for Prometheus, and the actions on streams."""

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
_may_view = requires_access_view(AccessView.JOBS)


def build() -> FastAPI:
    """The application that Airflow's server mounts. Each route has its guard, for Airflow guards none."""
    app = FastAPI(title="Tidemill", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(TidemillError, _report_error)
    viewing = [Depends(_may_view)]
    app.add_api_route("/", page, response_class=HTMLResponse, dependencies=viewing)
    app.add_api_route("/api/status", status, dependencies=viewing)
    app.add_api_route("/logs/{stream}", driver_log, response_class=HTMLResponse, dependencies=[Depends(may_read_log)])
    app.add_api_route("/metrics", metrics, dependencies=[Depends(may_scrape)])
    # `act` checks the right itself, because it needs the user's name.
    app.add_api_route("/streams/{stream}/{action}", act, methods=["POST"], dependencies=[Depends(from_this_page)])
    return app


def status() -> Status:
    """Streams, models and open incidents."""
    return read_status(config.load())


def page(current: Annotated[Status, Depends(status)]) -> HTMLResponse:
    """The same as a page. The browser runs and loads nothing that is not in the page itself."""
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self';"
        " frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
    )
    return HTMLResponse(
        render(current, nonce), headers={"Content-Security-Policy": policy, "Cache-Control": "no-store"}
    )


def render(current: Status, nonce: str) -> str:
    """The page's text."""
    return _templates.get_template("status.html").render(status=current, nonce=nonce, header=HEADER)


def metrics(request: Request) -> Response:
    """For Prometheus. Answers 200 while the database is unavailable, too: then ``tidemill_database_up`` is 0."""
    text, content_type = exposition(status, request.headers.get("accept", ""))
    # Not as media_type, to which a second charset would be added.
    return Response(text, headers={"Content-Type": content_type})


async def may_scrape(request: Request) -> None:
    """A scraper has no login of Airflow: it sends the token of the secrets file. Other users need the usual right.

    Raises:
        HTTPException: 401 or 403.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and _is_metrics_token(token.strip()):
        return
    _may_view(request, await get_user(request, None, await bearer_scheme(request)))


def _is_metrics_token(presented: str) -> bool:
    try:
        token = config.load().secret(config.METRICS_TOKEN).get_secret_value()
    except ConfigError:  # the secrets file holds no token: then none is accepted
        return False
    # Takes as long for a wrong token as for the right one.
    return bool(token) and hmac.compare_digest(presented.encode(), token.encode())


def _report_error(request: Request, error: Exception) -> Response:
    """One sentence instead of a stack trace. An unavailable database is the usual reason."""
    return JSONResponse({"detail": str(error)}, status_code=503)
