"""Airflow's side of the platform: connection type, operators, triggers, listeners, DAG factories.

``dags`` runs in the DAG processor and in task processes, ``triggers`` in the triggerer, ``listeners`` in the API
server and in task processes. Nothing here imports PySpark, so that DAG parsing stays cheap.
"""
