"""The plugin that Airflow loads: the console's page, a link to it, and the listener.

Registered by the entry point ``airflow.plugins`` of the wheel, and by ``plugins/`` in a checkout; Airflow loads a
plugin of one name once. Importing this module performs no I/O.
"""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from tidemill.airflow.listeners import marked_failed
from tidemill.console.app import console


class TidemillPlugin(AirflowPlugin):
    """The console's page, a link to it, and the listener."""

    name = "tidemill"
    fastapi_apps = [{"app": console, "url_prefix": "/tidemill", "name": "Tidemill"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012 -- Airflow declares it as an attribute of the instance
        {"name": "Tidemill", "href": "/tidemill/", "destination": "nav", "url_route": "tidemill"},
    ]
    listeners = [marked_failed]  # noqa: RUF012
