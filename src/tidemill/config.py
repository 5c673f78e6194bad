"""The one configuration object: built-in values, then ``<state>/settings.json``, then ``TIDEMILL_*``.

It is read once at an edge (CLI, DAG, Spark job) and passed inwards. Passwords live in ``<state>/secrets.json``
(mode 0600) or, where an orchestrator injects them, in ``TIDEMILL_DB_<ACCOUNT>_PASSWORD``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from tidemill.errors import ConfigError
from tidemill.resources import checkout

PREFIX = "TIDEMILL_"
METRICS_TOKEN = "metrics_token"  # noqa: S105 -- the name of a secret, not one
"""What a scraper of ``/tidemill/metrics`` shows instead of an Airflow login."""


class Account(StrEnum):
    """Database accounts, each with the least it needs."""

    MIGRATE = "migrate"
    """Creates and alters tables; used by ``apply`` only."""
    STREAM = "stream"
    """Reads and writes rows, and makes temporary tables: drivers, scoring, Airflow's control."""
    READ = "read"
    """Reads only: training, the console, the application."""


def is_uri(place: str | Path) -> bool:
    """Whether a place is a URI, and not a path of this machine."""
    return "://" in str(place) or str(place).startswith("file:")


def folder_of(place: str | Path) -> Path | None:
    """A place as a folder of this machine; None for a URI that is not ``file:``."""
    if not is_uri(place):
        return Path(place)
    scheme, _, path, _, _ = urlsplit(str(place))
    return Path(unquote(path)) if scheme == "file" else None


def _place(value: object) -> object:
    """A path as one, a URI as the text that it is: a path would lose one of its slashes."""
    return Path(value) if isinstance(value, str) and not is_uri(value) else value


def _without_secret(value: str) -> str:
    if "@" in urlsplit(value).netloc:
        # Without the value: an error of pydantic's would show it.
        raise ConfigError(
            "setting TIDEMILL_MLFLOW_TRACKING_URI holds a login, and a setting holds no secret",
            remedy="take it out, and set MLflow's own MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        )
    return value


class Settings(BaseModel):
    """Everything that differs between one installation and the next. Never holds a password."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    """The project folder, which holds ``pipelines/`` and, unless set otherwise, the state."""
    state: Path
    """Logs, checkpoints, models and the embedded servers' data."""
    pipelines: Path
    jars: Path
    """Folder with ``spark/``, ``broker/`` and ``db/``: what Ivy fetched."""
    models: Annotated[Path | str, BeforeValidator(_place)]
    """Where model artifacts go: a folder, or a URI that Hadoop knows (``hdfs://…``, ``s3a://…``, ``file:///…``)."""
    kafka_bootstrap: str = "127.0.0.1:19092"
    db_host: str = "127.0.0.1"
    db_port: int = 13306
    db_tls: bool = False
    """TLS to the database. Off by default because the default host is loopback, where it costs 109 ms a connection."""
    db_dialect: str = "mariadb"
    """Which database it is: a name in ``tidemill.store.sql``, which has the say on it."""
    db_control: str = "tidemill"
    """Schema of the control plane."""
    db_data: str = "operational"
    """Schema of the operational tables."""
    airflow_host: str = "127.0.0.1"
    airflow_port: int = 18080
    spark_master: str = "local[*]"
    spark_driver_memory: str = "2g"
    db_buffer_pool: str = "1G"
    """InnoDB buffer pool of the embedded database."""
    ledger_days: int = Field(30, ge=1)
    """Commits older than this are put together in fewer rows of the ledger."""
    quarantine_days: int = Field(90, ge=1)
    """Quarantined records are kept for so long, and deletion markers at least as long."""
    log_days: int = Field(30, ge=1)
    """Logs of former drivers are kept for so long."""
    log_bytes: int = Field(64 * 2**20, ge=2**16)
    """A driver's log that is longer is put aside; three former parts of it stay."""
    notifiers: str = ""
    """Who is told of incidents: dotted names, comma separated, of what gives an Airflow notifier. Empty: a log line."""
    mlflow_tracking_uri: Annotated[str, AfterValidator(_without_secret)] = ""
    """Where trainings are logged as MLflow runs too. Empty: nowhere."""

    @property
    def airflow_url(self) -> str:
        return f"http://{self.airflow_host}:{self.airflow_port}"

    @property
    def secrets_file(self) -> Path:
        return self.state / "secrets.json"

    @property
    def settings_file(self) -> Path:
        return self.state / "settings.json"

    @property
    def models_folder(self) -> Path | None:
        """The folder of model artifacts; None where they are not on this machine."""
        return folder_of(self.models)

    def user(self, account: Account) -> str:
        """The database user name of an account."""
        return f"{self.db_control}_{account.value}"

    def password(self, account: Account) -> SecretStr:
        """The password of an account, from the environment or the secrets file."""
        name = f"{PREFIX}DB_{account.name}_PASSWORD"
        if name in os.environ:
            return SecretStr(os.environ[name])
        return self.secret(account.value)

    def secret(self, name: str) -> SecretStr:
        """A generated secret by name."""
        try:
            found = json.loads(self.secrets_file.read_text())[name]
        except (OSError, KeyError, json.JSONDecodeError):
            raise ConfigError(
                f"no secret named {name}",
                value=self.secrets_file,
                remedy="start the stack once with ./tidemill up, or set "
                f"{PREFIX}DB_<ACCOUNT>_PASSWORD for MIGRATE, STREAM and READ",
            ) from None
        return SecretStr(str(found))

    def environment(self) -> dict[str, str]:
        """The settings as ``TIDEMILL_*`` variables, for a child process. Holds no secret."""
        return {PREFIX + name.upper(): str(value) for name, value in self.model_dump().items()}


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Raises:
        ConfigError: a value has the wrong form, or a ``TIDEMILL_`` name or a key of the file is unknown.
    """
    env = os.environ if environ is None else environ
    given = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in env.items()
        if name.startswith(PREFIX) and not name.endswith("_PASSWORD")
    }
    # Absolute: children run in other working directories.
    root = Path(given.get("root") or _find_root()).resolve()
    state = Path(given.get("state") or root / ".tidemill").resolve()
    values: dict[str, Any] = {
        "root": root,
        "state": state,
        "pipelines": root / "pipelines",
        "jars": root / ".tidemill" / "jars",
        "models": state / "models",
    }
    values |= _read_file(state / "settings.json") | given | {"root": root, "state": state}
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise ConfigError(
            f"setting {name} is not valid ({first['msg']})",
            value=values.get(str(first["loc"][0])),
            remedy=f"known settings are {', '.join(sorted(Settings.model_fields))}",
        ) from None


def _read_file(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ConfigError(
            "settings file is not JSON", value=f"{path}: {error}", remedy="remove it and start ./tidemill up"
        ) from None
    return dict(found)


def _find_root() -> Path:
    """The folder of the checkout; of an installed wheel, the working directory."""
    return checkout() or Path.cwd()
