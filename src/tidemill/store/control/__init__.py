"""Rows of the control plane about streams: what each table of ``sql/control`` holds, read and written in one place.

Runs in the driver, in Airflow's tasks, triggerer and API server, and on the command line.
"""
