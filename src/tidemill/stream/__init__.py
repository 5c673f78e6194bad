"""The driver of a stream: it keeps a query running while the stream is to run, and reports every 2 s.

Runs in the driver process that ``spark_jobs/stream.py`` starts; ``task`` runs in Spark's Python workers. It imports
no Airflow, so that a driver starts without it.
"""
