"""Where drivers and executors run: what the Airflow connection ``spark_default`` says, as one frozen value.

Its fields mean what they mean to the provider's ``SparkSubmitOperator``, which submits the refreshes (source:
``SparkSubmitHook._resolve_connection``): host and port, or the host alone, are the master; the extra holds
``deploy-mode``, ``queue``, ``namespace`` and ``spark-binary``. Further keys of the extra are ours, and the operator
does not look at them: ``python``, ``environment``, ``secret`` and ``conf``.
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
"""What the provider allows: a connection must not name any program of the machine."""
_TEXTS = ("queue", "namespace", "python", "environment", "secret")


class ClusterKind(StrEnum):
    """What gives us processes."""

    LOCAL = "local"
    """Nobody does: the driver's process does everything."""
    STANDALONE = "standalone"
    """Spark's own master and workers."""
    YARN = "yarn"
    """Hadoop's resource manager."""
    KUBERNETES = "kubernetes"
    """Pods of an image."""


class ConnectionLike(Protocol):
    """What an Airflow connection says; the task SDK and the server have a class each for it."""

    conn_type: str | None
    host: str | None
    port: int | None

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The ``extra`` field, decoded."""


@dataclass(frozen=True)
class Cluster:
    """A master and how it is asked for processes. Holds no secret, only the name of one."""

    master: str
    deploy_mode: str = "client"
    """``client``: the driver is a process here; ``cluster``: the cluster runs it."""
    queue: str | None = None
    """Of YARN."""
    namespace: str | None = None
    """Of Kubernetes."""
    spark_binary: str = "spark-submit"
    python: str | None = None
    """Interpreter on the cluster's machines; this one's path if it says none."""
    environment: str | None = None
    """Packed Python environment that YARN unpacks beside each process: a URL, the name after ``#`` is the folder's."""
    secret: str | None = None
    """Kubernetes secret whose key ``TIDEMILL_DB_STREAM_PASSWORD`` is put into driver's and executors' environment."""
    conf: Mapping[str, str] = field(default_factory=dict)
    """Spark configuration of this cluster: image, volumes, ports, …. Stands on the command line."""

    @property
    def kind(self) -> ClusterKind:
        """By the master's scheme.

        Raises:
            StreamError: none that we know.
        """
        for beginning, kind in (
            ("local", ClusterKind.LOCAL),
            ("spark://", ClusterKind.STANDALONE),
            ("yarn", ClusterKind.YARN),
            ("k8s://", ClusterKind.KUBERNETES),
        ):
            if self.master.startswith(beginning):
                return kind
        raise StreamError(
            "nobody knows this Spark master",
            value=self.master,
            remedy="write local[*], spark://host:port, yarn or k8s://https://host:port",
        )

    @property
    def runs_drivers(self) -> bool:
        """Whether the driver is the cluster's process, and what we start only asks for it."""
        return self.deploy_mode == "cluster" and self.kind is not ClusterKind.LOCAL


def of_connection(target: ConnectionLike) -> Cluster:
    """A cluster as an Airflow connection describes it.

    Raises:
        StreamError: it asks for something that streams do not know.
    """
    extra = target.extra_dejson
    host = target.host or ""
    whole = target.conn_type == "spark" and host and ("://" in host or not target.port)
    # A connection that is written as a URL has the master's scheme as its type.
    master = host if whole else f"{target.conn_type}://{host}"
    if target.port:
        master = f"{master}:{target.port}"
    if not host and target.conn_type != "yarn":
        raise _wrong("names no master", target.conn_type, "write it as the connection's host")
    for name in ("keytab", "principal"):
        if extra.get(name):
            raise _wrong("asks for Kerberos, which streams do not know", name, "run them where no ticket is needed")
    deploy_mode = extra.get("deploy-mode") or "client"
    if deploy_mode not in ("client", "cluster"):
        raise _wrong("has an unknown deploy-mode", deploy_mode, "write client or cluster")
    binary = extra.get("spark-binary") or "spark-submit"
    if binary not in _BINARIES:
        raise _wrong("has an unknown spark-binary", binary, f"write one of {', '.join(_BINARIES)}")
    texts = {name: str(extra[name]) for name in _TEXTS if extra.get(name)}
    cluster = Cluster(
        "yarn" if master == "yarn://" else master,
        deploy_mode,
        spark_binary=binary,
        conf=_conf_of(extra.get("conf") or {}),
        **texts,
    )
    _ = cluster.kind
    return cluster


def _conf_of(given: Any) -> dict[str, str]:
    if not isinstance(given, dict):
        raise _wrong("has a conf that is no mapping", given, 'write {"conf": {"spark.…": "…"}}')
    conf = {str(name): str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}
    try:
        check_conf(f"the connection {CONN_ID}", conf, reject_reserved=False)
    except SpecError as error:
        raise StreamError(error.what, value=error.value, remedy=error.remedy) from None
    return conf


def _wrong(what: str, value: object, remedy: str) -> StreamError:
    return StreamError(f"the Airflow connection {CONN_ID} {what}", value=value, remedy=remedy)
