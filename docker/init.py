"""Prepares what the containers share, and exits: Airflow's configuration, database and connections, topics and tables.

Every start of the stack runs it. It creates what is missing, updates the connections, and changes nothing else.
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
    """Write the ``airflow.cfg`` of the embedded Airflow and its generated secrets to the volume of all containers.

    Addresses, which differ between containers, are in their ``AIRFLOW__*`` variables.
    """
    airflow.write_configuration(settings.model_copy(update={"airflow_host": ports.LOOPBACK}))
    # The database's passwords are those of .env; generated ones are not used here and so not stored.
    generated = secrets.ensure(settings)
    stored = {name: secret for name, secret in generated.items() if name.startswith(("airflow_", "metrics_"))}
    secrets.write_private(settings.secrets_file, json.dumps(stored, indent=1) + "\n")


def connections_by_name(settings: Settings) -> dict[str, dict[str, Any]]:
    """The connections that ``tidemill up`` makes, as ``airflow connections import`` reads them; with a password."""
    bodies = [connection.body() for connection in connections(settings)]
    return {body.pop("connection_id"): body for body in bodies}


def import_connections(settings: Settings) -> None:
    """Import the connections from a temporary file that only its owner can read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "connections.json"
        secrets.write_private(path, json.dumps(connections_by_name(settings)))
        run_module("airflow", "connections", "import", "--overwrite", str(path))


def run_module(*words: str) -> None:
    """Run a Python program and wait for its end.

    Raises:
        SetupError: it ended with another exit code than 0; its output is above.
    """
    code = subprocess.run([sys.executable, "-m", *words], check=False).returncode
    if code != 0:
        raise SetupError(
            "TM-DEVSTACK-PREPARATION-FAILED",
            name=" ".join(words[:3]),
            ending=f"ended with exit code {code}",
            log="its output above",
        )


def main() -> int:
    """Run the steps in order."""
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
