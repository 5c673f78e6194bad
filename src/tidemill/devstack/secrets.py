"""The generated secrets of the embedded stack: generated once, stored in ``<state>/secrets.json`` with mode 0600."""

from __future__ import annotations

import base64
import json
import os
import secrets
from pathlib import Path

from tidemill import config
from tidemill.config import Account, Settings
from tidemill.errors import SetupError

DB_ROOT = "root"
AIRFLOW_ADMIN = "airflow_admin"
AIRFLOW_FERNET = "airflow_fernet"
AIRFLOW_JWT = "airflow_jwt"
AIRFLOW_SECRET_KEY = "airflow_secret_key"  # noqa: S105 -- the name of a secret, not one
METRICS_TOKEN = config.METRICS_TOKEN

NAMES = (
    DB_ROOT,
    *(account.value for account in Account),
    AIRFLOW_ADMIN,
    AIRFLOW_FERNET,
    AIRFLOW_JWT,
    AIRFLOW_SECRET_KEY,
    METRICS_TOKEN,
)


def ensure(settings: Settings) -> dict[str, str]:
    """The secrets by name; missing ones are generated first.

    Raises:
        SetupError: the secrets file cannot be read as JSON.
    """
    path = settings.secrets_file
    known: dict[str, str] = {}
    if path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise SetupError("TM-DEVSTACK-SECRETS-NOT-JSON", value=error, path=path) from error
        path.chmod(0o600)
    missing = {name: _generate(name) for name in NAMES if name not in known}
    if missing:
        known |= missing
        write_private(path, json.dumps(known, indent=1) + "\n")
    return known


def write_private(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, at no moment readable by other users."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def masked(text: str, settings: Settings) -> str:
    """``text`` with every generated secret in it replaced, for log lines that are shown."""
    try:
        known = json.loads(settings.secrets_file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return text
    for secret in known.values():
        text = text.replace(str(secret), "***")
    return text


def _generate(name: str) -> str:
    if name == AIRFLOW_FERNET:
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    if name in (AIRFLOW_JWT, AIRFLOW_SECRET_KEY):
        return secrets.token_hex(32)
    return secrets.token_urlsafe(24)
