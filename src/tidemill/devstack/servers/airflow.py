"""The embedded Airflow: four processes over SQLite, configured by one file that only its owner can read."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from collections.abc import Callable
from configparser import RawConfigParser
from datetime import datetime
from io import StringIO
from pathlib import Path
from threading import Event

import httpx

from tidemill.config import Settings
from tidemill.devstack import ports
from tidemill.devstack import secrets as passwords
from tidemill.devstack.child_process import Child, Program, environment
from tidemill.errors import SetupError
from tidemill.resources import resource_folder

ADMIN = "admin"
"""The user name in the web interface; its password is the secret ``airflow_admin``."""

_CAUSE = re.compile(r"\[(error|critical)\s*\]|^\w*(Error|Exception)\b|Traceback")
_HEALTH_KEYS = {
    "api-server": "metadatabase",
    "scheduler": "scheduler",
    "dag-processor": "dag_processor",
    "triggerer": "triggerer",
}
_OPTIONS = {
    # Their log servers would listen on every address; the API server reads the log files instead.
    "scheduler": ("--skip-serve-logs",),
    "triggerer": ("--skip-serve-logs",),
}
_GRACE_SECONDS = 10.0
"""The scheduler would wait for running tasks without limit; tasks that are killed then are retried if they may be."""


def port(settings: Settings) -> int:
    """The API server's port.

    Raises:
        SetupError: ``airflow_host`` names another host than 127.0.0.1.
    """
    if settings.airflow_host not in (ports.LOOPBACK, "localhost"):
        raise SetupError("TM-DEVSTACK-AIRFLOW-HOST", value=settings.airflow_host)
    return settings.airflow_port


def home(settings: Settings) -> Path:
    """``AIRFLOW_HOME`` of the embedded Airflow."""
    return settings.state / "airflow"


def write_configuration(settings: Settings) -> None:
    """Write ``airflow.cfg`` and the file with the administrator's password; only this user may read them."""
    folder = home(settings)
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    secrets = passwords.ensure(settings)
    passwords.write_private(_passwords_file(settings), json.dumps({ADMIN: secrets[passwords.AIRFLOW_ADMIN]}) + "\n")
    passwords.write_private(folder / "airflow.cfg", configuration(settings, secrets))


def prepare(settings: Settings, cancelled: Event) -> None:
    """Write the configuration and bring the metadata database to this Airflow's version.

    Raises:
        SetupError: the database could not be migrated.
    """
    write_configuration(settings)
    folder = home(settings)
    stamp = folder / "migrated"
    version = importlib.metadata.version("apache-airflow-core")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == version and (folder / "airflow.db").exists():
        return
    migrate = Program(
        name="airflow-migrate",
        argv=(*_AIRFLOW, "db", "migrate"),
        environment=airflow_environment(settings),
        ready_seconds=180,
        cause=_CAUSE,
    )
    Child(migrate, settings).run_to_end(cancelled)
    if not cancelled.is_set():
        stamp.write_text(version, encoding="utf-8")


def programs(settings: Settings) -> list[Program]:
    """The four processes. One is ready when the health page reports it healthy, with a heartbeat since its start."""
    return [
        Program(
            name=f"airflow-{component}",
            argv=(*_AIRFLOW, component, *_OPTIONS.get(component, ())),
            environment=airflow_environment(settings),
            probe=_probe(settings, component),
            ready_seconds=240,
            grace_seconds=_GRACE_SECONDS,
            cause=_CAUSE,
        )
        for component in _HEALTH_KEYS
    ]


_AIRFLOW = (sys.executable, "-m", "airflow")


def airflow_environment(settings: Settings) -> dict[str, str]:
    """The environment of Airflow's processes, and of every ``airflow`` command for this installation."""
    return environment(settings) | {
        "AIRFLOW_HOME": str(home(settings)),
        "PYTHONWARNINGS": "ignore",
        # Renaming a process would overwrite the environment by which it is recognised.
        "SPT_NOENV": "1",
    }


def configuration(settings: Settings, secrets: dict[str, str]) -> str:
    """The text of ``airflow.cfg``. Holds secrets."""
    folder = home(settings)
    url = f"http://{ports.LOOPBACK}:{port(settings)}"
    sections: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": resource_folder("dags"),
            "plugins_folder": resource_folder("plugins"),
            "executor": "LocalExecutor",
            "parallelism": 4,
            "load_examples": False,
            "dags_are_paused_at_creation": True,
            # A name server may take seconds to answer with the full name.
            "hostname_callable": "socket.gethostname",
            "min_serialized_dag_update_interval": 5,
            "simple_auth_manager_users": f"{ADMIN}:admin",
            "simple_auth_manager_passwords_file": _passwords_file(settings),
            "execution_api_server_url": f"{url}/execution/",
            "fernet_key": secrets[passwords.AIRFLOW_FERNET],
        },
        "database": {"sql_alchemy_conn": f"sqlite:///{folder / 'airflow.db'}"},
        "api": {
            "host": ports.LOOPBACK,
            "port": port(settings),
            "base_url": url,
            "workers": 1,
            "secret_key": secrets[passwords.AIRFLOW_SECRET_KEY],
            "expose_config": False,
        },
        "api_auth": {"jwt_secret": secrets[passwords.AIRFLOW_JWT]},
        "dag_processor": {
            "refresh_interval": 5,
            # A new pipeline changes the DAGs of a DAG file without changing the file.
            "min_file_process_interval": 10,
            "print_stats_interval": 0,
        },
        "scheduler": {
            # Tasks that a killed scheduler left running are found within this time, not within five minutes.
            "orphaned_tasks_check_interval": 30,
            "task_instance_heartbeat_timeout": 60,
        },
        "logging": {
            "base_log_folder": folder / "logs",
            # Airflow sets the modes of these itself, whatever the mask of its processes.
            "file_task_handler_new_folder_permissions": "0o700",
            "file_task_handler_new_file_permissions": "0o600",
            "colored_console_log": False,
            "namespace_levels": "airflow.dag_processing=WARNING airflow.serialization=WARNING",
        },
        "usage_data_collection": {"enabled": False},
    }
    parser = RawConfigParser()
    # Airflow's reader would read a % as the beginning of a reference.
    parser.read_dict({name: {k: str(v).replace("%", "%%") for k, v in each.items()} for name, each in sections.items()})
    text = StringIO()
    parser.write(text)
    return text.getvalue()


def _passwords_file(settings: Settings) -> Path:
    return home(settings) / "passwords.json"


def _probe(settings: Settings, component: str) -> Callable[[float], bool]:
    key = _HEALTH_KEYS[component]

    def answers(started: float) -> bool:
        try:
            response = httpx.get(f"{settings.airflow_url}/api/v2/monitor/health", timeout=5, trust_env=False)
            health = response.json()[key] if response.status_code == httpx.codes.OK else {}
        except (httpx.TransportError, json.JSONDecodeError, KeyError):
            return False
        return health.get("status") == "healthy" and _is_fresh(health.get(f"latest_{key}_heartbeat"), started)

    return answers


def _is_fresh(heartbeat: str | None, started: float) -> bool:
    """Whether the heartbeat is of the process with this start time. The API server has none; it answered."""
    return heartbeat is None or datetime.fromisoformat(heartbeat).timestamp() >= started
