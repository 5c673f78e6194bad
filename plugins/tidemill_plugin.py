"""Registers the console with Airflow. The connection type registers itself, by the package's entry point."""

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from tidemill.console.app import console


class TidemillPlugin(AirflowPlugin):
    """The console's page, and a link to it."""

    name = "tidemill"
    fastapi_apps: ClassVar[list[Any]] = [{"app": console, "url_prefix": "/tidemill", "name": "Tidemill"}]
    external_views: ClassVar[list[Any]] = [
        {"name": "Tidemill", "href": "/tidemill/", "destination": "nav", "url_route": "tidemill"},
    ]
