"""Where drivers and executors run: the Airflow connection ``spark_default`` as one frozen value.

Its fields have the meaning that they have to the provider's ``SparkSubmitOperator``, which submits the refreshes
(source: ``SparkSubmitHook._resolve_connection``): host and port, or the host alone, are the master; the extra holds
``deploy-mode``, ``queue``, ``namespace`` and ``spark-binary``. Tidemill alone reads the further keys of the extra:
``python``, ``environment``, ``secret`` and ``conf``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from tidemill.errors import SpecError, StreamError
from tidemill.spec.checks.spark_conf import check_conf

CONN_ID = "spark_default"
"""The connection that refreshes, replays and streams share."""
_BINARIES = ("spark-submit", "spark2-submit", "spark3-submit")
"""The programs that the provider allows: a connection must not be able to run any program of the machine."""
_TEXT_KEYS = ("queue", "namespace", "python", "environment", "secret")


class ClusterKind(StrEnum):
    """What starts the processes of executors, and possibly of drivers."""

    LOCAL = "local"
    """No cluster: the driver's process does all the work."""
    STANDALONE = "standalone"
    """Spark's own master and workers."""
    YARN = "yarn"
    """Hadoop's resource manager."""
    KUBERNETES = "kubernetes"
    """Pods of an image."""


class SparkConnection(Protocol):
    """The fields of an Airflow connection; the task SDK and the server have a class each for it."""

    conn_type: str | None
    host: str | None
    port: int | None

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The ``extra`` field, decoded."""


@dataclass(frozen=True)
class Cluster:
    """A master, and how processes are requested from it. It holds no secret, only the name of one."""

    master: str
    deploy_mode: str = "client"
    """``client``: the driver is a process of this machine; ``cluster``: the cluster runs it."""
    queue: str | None = None
    """YARN's queue."""
    namespace: str | None = None
    """Kubernetes' namespace."""
    spark_binary: str = "spark-submit"
    python: str | None = None
    """Path of the interpreter on the cluster's machines; the path of this one if None."""
    environment: str | None = None
    """Packed Python environment that YARN unpacks beside each process: a URL; after ``#`` the name of the folder."""
    secret: str | None = None
    """Kubernetes secret whose key ``TIDEMILL_DB_STREAM_PASSWORD`` is put into the environment of all processes."""
    conf: Mapping[str, str] = field(default_factory=dict)
    """Spark configuration of this cluster: image, volumes, ports, …. It is visible on the command line."""

    @property
    def kind(self) -> ClusterKind:
        """The kind of cluster, by the master's scheme.

        Raises:
            StreamError: no kind has this scheme.
        """
        for scheme, kind in (
            ("local", ClusterKind.LOCAL),
            ("spark://", ClusterKind.STANDALONE),
            ("yarn", ClusterKind.YARN),
            ("k8s://", ClusterKind.KUBERNETES),
        ):
            if self.master.startswith(scheme):
                return kind
        raise StreamError("TM-SUPERVISOR-MASTER-UNKNOWN", value=self.master)

    @property
    def runs_drivers(self) -> bool:
        """Whether the cluster runs the driver, and the process that is started here only submits it."""
        return self.deploy_mode == "cluster" and self.kind is not ClusterKind.LOCAL


def cluster_of(connection: SparkConnection) -> Cluster:
    """The cluster that an Airflow connection describes.

    Raises:
        StreamError: the connection requires something that streams do not support.
    """
    extra = connection.extra_dejson
    host = connection.host or ""
    is_whole_master = connection.conn_type == "spark" and host and ("://" in host or not connection.port)
    # A connection that is written as a URL has the master's scheme as its type.
    master = host if is_whole_master else f"{connection.conn_type}://{host}"
    if connection.port:
        master = f"{master}:{connection.port}"
    if not host and connection.conn_type != "yarn":
        raise StreamError("TM-SUPERVISOR-MASTER-MISSING", connection=CONN_ID, value=connection.conn_type)
    for name in ("keytab", "principal"):
        if extra.get(name):
            raise StreamError("TM-SUPERVISOR-KERBEROS-UNSUPPORTED", connection=CONN_ID, value=name)
    deploy_mode = extra.get("deploy-mode") or "client"
    if deploy_mode not in ("client", "cluster"):
        raise StreamError("TM-SUPERVISOR-DEPLOY-MODE-UNKNOWN", connection=CONN_ID, value=deploy_mode)
    binary = extra.get("spark-binary") or "spark-submit"
    if binary not in _BINARIES:
        known = ", ".join(_BINARIES)
        raise StreamError("TM-SUPERVISOR-SPARK-BINARY-UNKNOWN", connection=CONN_ID, known=known, value=binary)
    texts = {name: str(extra[name]) for name in _TEXT_KEYS if extra.get(name)}
    cluster = Cluster(
        "yarn" if master == "yarn://" else master,
        deploy_mode,
        spark_binary=binary,
        conf=_conf_of(extra.get("conf") or {}),
        **texts,
    )
    _ = cluster.kind  # raises for a master of no known kind
    return cluster


def _conf_of(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise StreamError("TM-SUPERVISOR-CONF-NO-OBJECT", connection=CONN_ID, value=value)
    conf = {str(name): str(each).lower() if isinstance(each, bool) else str(each) for name, each in value.items()}
    try:
        check_conf(f"the connection {CONN_ID}", conf, reject_reserved=False)
    except SpecError as error:
        raise StreamError.of(error) from None
    return conf
