"""What is handed to spark-submit for each kind of cluster. After a change that is meant: ``UPDATE_GOLDEN=1 pytest``."""

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.models.connection import Connection
from airflow.providers.apache.spark.hooks import spark_submit

from support.paths import ROOT
from tidemill.config import Account, Settings
from tidemill.errors import StreamError
from tidemill.spec.schema import Pipeline
from tidemill.supervisor.cluster import Cluster, ClusterKind, cluster_of
from tidemill.supervisor.spark_submit import SubmitRequest, kill_command, spark_environment, stream_command
from tidemill.supervisor.spark_submit import spark_submit as find_spark_submit

GOLDEN = Path(__file__).parent / "golden"
RESOURCES: dict[str, Any] = {
    "driver": {"cores": 2, "memory": "1g"},
    "executors": {"instances": 3, "cores": 2, "memory": "2g"},
    "conf": {"spark.task.maxFailures": 8, "spark.executor.extraJavaOptions": "-Xss2m", "spark.rdd.compress": True},
}
KUBERNETES = {
    "namespace": "streams",
    "secret": "tidemill-db",
    "conf": {
        "spark.kubernetes.container.image": "registry.example/tidemill:1",
        "spark.kubernetes.driver.volumes.persistentVolumeClaim.state.mount.path": "/var/lib/tidemill",
    },
}
CONNECTIONS: dict[str, dict[str, Any]] = {
    "local": {"conn_type": "spark", "host": "local[*]"},
    "standalone-client": {"conn_type": "spark", "host": "spark://master", "port": 7077},
    "standalone-cluster": {"conn_type": "spark", "host": "spark://master:7077", "extra": {"deploy-mode": "cluster"}},
    "yarn-client": {"conn_type": "spark", "host": "yarn", "extra": {"deploy-mode": "client", "queue": "root.streams"}},
    "yarn-cluster": {
        "conn_type": "spark",
        "host": "yarn",
        "extra": {
            "deploy-mode": "cluster",
            "queue": "root.streams",
            "environment": "hdfs:///tidemill/env-1.tar.gz#environment",
        },
    },
    "kubernetes-client": {"conn_type": "k8s", "host": "https://api.example", "port": 6443, "extra": KUBERNETES},
    "kubernetes-cluster": {
        "conn_type": "spark",
        "host": "k8s://https://api.example:6443",
        "extra": KUBERNETES | {"deploy-mode": "cluster", "python": "/opt/tidemill/.venv/bin/python"},
    },
}


def connection(name: str) -> Connection:
    """An Airflow connection, as a person would write it down."""
    given = dict(CONNECTIONS[name])
    return Connection(conn_id="spark_default", extra=json.dumps(given.pop("extra", {})), **given)


def cluster(name: str) -> Cluster:
    return cluster_of(connection(name))


@pytest.fixture
def installed(tmp_path: Path) -> Settings:
    """Settings of an installation with two jars."""
    jars = tmp_path / "jars"
    (jars / "spark").mkdir(parents=True)
    for name in ("kafka-clients.jar", "spark-sql-kafka.jar"):
        (jars / "spark" / name).touch()
    root, state = Path("/opt/tidemill"), Path("/var/lib/tidemill")
    return Settings(
        root=root, state=state, pipelines=root / "pipelines", jars=jars, models=state / "models", db_host="db.example"
    )


def pipeline(**resources: Any) -> Pipeline:
    """A pipeline as it was applied."""
    content = {
        "name": "flights",
        "owner": "nobody",
        "source": {"topic": "flights", "schema": "id BIGINT"},
        "tables": {"flights": {"from": "t.sql", "kind": "event", "key": ["id"], "columns": {"id": "BIGINT NOT NULL"}}},
    }
    folder = Path("/var/lib/tidemill/applied/flights/2/flights")
    return Pipeline.model_validate(content | {"resources": resources, "folder": folder, "digest": ""})


def command(settings: Settings, name: str, **conf: str) -> list[str]:
    """The command line of epoch 7."""
    mark = {"TIDE_DRIVER": "flights/7"}
    return stream_command(
        settings, cluster(name), "spark-submit", SubmitRequest(pipeline(**RESOURCES), 7, conf, environment=mark)
    )


def as_text(argv: list[str], settings: Settings) -> str:
    """A readable command line: an option and its value a line. Of the settings, only two are shown."""
    lines: list[str] = []
    for word in argv:
        shown = (
            word.replace(str(settings.jars), "<jars>")
            .replace(sys.executable, "<python>")
            .replace(str(ROOT), "/opt/tidemill")
            or '""'
        )
        if lines and lines[-1].startswith("--") and " " not in lines[-1] and not word.startswith("--"):
            lines[-1] += f" {shown}"
        else:
            lines.append(shown)
    others = re.compile(r"Env\.TIDEMILL_(?!STATE|DB_HOST)\w+=")
    return "\n".join(line for line in lines if not others.search(line)) + "\n"


