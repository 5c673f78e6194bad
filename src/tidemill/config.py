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

from tidemill.errors import ConfigError, SetupError
from tidemill.errors.suggestion import suggestion
from tidemill.resources import checkout

PREFIX = "TIDEMILL_"
REFUSED_IN_PATHS = ",:;'\"\\%?#*[]{}$`"
"""Lists are split at ``, : ;``, options at quotes; the others begin patterns, URI parts, references or commands."""
_NOT_UTF8 = {chr(code) for code in range(0xDC80, 0xDD00)}
"""How Python shows the bytes of a file name that are no UTF-8; a JVM cannot open such a file."""
METRICS_TOKEN = "metrics_token"  # noqa: S105 -- the name of a secret, not one
"""Name of the secret that a scraper of ``/tidemill/metrics`` sends instead of an Airflow login."""


class Account(StrEnum):
    """Database accounts, each with the fewest privileges that its processes need."""

    MIGRATE = "migrate"
    """Creates and alters tables; used by ``apply`` only."""
    STREAM = "stream"
    """Reads and writes rows, and creates temporary tables; used by drivers, scoring and Airflow."""
    READ = "read"
    """Reads only; used by training, the console and applications."""


def is_uri(location: str | Path) -> bool:
    """Whether a location is a URI; otherwise it is a path on this machine."""
    return "://" in str(location) or str(location).startswith("file:")


def folder_of(location: str | Path) -> Path | None:
    """The folder on this machine that a path or a ``file:`` URI names; None for any other URI."""
    if not is_uri(location):
        return Path(location)
    scheme, _, path, _, _ = urlsplit(str(location))
    return Path(unquote(path)) if scheme == "file" else None


def _as_location(value: object) -> object:
    """A path becomes a ``Path``. A URI remains text, because ``Path`` would remove one of its slashes."""
    return Path(value) if isinstance(value, str) and not is_uri(value) else value


def _without_login(value: str) -> str:
    if "@" in urlsplit(value).netloc:
        # A ConfigError, because pydantic's own error would show the value.
        raise ConfigError("TM-CONFIG-LOGIN-IN-URI")
    return value


