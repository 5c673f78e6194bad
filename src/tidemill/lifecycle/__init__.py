"""What should happen to a stream, as pure functions over frozen values; clocks are passed in.

Runs in the triggerer, in Airflow's tasks, in the API server (console) and on the command line. It performs no I/O and
imports nothing of this package but ``errors``. The only definitions of "alive" and of "behind" are here.
"""
