"""The feedback loop: features, train, promote, score, publish.

``refresh``, ``registry`` and ``serving.publish`` are plain Python over the database and run in Airflow's tasks, in the
API server and on the command line. ``session``, ``data``, ``training`` and ``serving.score`` run in the Spark jobs
``spark_jobs/train.py`` and ``spark_jobs/score.py``. Nothing here imports Airflow.
"""
