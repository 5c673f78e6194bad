"""Database -> MLlib -> database: features, train, judge, score, publish.

``refresh``, ``judge``, ``publish``, ``status``, ``versions`` and ``leakage`` are plain Python over the database, for
Airflow's tasks and the console. ``train`` and ``score``, and what they stand on (``session``, ``features_frame``,
``preparation``, ``estimators``), run in Spark.
"""
