"""Arguments and environment of every ``spark-submit``: the launcher's for streams, Airflow's operator's for refreshes.

Settings, marks and passwords reach a stream's driver in a different way on each kind of cluster;
``docs/guide/clusters.md`` has the table. None of these command lines holds a password: it is read from the secrets
file, or from the environment of the process that an orchestrator put it into.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tidemill.config import PREFIX, Account, Settings
from tidemill.errors import StreamError
from tidemill.resources import resource_folder
from tidemill.spec import Pipeline
from tidemill.supervisor.cluster import Cluster, ClusterKind

_PASSED = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH")
_PASSED_PREFIXES = ("LC_", "JAVA_", "SPARK_", "PYSPARK_", "HADOOP_", "YARN_", "KRB5", "TIDE_")
_PASSWORDS = {f"{PREFIX}DB_{account.name}_PASSWORD" for account in Account}
_OF_THIS_MACHINE = ("SPARK_LOCAL_IP", "SPARK_LOCAL_HOSTNAME")
_STREAM_PASSWORD = f"{PREFIX}DB_{Account.STREAM.name}_PASSWORD"
_OPTIONS = ("spark.driver.extraJavaOptions", "spark.executor.extraJavaOptions")
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class SubmitRequest:
    """The driver that spark-submit is to start."""

    pipeline: Pipeline
    """As it was applied; the driver reads its folder."""
    epoch: int
    conf: Mapping[str, str] = field(default_factory=dict)
    """Spark configuration beyond the usual, the pipeline's and the cluster's."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the driver needs in its environment beside the settings."""


def spark_conf(settings: Settings, master: str | None = None) -> dict[str, str]:
    """Configuration of every Spark application. It holds no secret, because it is visible on the command line."""
    conf = {
        # Spark's page would listen on every address and show the environment.
        "spark.ui.enabled": "false",
        "spark.log.level": "WARN",
        # A JVM without memory would seem alive; one that has exited is started again.
        "spark.driver.extraJavaOptions": "-XX:+ExitOnOutOfMemoryError",
        "spark.pyspark.python": sys.executable,
        "spark.pyspark.driver.python": sys.executable,
    }
    if (master or settings.spark_master).startswith("local"):
        conf |= {"spark.driver.host": _LOOPBACK, "spark.driver.bindAddress": _LOOPBACK}
        if settings.models_folder is not None and _is_private(settings.state):
            # Hadoop's local file system sets modes itself, whatever the mask of the process.
            conf["spark.hadoop.fs.permissions.umask-mode"] = "077"
    return conf


def _is_private(folder: Path) -> bool:
    """Whether a folder is its owner's alone, as the state folder of the embedded stack is."""
    return folder.is_dir() and not folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def spark_jars(settings: Settings) -> str:
    """The connector's jars as the value of ``--jars``. Empty if they were not downloaded yet."""
    return ",".join(sorted(str(path) for path in (settings.jars / "spark").glob("*.jar")))


def spark_environment(
    settings: Settings, environ: Mapping[str, str] | None = None, cluster: Cluster | None = None
) -> dict[str, str]:
    """The environment of a Spark application: what programs need, and the settings.

    Airflow's own variables are left out, because they hold its secrets. A database password is passed on only if the
    orchestrator put it into this process's environment; otherwise the application reads the secrets file.

    Args:
        settings: passed on as ``TIDEMILL_*``.
        environ: the process's own if None.
        cluster: where the application runs; the settings' master if None. A cluster that runs the driver itself gets no
            password, because a standalone master would keep the environment of the submitting process.
    """
    cluster = cluster or Cluster(settings.spark_master)
    passed = program_environment(environ)
    if cluster.runs_drivers:
        passed = {name: value for name, value in passed.items() if name not in {*_PASSWORDS, *_OF_THIS_MACHINE}}
    # Executors on other machines have to reach the driver; those of a local master are the driver.
    loopback = {"SPARK_LOCAL_IP": _LOOPBACK} if cluster.kind is ClusterKind.LOCAL else {}
    own = {"PYSPARK_PYTHON": sys.executable, "PYTHONUNBUFFERED": "1"}
    return {**loopback, **passed, **own, **settings.environment()}


