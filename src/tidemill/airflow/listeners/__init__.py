"""What Airflow reports to its plugins: that a person has marked a task or a run as failed.

Runs in the API server and in task processes.
"""