@pytest.mark.parametrize("name", CONNECTIONS)
def test_the_command_line_is_the_expected_one(installed: Settings, name: str) -> None:
    """Each kind of cluster gets what the guide documents, in its own way."""
    text = as_text(command(installed, name), installed)
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("name", ["yarn-cluster", "kubernetes-cluster"])
def test_every_setting_reaches_a_driver_that_inherits_no_environment(installed: Settings, name: str) -> None:
    """As the golden file shows for two of them. A standalone cluster hands spark-submit's own environment on."""
    argv = command(installed, name)
    prefix = {"yarn": "spark.yarn.appMasterEnv", "kubernetes": "spark.kubernetes.driverEnv"}[name.partition("-")[0]]
    for setting, value in installed.environment().items():
        assert f"{prefix}.{setting}={value}" in argv


@pytest.mark.parametrize("name", CONNECTIONS)
def test_no_command_line_holds_a_password(
    installed: Settings, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither one of the environment nor one of the secrets file."""
    for account in Account:
        monkeypatch.setenv(f"TIDEMILL_DB_{account.name}_PASSWORD", "hunter2")
    settings = installed.model_copy(update={"state": tmp_path})
    settings.secrets_file.write_text(json.dumps({account.value: "hunter3" for account in Account}))
    assert "hunter" not in " ".join(command(settings, name))


@pytest.mark.parametrize("name", CONNECTIONS)
def test_only_a_local_driver_listens_on_loopback(installed: Settings, name: str) -> None:
    """Executors on other machines have to reach the driver; a local driver has none."""
    local = cluster(name).kind is ClusterKind.LOCAL
    assert ("spark.driver.host=127.0.0.1" in command(installed, name)) is local
    assert ("SPARK_LOCAL_IP" in spark_environment(installed, {"PATH": "/bin"}, cluster(name))) is local


@pytest.mark.parametrize("mode", [0o700, 0o750])
def test_what_a_local_spark_writes_is_as_private_as_the_state_folder(
    installed: Settings, tmp_path: Path, mode: int
) -> None:
    """Models and checkpoints are the owner's alone where the state folder is; clusters decide themselves."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(mode)
    private = installed.model_copy(update={"state": tmp_path / "state"})
    conf = "spark.hadoop.fs.permissions.umask-mode=077"
    assert {name for name in CONNECTIONS if conf in command(private, name)} == ({"local"} if mode == 0o700 else set())
    assert conf not in command(private.model_copy(update={"models": "hdfs://h/models"}), "local")


def test_a_password_of_the_environment_stays_where_the_driver_is(installed: Settings) -> None:
    """A process of this machine gets it; a cluster that runs the driver does not, because it would keep it."""
    given = {"PATH": "/bin", "TIDEMILL_DB_STREAM_PASSWORD": "hunter2", "SPARK_LOCAL_IP": "10.0.0.1"}
    for name in CONNECTIONS:
        passed = spark_environment(installed, given, cluster(name))
        here = not cluster(name).runs_drivers
        assert ("hunter2" in passed.values()) is here
        assert ("SPARK_LOCAL_IP" in passed) is here


def test_the_nearest_conf_prevails_except_for_what_keeps_tables_exact(installed: Settings) -> None:
    """The caller over the connection over the pipeline over the usual; options add up; some cannot be changed."""
    conf = {
        "spark.task.maxFailures": "1",
        "spark.driver.extraJavaOptions": "-Xss4m",
        "spark.speculation": "true",
        "spark.kubernetes.container.image": "other",
    }
    argv = command(installed, "kubernetes-client", **conf)
    assert "spark.task.maxFailures=1" in argv
    assert "spark.kubernetes.container.image=other" in argv
    assert "spark.driver.extraJavaOptions=-XX:+ExitOnOutOfMemoryError -Xss4m" in argv
    assert "spark.speculation=false" in argv


def test_a_cluster_is_given_an_address_and_finds_the_jar_in_any_folder(installed: Settings, tmp_path: Path) -> None:
    """A worker opens what a standalone master was given as a URI: a blank in it would end the driver unstarted."""
    jars = tmp_path / "tide mühle" / "jars"
    (jars / "spark").mkdir(parents=True)
    (jars / "spark" / "connector.jar").touch()
    argv = command(installed.model_copy(update={"jars": jars}), "standalone-cluster")
    assert argv[argv.index("org.apache.spark.deploy.PythonRunner") + 1].endswith(
        "/tide%20m%C3%BChle/jars/spark/connector.jar"
    )


def test_without_resources_spark_decides(installed: Settings) -> None:
    """What the pipeline does not set is left out; the driver's memory is the setting's."""
    argv = stream_command(installed, cluster("standalone-client"), "spark-submit", SubmitRequest(pipeline(), 7))
    assert [word for word in argv if "executor" in word] == []
    assert argv[argv.index("--driver-memory") + 1] == installed.spark_driver_memory


def test_without_jars_nothing_is_submitted(installed: Settings, tmp_path: Path) -> None:
    """The value is the folder that was searched."""
    with pytest.raises(StreamError) as caught:
        command(installed.model_copy(update={"jars": tmp_path / "none"}), "local")
    assert caught.value.code == "TM-SUPERVISOR-JARS-MISSING"
    assert caught.value.value == tmp_path / "none" / "spark"


def test_a_program_that_is_not_on_the_path_is_an_error(tmp_path: Path) -> None:
    """The value is the PATH that was searched."""
    with pytest.raises(StreamError) as caught:
        find_spark_submit({"PATH": str(tmp_path)}, "spark-class")
    assert (caught.value.code, caught.value.value) == ("TM-SUPERVISOR-PROGRAM-MISSING", str(tmp_path))
    assert caught.value.parameters == {"program": "spark-class"}


@pytest.mark.parametrize(
    ("name", "master", "runs_drivers"),
    [
        ("local", "local[*]", False),
        ("standalone-client", "spark://master:7077", False),
        ("standalone-cluster", "spark://master:7077", True),
        ("yarn-client", "yarn", False),
        ("yarn-cluster", "yarn", True),
        ("kubernetes-client", "k8s://https://api.example:6443", False),
        ("kubernetes-cluster", "k8s://https://api.example:6443", True),
    ],
)
def test_a_connection_means_what_it_means_to_the_operator_of_the_refreshes(
    name: str, master: str, runs_drivers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Master, mode, queue and namespace are those that the provider's hook makes of the same connection."""
    # Without the Kubernetes client the hook's own check for it breaks.
    monkeypatch.setattr(spark_submit, "kube_client", object(), raising=False)
    monkeypatch.setattr(spark_submit.SparkSubmitHook, "get_connection", lambda self, conn_id: connection(name))
    theirs, ours = spark_submit.SparkSubmitHook()._connection, cluster(name)
    assert theirs["master"] == ours.master == master
    assert (theirs["deploy_mode"] or "client") == ours.deploy_mode
    assert (theirs["queue"], theirs["namespace"]) == (ours.queue, ours.namespace)
    assert theirs["spark_binary"] == ours.spark_binary
    assert ours.runs_drivers is runs_drivers


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"host": "mesos://master:5050"}, "TM-SUPERVISOR-MASTER-UNKNOWN"),
        ({"host": None}, "TM-SUPERVISOR-MASTER-MISSING"),
        ({"host": "yarn", "extra": {"deploy-mode": "both"}}, "TM-SUPERVISOR-DEPLOY-MODE-UNKNOWN"),
        ({"host": "yarn", "extra": {"spark-binary": "/bin/sh"}}, "TM-SUPERVISOR-SPARK-BINARY-UNKNOWN"),
        ({"host": "yarn", "extra": {"principal": "streams@EXAMPLE"}}, "TM-SUPERVISOR-KERBEROS-UNSUPPORTED"),
        ({"host": "yarn", "extra": {"conf": "spark.a=b"}}, "TM-SUPERVISOR-CONF-NO-OBJECT"),
        ({"host": "yarn", "extra": {"conf": {"spark.ssl.keyPassword": "hunter2"}}}, "TM-SPEC-CONF-SECRET"),
        ({"host": "yarn", "extra": {"conf": {"master": "local"}}}, "TM-SPEC-CONF-NOT-SPARK"),
    ],
)
def test_a_connection_that_streams_do_not_support_is_rejected(fields: dict[str, Any], code: str) -> None:
    """With one sentence, and without the secret in it; the codes of ``conf`` are those of a pipeline's."""
    target = SimpleNamespace(conn_type="spark", port=None, host=fields["host"], extra_dejson=fields.get("extra", {}))
    with pytest.raises(StreamError) as caught:
        cluster_of(target)
    assert caught.value.code == code
    assert "hunter2" not in str(caught.value)


def test_each_cluster_has_its_own_command_to_end_a_driver() -> None:
    """A standalone master by the protocol that it always speaks."""
    assert kill_command("spark://m:7077", "driver-1") == [
        "spark-class", "org.apache.spark.deploy.Client", "kill", "spark://m:7077", "driver-1"
    ]  # fmt: skip
    assert kill_command("yarn", "application_1_2") == ["yarn", "application", "-kill", "application_1_2"]
    assert kill_command("k8s://https://api", "streams:tidemill-flights-7") == [
        "spark-submit", "--master", "k8s://https://api", "--kill", "streams:tidemill-flights-7"
    ]  # fmt: skip
