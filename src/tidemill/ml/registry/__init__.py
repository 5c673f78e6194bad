"""What is known and decided about models: versions, evaluations, decisions, promotion, artifacts.

Runs in Airflow's tasks, in the API server, on the command line and in the Spark jobs.
"""
