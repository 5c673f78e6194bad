"""Records read again, through the decoder, transform and transaction of the stream.

``request`` runs in Airflow's tasks and on the command line, ``job`` in the driver that ``spark_jobs/replay.py`` starts.
"""
