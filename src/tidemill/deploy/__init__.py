"""Deploys pipelines: plan and apply, snapshots of applied folders, and the catalog of all pipelines.

Runs on the command line, in Airflow's tasks and DAG processor, and in the API server.
"""
