"""The embedded stack: Kafka, MariaDB and Airflow as child processes on 127.0.0.1, with their state in one folder.

Runs under ``./tidemill up``, and in the tests' fixtures. Other rooms use ``stack.Stack``; an installation whose
servers run elsewhere needs nothing of this room.
"""
