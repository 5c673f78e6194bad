"""Starts, watches and ends drivers, without any import of Airflow.

Runs in Airflow's tasks and triggerer, which call it, and on the command line.
"""
