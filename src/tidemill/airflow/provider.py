"""What this package registers with Airflow through its entry point ``apache_airflow_provider``."""

from __future__ import annotations

from typing import Any


def provider_info() -> dict[str, Any]:
    """The connection type, for Airflow's SQL operators and its connection form, and the scheme of the asset URIs."""
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
                "handler": "tidemill.airflow.assets.sanitize_uri",
                "to_openlineage_converter": "tidemill.airflow.assets.to_openlineage",
            },
        ],
    }
