"""Tidemill: Kafka, Spark, a MySQL-protocol database and Airflow as one exactly-once platform."""

__version__ = "0.1.0"