class Settings(BaseModel):
    """Everything that differs between two installations. Holds no password."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    """The project folder, which holds ``pipelines/`` and, unless set otherwise, the state."""
    state: Path
    """Logs, checkpoints, models and the embedded servers' data."""
    pipelines: Path
    jars: Path
    """Folder with ``spark/``, ``broker/`` and ``db/``, which holds the jars that Ivy downloaded."""
    models: Annotated[Path | str, BeforeValidator(_as_location)]
    """Where model artifacts go: a folder, or a URI that Hadoop knows (``hdfs://…``, ``s3a://…``, ``file:///…``)."""
    kafka_bootstrap: str = "127.0.0.1:19092"
    db_host: str = "127.0.0.1"
    db_port: int = Field(13306, ge=1, le=65535)
    db_tls: bool = False
    """TLS to the database. Off by default because the default host is loopback, where it costs 109 ms a connection."""
    db_dialect: str = "mariadb"
    """The kind of database: a name in ``tidemill.store.sql.DIALECTS``."""
    db_control: str = "tidemill"
    """Schema of the control plane."""
    db_data: str = "operational"
    """Schema of the operational tables."""
    airflow_host: str = "127.0.0.1"
    airflow_port: int = Field(18080, ge=1, le=65535)
    spark_master: str = "local[*]"
    spark_driver_memory: str = "2g"
    db_buffer_pool: str = "1G"
    """InnoDB buffer pool of the embedded database."""
    ledger_days: int = Field(30, ge=1)
    """Commits older than this many days are merged into fewer rows of the ledger."""
    quarantine_days: int = Field(90, ge=1)
    """Quarantined records are kept for this many days, and deletion markers at least as long."""
    history_days: int = Field(400, ge=1)
    """Refreshes, decisions, incidents, replays and former model versions are kept for this many days."""
    stuck_batch_seconds: float = Field(900, gt=0)
    """A driver whose batch takes longer ends; the next one reads the batch in parts. Slowness alone costs a restart."""
    log_days: int = Field(30, ge=1)
    """Logs of former drivers are kept for this many days."""
    log_bytes: int = Field(64 * 2**20, ge=2**16)
    """A driver's log is rotated at this size; three rotated files are kept."""
    notifiers: str = ""
    """What is called when an incident opens or closes: dotted names, separated by commas, of callables that return an
    Airflow notifier. Empty: a line in the log."""
    mlflow_tracking_uri: Annotated[str, AfterValidator(_without_login)] = ""
    """MLflow server that every training is also logged to, as a run. Empty: no MLflow."""

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
        """The folder of model artifacts; None if they are not stored on this machine."""
        return folder_of(self.models)

    def user(self, account: Account) -> str:
        """The database user name of an account."""
        return f"{self.db_control}_{account.value}"

    def password(self, account: Account) -> SecretStr:
        """The password of an account, from the environment or the secrets file.

        Raises:
            ConfigError: neither has it.
        """
        name = f"{PREFIX}DB_{account.name}_PASSWORD"
        if name in os.environ:
            return SecretStr(os.environ[name])
        return self.secret(account.value)

    def secret(self, name: str) -> SecretStr:
        """A generated secret by name.

        Raises:
            ConfigError: the secrets file does not have it.
        """
        try:
            value = json.loads(self.secrets_file.read_text(encoding="utf-8"))[name]
        except (OSError, KeyError, TypeError, ValueError):  # no such file, no such secret, or not a JSON object
            raise ConfigError("TM-CONFIG-SECRET-MISSING", value=self.secrets_file, name=name) from None
        return SecretStr(str(value))

    def environment(self) -> dict[str, str]:
        """The settings as ``TIDEMILL_*`` variables, for a child process. Holds no secret."""
        return {PREFIX + name.upper(): str(value) for name, value in self.model_dump().items()}


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Raises:
        ConfigError: a value is not valid, or no setting has the name of a ``TIDEMILL_*`` variable or key of the file.
        SetupError: a path has a character that a server's own syntax cannot hold.
    """
    env = os.environ if environ is None else environ
    from_environment = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in env.items()
        if name.startswith(PREFIX) and not name.endswith("_PASSWORD")
    }
    # Absolute: children run in other working directories.
    root = Path(from_environment.get("root") or _find_root()).resolve()
    state = Path(from_environment.get("state") or root / ".tidemill").resolve()
    folders = {
        "pipelines": root / "pipelines",
        "jars": root / ".tidemill" / "jars",
        "models": state / "models",
    }
    values: dict[str, Any] = _read_file(state / "settings.json") | from_environment | {"root": root, "state": state}
    for key, built_in in folders.items():
        given = values.get(key) or built_in
        values[key] = Path(given).absolute() if isinstance(given, str) and not is_uri(given) else given
    try:
        settings = Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        name = PREFIX + key.upper()
        if first["type"] == "extra_forbidden":
            known = sorted(PREFIX + field.upper() for field in Settings.model_fields)
            raise ConfigError("TM-CONFIG-SETTING-UNKNOWN", value=name, suggestion=suggestion(name, known)) from None
        reason = first["msg"][:1].lower() + first["msg"][1:]
        raise ConfigError("TM-CONFIG-SETTING-INVALID", value=values.get(key), name=name, reason=reason) from None
    for key in ("root", "state", "pipelines", "jars", "models"):
        _require_plain_path(PREFIX + key.upper(), getattr(settings, key))
    return settings


def _require_plain_path(name: str, path: Path | str) -> None:
    """Refuse a path that Kafka, MariaDB, Spark, Airflow or the shell cannot hold in its own syntax; URIs pass.

    Raises:
        SetupError: it has such a character, a line break, or bytes that are no UTF-8.
    """
    if isinstance(path, Path) and any(
        each in REFUSED_IN_PATHS or ord(each) < ord(" ") or each in _NOT_UTF8 for each in str(path)
    ):
        shown = str(path).encode("utf-8", "backslashreplace").decode()
        raise SetupError("TM-CONFIG-PATH", value=shown, name=name, refused=" ".join(REFUSED_IN_PATHS))


def _read_file(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError("TM-CONFIG-FILE-INVALID", value=error, path=path) from None


def _find_root() -> Path:
    """The folder of the checkout; of an installed wheel, the working directory."""
    return checkout() or Path.cwd()
