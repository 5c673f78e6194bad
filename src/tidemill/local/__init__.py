"""The embedded stack: Kafka, MariaDB and Airflow as child processes on 127.0.0.1, with their state in one folder.

``stack.Stack`` is what others use; each server has a module that says how it is prepared, run and asked whether it
serves. Nothing here is needed where the servers are given from outside.
"""
