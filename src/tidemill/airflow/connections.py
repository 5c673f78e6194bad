"""What Airflow's connections say to the rooms that know no Airflow."""

from __future__ import annotations

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from tidemill.config import Settings
from tidemill.supervisor.cluster import CONN_ID, Cluster, of_connection


def of_airflow(settings: Settings) -> Cluster:
    """The cluster that Airflow's connection names; the settings' master where there is no such connection.

    Raises:
        StreamError: the connection asks for something that streams do not know.
    """
    try:
        target = BaseHook.get_connection(CONN_ID)
    except AirflowNotFoundException:  # and no other: an Airflow that does not answer is not without a cluster
        return Cluster(settings.spark_master)
    return of_connection(target)
