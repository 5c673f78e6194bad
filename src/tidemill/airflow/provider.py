"""What Airflow learns of this package through its entry point ``apache_airflow_provider``."""

from __future__ import annotations

from typing import Any


def provider_info() -> dict[str, Any]:
    """The connection type, so that Airflow's SQL operators and its form of connections know it, and our assets."""
    return {
        "package-name": "tidemill",
        "name": "Tidemill",
        "description": "Streams, refreshes and the operational database of Tidemill.",
        "connection-types": [
            {"connection-type": "tidemill", "hook-class-name": "tidemill.airflow.hook.TidemillHook"},
        ],
        "asset-uris": [
            {
                "schemes": ["x-tidemill"],
                "handler": "tidemill.airflow.assets.keep_uri",
                "to_openlineage_converter": "tidemill.airflow.assets.to_openlineage",
            },
        ],
    }
