"""What was applied, and what is to be: the catalog of pipelines, copies of applied folders, plan and apply.

Runs on the command line, in Airflow's tasks and DAG processor, and in the API server.
"""
