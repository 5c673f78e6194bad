"""Kafka clients and the questions asked of a broker, without Spark.

Runs in the driver, in Airflow's tasks, on the command line and in the embedded stack.
"""
