"""What every ``spark-submit`` of ours is given: by the launcher for streams, by Airflow's operator for refreshes.

What a stream's driver needs reaches it by a way of its own on each kind of cluster; ``docs/guide/clusters.md`` has the
table. A password is on none of these command lines: it is read from the secrets file, or stands in the environment of
the process that an orchestrator gave it to.
"""

from __future__ import annotations

import os
import shutil
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
    """One driver to be."""

    pipeline: Pipeline
    """As it was applied; its folder is what the driver reads."""
    epoch: int
    conf: Mapping[str, str] = field(default_factory=dict)
    """Spark configuration beyond the usual, the pipeline's and the cluster's."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the driver has to find in its environment beside the settings."""


def spark_conf(settings: Settings, master: str | None = None) -> dict[str, str]:
    """Configuration of every Spark application of ours. Holds no secret: it stands on the command line."""
    conf = {
        # Its page would listen on every address and show the environment.
        "spark.ui.enabled": "false",
        "spark.log.level": "WARN",
        # A JVM that limps on without memory looks alive; one that left is started again.
        "spark.driver.extraJavaOptions": "-XX:+ExitOnOutOfMemoryError",
        "spark.pyspark.python": sys.executable,
        "spark.pyspark.driver.python": sys.executable,
    }
    if (master or settings.spark_master).startswith("local"):
        conf |= {"spark.driver.host": _LOOPBACK, "spark.driver.bindAddress": _LOOPBACK}
    return conf


def spark_jars(settings: Settings) -> str:
    """The connector's jars, as ``--jars`` wants them. Empty where they were not fetched yet."""
    return ",".join(sorted(str(path) for path in (settings.jars / "spark").glob("*.jar")))


def spark_environment(
    settings: Settings, environ: Mapping[str, str] | None = None, cluster: Cluster | None = None
) -> dict[str, str]:
    """The environment of a Spark application: what programs need, and the settings.

    Airflow's own variables are left out, for they hold its secrets. A database password passes only where the
    orchestrator itself put it into our environment; everywhere else the application reads the secrets file.

    Args:
        settings: passed on as ``TIDEMILL_*``.
        environ: the process's own if None.
        cluster: where the application runs; the settings' master if None. One that runs the driver itself gets no
            password: a standalone master would keep the environment of whoever submits.
    """
    where = cluster or Cluster(settings.spark_master)
    passed = program_environment(environ)
    if where.runs_drivers:
        passed = {name: value for name, value in passed.items() if name not in {*_PASSWORDS, *_OF_THIS_MACHINE}}
    # Executors on other machines have to reach the driver; those of a local master are the driver.
    loopback = {"SPARK_LOCAL_IP": _LOOPBACK} if where.kind is ClusterKind.LOCAL else {}
    own = {"PYSPARK_PYTHON": sys.executable, "PYTHONUNBUFFERED": "1"}
    return {**loopback, **passed, **own, **settings.environment()}


def program_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """What Spark's programs need of an environment, the folder of our own programs first on the PATH."""
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
    found = shutil.which(name, path=environment["PATH"])
    if found is None:
        raise StreamError(f"{name} is not on the PATH", value=environment["PATH"], remedy="install pyspark")
    return found


def stream_command(settings: Settings, cluster: Cluster, program: str, request: SubmitRequest) -> list[str]:
    """The command line of a driver. It names no secret.

    Args:
        settings: jars, entry, memory.
        cluster: where it runs.
        program: the path of ``spark-submit``.
        request: the driver to start.

    Raises:
        StreamError: Spark's jars were not fetched, or nobody knows the master.
    """
    jars = spark_jars(settings).split(",")
    if not jars[0]:
        raise StreamError("Spark's jars are not there", value=settings.jars / "spark", remedy="run ./tidemill once")
    entry = str(resource_folder("spark_jobs") / "stream.py")
    application = [entry]
    if cluster.runs_drivers and cluster.kind is ClusterKind.KUBERNETES:
        # In the image, at the same places.
        jars, application = [f"local://{jar}" for jar in jars], [f"local://{entry}"]
    if cluster.runs_drivers and cluster.kind is ClusterKind.STANDALONE:
        # spark-submit refuses Python here, and takes a class of Spark's that runs it. One jar is the application.
        own, *jars = jars
        application = ["--class", "org.apache.spark.deploy.PythonRunner", f"file://{own}", entry, ""]
    return [
        program,
        *("--master", cluster.master),
        *(("--deploy-mode", "cluster") if cluster.runs_drivers else ()),
        *(("--queue", cluster.queue) if cluster.queue and cluster.kind is ClusterKind.YARN else ()),
        *_resources(settings, cluster, request.pipeline),
        *(("--jars", ",".join(jars)) if jars else ()),
        *(("--archives", cluster.environment) if cluster.environment and cluster.kind is ClusterKind.YARN else ()),
        *(part for name, value in _conf(settings, cluster, request).items() for part in _pair(name, value)),
        *application,
        *(("--report",) if cluster.runs_drivers else ()),
        *("--folder", str(request.pipeline.folder)),
        *("--pipeline", request.pipeline.name),
        *("--epoch", str(request.epoch)),
    ]


