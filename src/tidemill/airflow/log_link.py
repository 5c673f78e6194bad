"""The link from a stream's task to its driver's log, which is there from the task's first deferral on."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf


class DriverLogLink(BaseOperatorLink):
    """``Driver log`` in Airflow's page: leads to the console, which shows the log of the driver that runs now.

    Airflow keeps the address as an XCom when a task defers or ends, and its page reads it there; so nothing has to be
    registered with a plugin.
    """

    @property
    def name(self) -> str:
        """What the button says."""
        return "Driver log"

    def get_link(self, operator: Any, *, ti_key: object = None) -> str:
        """The console's address for the operator's stream, on the server that the page comes from."""
        below = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
        return f"{below}/tidemill/logs/{quote(operator.pipeline, safe='')}"
