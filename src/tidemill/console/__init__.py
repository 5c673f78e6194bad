"""The page inside Airflow: state of the streams and models, for those who may see Airflow's jobs.

Runs in Airflow's API server, mounted by ``plugins/tidemill_plugin.py``. It imports no PySpark.
"""
