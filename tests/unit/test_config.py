"""One configuration object: built-in values, then the state's file, then the environment. Never a password."""

import json
from pathlib import Path

import pytest

from tidemill import config
from tidemill.config import Account
from tidemill.errors import ConfigError, SetupError


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """What an operator exports is what counts."""
    (tmp_path / "settings.json").write_text(json.dumps({"db_port": 4000, "airflow_port": 4001}))
    settings = config.load({"TIDEMILL_STATE": str(tmp_path), "TIDEMILL_DB_PORT": "5000"})
    assert (settings.db_port, settings.airflow_port) == (5000, 4001)


def test_the_environment_of_a_child_makes_the_same_settings(tmp_path: Path) -> None:
    """Drivers and Airflow get the settings as variables."""
    settings = config.load({"TIDEMILL_STATE": str(tmp_path), "TIDEMILL_DB_TLS": "true"})
    assert config.load(settings.environment()) == settings


def test_a_wrong_value_is_one_sentence(tmp_path: Path) -> None:
    """The name of the variable, the value, and the remedy."""
    with pytest.raises(ConfigError, match="TM-CONFIG-SETTING-INVALID") as caught:
        config.load({"TIDEMILL_STATE": str(tmp_path), "TIDEMILL_DB_PORT": "three"})
    assert (caught.value.value, caught.value.parameters["name"]) == ("three", "TIDEMILL_DB_PORT")


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    """A misspelt variable would otherwise be silently without effect."""
    with pytest.raises(ConfigError, match="TM-CONFIG-SETTING-UNKNOWN") as caught:
        config.load({"TIDEMILL_STATE": str(tmp_path), "TIDEMILL_DB_PROT": "1"})
    assert caught.value.value == "TIDEMILL_DB_PROT"


@pytest.mark.parametrize("content", ["{", "[1]", "null"])
def test_a_settings_file_that_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    """The message names the file."""
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ConfigError, match="TM-CONFIG-FILE-INVALID") as caught:
        config.load({"TIDEMILL_STATE": str(tmp_path)})
    assert caught.value.parameters["path"] == tmp_path / "settings.json"


def test_passwords_are_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the settings nor a password's own repr holds it."""
    monkeypatch.setenv("TIDEMILL_DB_STREAM_PASSWORD", "hush-hush")
    settings = config.load({"TIDEMILL_STATE": str(tmp_path)})
    password = settings.password(Account.STREAM)
    assert password.get_secret_value() == "hush-hush"
    assert "hush-hush" not in f"{settings!r}{settings.environment()}{password!r}{password}"


def test_a_missing_secret_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is to start the stack once, or to set the variables."""
    monkeypatch.delenv("TIDEMILL_DB_READ_PASSWORD", raising=False)
    with pytest.raises(ConfigError, match="TM-CONFIG-SECRET-MISSING") as caught:
        config.load({"TIDEMILL_STATE": str(tmp_path)}).password(Account.READ)
    assert caught.value.value == tmp_path / "secrets.json"


@pytest.mark.parametrize("name", ["ROOT", "STATE", "PIPELINES", "JARS", "MODELS"])
@pytest.mark.parametrize("character", [*config.REFUSED_IN_PATHS, "\n", "\udcfc"], ids=ascii)
def test_a_path_that_a_server_cannot_hold_is_refused(tmp_path: Path, name: str, character: str) -> None:
    """Before anything is made; exit code 3."""
    path = tmp_path / f"a{character}b"
    with pytest.raises(SetupError) as caught:
        config.load({"TIDEMILL_STATE": str(tmp_path / "state"), f"TIDEMILL_{name}": str(path)})
    assert (caught.value.code, caught.value.parameters["name"]) == ("TM-CONFIG-PATH", f"TIDEMILL_{name}")
    assert str(caught.value).encode().count(b"\n") == (character == "\n")
    assert list(tmp_path.iterdir()) == []


def test_blanks_umlauts_and_signs_are_no_hindrance(tmp_path: Path) -> None:
    """What the servers can hold is not refused."""
    state = tmp_path / "Mühle (2) & Söhne+x=1@home ~ 風車 !"
    assert config.load({"TIDEMILL_STATE": str(state)}).state == state


@pytest.mark.parametrize(
    ("given", "models", "folder"),
    [
        pytest.param("/srv/models", Path("/srv/models"), Path("/srv/models"), id="folder"),
        pytest.param(
            "file:///srv/my%20models", "file:///srv/my%20models", Path("/srv/my models"), id="uri-of-a-folder"
        ),
        pytest.param("hdfs://name:9000/models", "hdfs://name:9000/models", None, id="hadoop"),
    ],
)
def test_models_lie_in_a_folder_or_behind_a_uri(
    tmp_path: Path, given: str, models: Path | str, folder: Path | None
) -> None:
    """A URI keeps both of its slashes, also in a child's environment; only what is on this machine is a folder."""
    settings = config.load({"TIDEMILL_STATE": str(tmp_path), "TIDEMILL_MODELS": given})
    assert (settings.models, settings.models_folder) == (models, folder)
    assert config.load(settings.environment()) == settings


@pytest.mark.parametrize("name", ["pipelines", "jars", "models"])
def test_a_relative_folder_is_of_the_working_directory_and_an_empty_one_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Drivers run in another working directory, and an orchestrator sets what it does not know to nothing."""
    monkeypatch.chdir(tmp_path)
    variable = f"TIDEMILL_{name.upper()}"
    assert getattr(config.load({variable: "place"}), name) == tmp_path / "place"
    assert getattr(config.load({variable: ""}), name) == getattr(config.load({}), name)


def test_a_login_in_the_tracking_uri_is_refused(tmp_path: Path) -> None:
    """Settings are shown and handed on: the sentence says where MLflow's login goes, and does not repeat it."""
    with pytest.raises(ConfigError, match="TM-CONFIG-LOGIN-IN-URI") as caught:
        config.load({"TIDEMILL_STATE": str(tmp_path), "TIDEMILL_MLFLOW_TRACKING_URI": "https://me:hush@mlflow.example"})
    assert "hush" not in str(caught.value)
    settings = config.load({"TIDEMILL_STATE": str(tmp_path), "TIDEMILL_MLFLOW_TRACKING_URI": "https://mlflow.example"})
    assert settings.mlflow_tracking_uri == "https://mlflow.example"
