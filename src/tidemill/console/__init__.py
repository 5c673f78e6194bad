"""The page inside Airflow: how the streams and the models are, for those who may see Airflow's jobs."""
