"""The model registry: versions, evaluations, promotion, decisions, artifacts, pruning.

Runs in Airflow's tasks, in the API server, on the command line and in the Spark jobs. No module imports pandas, numpy
or PySpark; ``artifacts`` asks a running Spark session for Hadoop's client when it meets a URI.
"""
