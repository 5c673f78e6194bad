"""A challenger is fitted and measured beside the champion and the baseline on the same held-out rows.

Runs in the training job; ``options`` is also read by Airflow's tasks.
"""
