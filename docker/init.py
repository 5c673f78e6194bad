"""Prepares what the containers share, and ends: Airflow's configuration, database and connections, topics and tables.

Every start of the stack runs it. It makes what is missing and leaves the rest; connections are made as they should be.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tidemill import config
from tidemill.config import Settings
from tidemill.devstack import ports, secrets
from tidemill.devstack.servers import airflow
from tidemill.devstack.up import connections
from tidemill.errors import SetupError, TidemillError


def write_configuration(settings: Settings) -> None:
    """Write the ``airflow.cfg`` of the embedded Airflow, and its generated secrets, where all containers find them.

    What a container has to see otherwise, addresses, stands in its ``AIRFLOW__*`` variables.
    """
    airflow.write_configuration(settings.model_copy(update={"airflow_host": ports.LOOPBACK}))
    # The database's passwords are those of .env: generated ones beside them would only mislead.
    made = secrets.ensure(settings)
    kept = {name: secret for name, secret in made.items() if name.startswith(("airflow_", "metrics_"))}
    secrets.write_private(settings.secrets_file, json.dumps(kept, indent=1) + "\n")


def connections_by_name(settings: Settings) -> dict[str, dict[str, Any]]:
    """The connections that ``tidemill up`` makes, as ``airflow connections import`` reads them. Holds a password."""
    bodies = [connection.body() for connection in connections(settings)]
    return {body.pop("connection_id"): body for body in bodies}


def import_connections(settings: Settings) -> None:
    """Hand the connections to Airflow in a file that only its owner can read, and that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "connections.json"
        secrets.write_private(path, json.dumps(connections_by_name(settings)))
        run_module("airflow", "connections", "import", "--overwrite", str(path))


def run_module(*words: str) -> None:
    """Run a Python program to its end.

    Raises:
        SetupError: it failed; what it said stands above.
    """
    code = subprocess.run([sys.executable, "-m", *words], check=False).returncode
    if code != 0:
        raise SetupError(f"{' '.join(words[:3])} failed", value=f"exit code {code}", remedy="see its output above")


def main() -> int:
    """Do all of it, in order."""
    try:
        settings = config.load()
        write_configuration(settings)
        run_module("airflow", "db", "migrate")
        import_connections(settings)
        run_module("tidemill", "apply")
    except TidemillError as error:
        sys.stderr.write(f"tidemill: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