def program_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that Spark's programs need, with the folder of this interpreter's programs first on the PATH."""
    env = os.environ if environ is None else environ
    passed = {
        name: value
        for name, value in env.items()
        if name in _PASSED or name in _PASSWORDS or name.startswith(_PASSED_PREFIXES)
    }
    programs = Path(sys.executable).parent
    return {**passed, "PATH": os.pathsep.join([str(programs), passed.get("PATH", os.defpath)])}


def spark_submit(environment: Mapping[str, str], name: str = "spark-submit") -> str:
    """The path of the program ``spark-submit``, or of another one of Spark's.

    Raises:
        StreamError: it is not on the PATH.
    """
    program = shutil.which(name, path=environment["PATH"])
    if program is None:
        raise StreamError("TM-SUPERVISOR-PROGRAM-MISSING", program=name, value=environment["PATH"])
    return program


def stream_command(settings: Settings, cluster: Cluster, program: str, request: SubmitRequest) -> list[str]:
    """The command line of a driver. It holds no secret.

    Args:
        settings: jars, entry, memory.
        cluster: where it runs.
        program: the path of ``spark-submit``.
        request: the driver to start.

    Raises:
        StreamError: Spark's jars were not downloaded, or the master is of no known kind.
    """
    jars = spark_jars(settings).split(",")
    if not jars[0]:
        raise StreamError("TM-SUPERVISOR-JARS-MISSING", value=settings.jars / "spark")
    entry = str(resource_folder("spark_jobs") / "stream.py")
    application = [entry]
    if cluster.runs_drivers and cluster.kind is ClusterKind.KUBERNETES:
        # In the image they are at the same paths.
        jars, application = [f"local://{jar}" for jar in jars], [f"local://{entry}"]
    if cluster.runs_drivers and cluster.kind is ClusterKind.STANDALONE:
        # spark-submit rejects Python here, and accepts a class of Spark that runs it. One jar is the application.
        application_jar, *jars = jars
        application = ["--class", "org.apache.spark.deploy.PythonRunner", Path(application_jar).as_uri(), entry, ""]
    return [
        program,
        *("--master", cluster.master),
        *(("--deploy-mode", "cluster") if cluster.runs_drivers else ()),
        *(("--queue", cluster.queue) if cluster.queue and cluster.kind is ClusterKind.YARN else ()),
        *_resources(settings, cluster, request.pipeline),
        *(("--jars", ",".join(jars)) if jars else ()),
        *(("--archives", cluster.environment) if cluster.environment and cluster.kind is ClusterKind.YARN else ()),
        *(part for name, value in _conf(settings, cluster, request).items() for part in _conf_arguments(name, value)),
        *application,
        *(("--report",) if cluster.runs_drivers else ()),
        *("--folder", str(request.pipeline.folder)),
        *("--pipeline", request.pipeline.name),
        *("--epoch", str(request.epoch)),
    ]


def kill_command(master: str, submission_id: str) -> list[str]:
    """The command line that ends a driver which a cluster runs; its first word is a program on the PATH.

    Raises:
        StreamError: the master is of no known kind.
    """
    kind = Cluster(master).kind
    if kind is ClusterKind.YARN:
        return ["yarn", "application", "-kill", submission_id]
    if kind is ClusterKind.STANDALONE:
        # spark-submit --kill calls the master's REST server, which is off by default.
        return ["spark-class", "org.apache.spark.deploy.Client", "kill", master, submission_id]
    return ["spark-submit", "--master", master, "--kill", submission_id]


def pod_name(stream: str, epoch: int) -> str:
    """The name of a driver's pod, which follows from stream and epoch so that it need not be stored."""
    return f"tidemill-{stream.replace('_', '-')}-{epoch}"


def _conf_arguments(name: str, value: str) -> tuple[str, str]:
    return "--conf", f"{name}={value}"


