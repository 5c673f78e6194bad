"""Generated secrets."""

from __future__ import annotations

import json

import pytest

from tidemill.config import Account, Settings
from tidemill.devstack import secrets
from tidemill.errors import SetupError


def test_secrets_are_made_once_and_only_their_owner_may_read_them(own: Settings) -> None:
    """A second call finds the secrets of the first, in a file of mode 0600."""
    first = secrets.ensure(own)
    assert set(first) == set(secrets.NAMES)
    assert len(set(first.values())) == len(first)
    assert secrets.ensure(own) == first
    assert own.secrets_file.stat().st_mode & 0o777 == 0o600
    assert own.password(Account.STREAM).get_secret_value() == first["stream"]


def test_missing_secret_is_added_and_others_stay(own: Settings) -> None:
    """A secrets file of an older version is completed; what it holds is kept."""
    secrets.write_private(own.secrets_file, json.dumps({"stream": "kept", "something": "else"}))
    found = secrets.ensure(own)
    assert found["stream"] == "kept"
    assert found["something"] == "else"
    assert set(secrets.NAMES) <= set(found)


def test_file_that_others_could_read_is_closed(own: Settings) -> None:
    """A secrets file that was left open to others is closed at the next start."""
    secrets.ensure(own)
    own.secrets_file.chmod(0o644)
    secrets.ensure(own)
    assert own.secrets_file.stat().st_mode & 0o777 == 0o600


def test_broken_file_is_named(own: Settings) -> None:
    """A secrets file that is not JSON is an error that names it, not a reason to make new secrets silently."""
    own.secrets_file.write_text("{")
    with pytest.raises(SetupError, match=r"TM-DEVSTACK-SECRETS-NOT-JSON.*secrets\.json"):
        secrets.ensure(own)


def test_secrets_are_masked_in_what_is_shown(own: Settings) -> None:
    """A log line that holds a secret is shown without it."""
    secret = secrets.ensure(own)["read"]
    assert secrets.masked(f"password={secret} refused", own) == "password=*** refused"