def kill_command(master: str, submission_id: str) -> list[str]:
    """The command line that ends a driver which a cluster runs; its first word is to be found on the PATH.

    Raises:
        StreamError: nobody knows the master.
    """
    kind = Cluster(master).kind
    if kind is ClusterKind.YARN:
        return ["yarn", "application", "-kill", submission_id]
    if kind is ClusterKind.STANDALONE:
        # spark-submit --kill asks the master's REST server, which is off unless somebody switched it on.
        return ["spark-class", "org.apache.spark.deploy.Client", "kill", master, submission_id]
    return ["spark-submit", "--master", master, "--kill", submission_id]


def pod_name(stream: str, epoch: int) -> str:
    """What we call a driver's pod, so that it is known without being told."""
    return f"tidemill-{stream.replace('_', '-')}-{epoch}"


def _pair(name: str, value: str) -> tuple[str, str]:
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
        # A standalone master knows no number of executors, only of cores, and by default gives all it has.
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
    """Ours, the pipeline's, the cluster's, the caller's; then what the kind of cluster demands."""
    pipeline = request.pipeline
    conf = {"spark.app.name": f"tidemill stream {pipeline.name}", **spark_conf(settings, cluster.master)}
    for further in (pipeline.resources.conf, cluster.conf, request.conf):
        # Options are a list: what is added does not take ours away.
        joined = {name: f"{conf[name]} {further[name]}" for name in _OPTIONS if name in conf and name in further}
        conf |= {**further, **joined}
    # Of two attempts of a task one would be refused by the database, and its work be wasted.
    conf["spark.speculation"] = "false"
    return conf | _pythons(cluster) | dict(_demands(settings, cluster, request))


def _pythons(cluster: Cluster) -> dict[str, str]:
    """Drivers and executors run the interpreter that tidemill is installed in, each where it runs."""
    there = cluster.python or sys.executable
    if cluster.environment and cluster.kind is ClusterKind.YARN:
        # Unpacked in the working folder of each process, under the name after the #.
        there = cluster.python or f"./{cluster.environment.partition('#')[2] or 'environment'}/bin/python"
    here = there if cluster.runs_drivers else sys.executable
    return {"spark.pyspark.python": there, "spark.pyspark.driver.python": here}


def _demands(settings: Settings, cluster: Cluster, request: SubmitRequest) -> Iterator[tuple[str, str]]:
    environment = {**settings.environment(), **request.environment, "PYTHONUNBUFFERED": "1"}
    if cluster.kind is ClusterKind.STANDALONE and cluster.runs_drivers:
        # By the other protocol nothing of our environment would reach the driver, and so none of the settings.
        yield "spark.master.rest.enabled", "false"
    if cluster.kind is ClusterKind.YARN and cluster.runs_drivers:
        yield "spark.yarn.submit.waitAppCompletion", "false"
        # A second driver of one epoch: the supervision starts the next one, of the next epoch.
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
    """A reference: Kubernetes puts what it refers to into the environment, and the command line names it only."""
    if cluster.secret:
        for process in ("driver", "executor") if cluster.runs_drivers else ("executor",):
            yield f"spark.kubernetes.{process}.secretKeyRef.{_STREAM_PASSWORD}", f"{cluster.secret}:{_STREAM_PASSWORD}"