def _resources(settings: Settings, cluster: Cluster, pipeline: Pipeline) -> Iterator[str]:
    driver, executors = pipeline.resources.driver, pipeline.resources.executors
    yield from ("--driver-memory", driver.memory or settings.spark_driver_memory)
    if driver.cores and cluster.runs_drivers:
        yield from ("--driver-cores", str(driver.cores))
    if cluster.kind is ClusterKind.LOCAL:
        return
    if executors.memory:
        yield from ("--executor-memory", executors.memory)
    if cluster.kind is ClusterKind.STANDALONE:
        # A standalone master has no number of executors, only of cores, and by default it assigns all of them.
        if executors.instances or executors.cores:
            yield from ("--executor-cores", str(executors.cores or 1))
        if executors.instances:
            yield from ("--total-executor-cores", str(executors.instances * (executors.cores or 1)))
        return
    if executors.cores:
        yield from ("--executor-cores", str(executors.cores))
    if executors.instances:
        yield from ("--num-executors", str(executors.instances))


def _conf(settings: Settings, cluster: Cluster, request: SubmitRequest) -> dict[str, str]:
    """The usual configuration, then the pipeline's, the cluster's and the caller's; last what the cluster requires."""
    pipeline = request.pipeline
    conf = {"spark.app.name": f"tidemill stream {pipeline.name}", **spark_conf(settings, cluster.master)}
    for further in (pipeline.resources.conf, cluster.conf, request.conf):
        # Java options are a list: further ones are appended to the usual ones.
        joined = {name: f"{conf[name]} {further[name]}" for name in _OPTIONS if name in conf and name in further}
        conf |= {**further, **joined}
    # The database would reject one of two attempts of a task, whose work would be wasted.
    conf["spark.speculation"] = "false"
    return conf | _pythons(cluster) | dict(_required_conf(settings, cluster, request))


def _pythons(cluster: Cluster) -> dict[str, str]:
    """Drivers and executors run the interpreter that tidemill is installed in, on their own machines."""
    remote = cluster.python or sys.executable
    if cluster.environment and cluster.kind is ClusterKind.YARN:
        # Unpacked in the working folder of each process, under the name after the #.
        remote = cluster.python or f"./{cluster.environment.partition('#')[2] or 'environment'}/bin/python"
    of_driver = remote if cluster.runs_drivers else sys.executable
    return {"spark.pyspark.python": remote, "spark.pyspark.driver.python": of_driver}


def _required_conf(settings: Settings, cluster: Cluster, request: SubmitRequest) -> Iterator[tuple[str, str]]:
    environment = {**settings.environment(), **request.environment, "PYTHONUNBUFFERED": "1"}
    if cluster.kind is ClusterKind.STANDALONE and cluster.runs_drivers:
        # By the REST protocol no variable of the environment would reach the driver, and so none of the settings.
        yield "spark.master.rest.enabled", "false"
    if cluster.kind is ClusterKind.YARN and cluster.runs_drivers:
        yield "spark.yarn.submit.waitAppCompletion", "false"
        # No second driver of one epoch: the supervision starts the next driver, with the next epoch.
        yield "spark.yarn.maxAppAttempts", "1"
        for name, value in environment.items():
            yield f"spark.yarn.appMasterEnv.{name}", value
    if cluster.kind is ClusterKind.KUBERNETES:
        if cluster.namespace:
            yield "spark.kubernetes.namespace", cluster.namespace
        yield from _kubernetes_secret(cluster)
        if cluster.runs_drivers:
            yield "spark.kubernetes.submission.waitAppCompletion", "false"
            yield "spark.kubernetes.driver.pod.name", pod_name(request.pipeline.name, request.epoch)
            for name, value in environment.items():
                yield f"spark.kubernetes.driverEnv.{name}", value


def _kubernetes_secret(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """A reference: Kubernetes puts the secret into the environment, and the command line holds only its name."""
    if cluster.secret:
        for process in ("driver", "executor") if cluster.runs_drivers else ("executor",):
            yield f"spark.kubernetes.{process}.secretKeyRef.{_STREAM_PASSWORD}", f"{cluster.secret}:{_STREAM_PASSWORD}"
