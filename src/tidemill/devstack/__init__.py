"""The embedded stack: Kafka, MariaDB and Airflow as child processes on 127.0.0.1, with their state in one folder.

Runs under ``./tidemill up``, and in the tests' fixtures. ``stack.Stack`` is what others use; nothing here is needed
where the servers are given from outside.
"""
