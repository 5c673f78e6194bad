"""The champion's scores: computed, checked for drift, and made visible to readers all at once.

``score`` and ``drift_gate`` run in the scoring job, ``portable_export`` in the training job, ``publish`` in Airflow's
tasks and on the command line.
"""
