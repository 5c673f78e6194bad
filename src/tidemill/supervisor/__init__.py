"""Starts, watches and ends drivers, and knows nothing of Airflow.

Runs in Airflow's tasks and triggerer, which call it, and on the command line.
"""
