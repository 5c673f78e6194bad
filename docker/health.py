"""Health check of a container: exit code 0 if its server, asked by its own protocol, is healthy.

It imports only the standard library, because every container runs it every few seconds.

Example: ``python health.py airflow-scheduler``
"""

import json
import os
import sys
from typing import Any
from urllib.request import ProxyHandler, build_opener

SPARK_MASTER = "http://127.0.0.1:8080"
SPARK_WORKER = "http://127.0.0.1:8081"

_AIRFLOW = "airflow-"
_TIMEOUT_SECONDS = 5


def serves(server: str, base_url: str) -> bool:
    """Whether the server is healthy: one of Airflow by the API server's health page, one of Spark by its own page.

    Args:
        server: name of its service in ``docker-compose.yml``.
        base_url: the page's URL up to its path.
    """
    try:
        if server.startswith(_AIRFLOW):
            page = _page(f"{base_url}/api/v2/monitor/health")
            return _part(page, server.removeprefix(_AIRFLOW)).get("status") == "healthy"
        page = _page(f"{base_url}/json/")
        # A worker has its master's address only after it was registered.
        return page.get("status") == "ALIVE" if server == "spark-master" else bool(page.get("masterurl"))
    except (OSError, ValueError):
        return False


def _page(url: str) -> dict[str, Any]:
    with build_opener(ProxyHandler({})).open(url, timeout=_TIMEOUT_SECONDS) as response:
        page = json.load(response)
    return page if isinstance(page, dict) else {}


def _part(page: dict[str, Any], part: str) -> dict[str, Any]:
    """The component's part of the health page. That of the API server, which answers, is the database that it needs."""
    status = page.get("metadatabase" if part == "api-server" else part.replace("-", "_"))
    return status if isinstance(status, dict) else {}


def main() -> int:
    """Check the server that the command line names."""
    server = sys.argv[1]
    if server.startswith(_AIRFLOW):
        url = "http://{TIDEMILL_AIRFLOW_HOST}:{TIDEMILL_AIRFLOW_PORT}".format_map(os.environ)
    else:
        url = SPARK_MASTER if server == "spark-master" else SPARK_WORKER
    return 0 if serves(server, url) else 1


if __name__ == "__main__":
    sys.exit(main())
