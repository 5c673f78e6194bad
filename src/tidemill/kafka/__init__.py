"""Kafka clients and the requests that they send, without Spark.

Runs in drivers and their Python workers, in Airflow's tasks, on the command line and in the embedded stack.
"""
