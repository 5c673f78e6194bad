"""Rows of the control plane about streams: one module reads and writes each table of ``sql/control``.

Runs in the driver, in Airflow's tasks, triggerer and API server, and on the command line.
"""
