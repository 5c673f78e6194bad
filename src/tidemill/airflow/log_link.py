"""The link from a stream's task to its driver's log. Airflow shows it once the task has deferred for the first time."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf


class DriverLogLink(BaseOperatorLink):
    """The button *Driver log* on the task's page: leads to the console, which shows the log of the running driver.

    Airflow stores the address as an XCom when a task defers or ends, and its page reads it from there, so the link
    needs no registration by a plugin.
    """

    @property
    def name(self) -> str:
        """The button's label."""
        return "Driver log"

    def get_link(self, operator: Any, *, ti_key: object = None) -> str:
        """The console's address for the operator's stream, on the server that serves Airflow's page."""
        below = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
        return f"{below}/tidemill/logs/{quote(operator.pipeline, safe='')}"
