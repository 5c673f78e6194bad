"""Registers the console and the listener with Airflow. The connection type registers itself, by its entry point."""

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from tidemill.airflow.listeners import listener
from tidemill.console.app import console


class TidemillPlugin(AirflowPlugin):
    """The console's page, a link to it, and the listener."""

    name = "tidemill"
    fastapi_apps: ClassVar[list[Any]] = [{"app": console, "url_prefix": "/tidemill", "name": "Tidemill"}]
    external_views: ClassVar[list[Any]] = [
        {"name": "Tidemill", "href": "/tidemill/", "destination": "nav", "url_route": "tidemill"},
    ]
    listeners: ClassVar[list[Any]] = [listener]
