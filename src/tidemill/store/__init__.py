"""Everything that reads or writes the database: connections, statements, the write transaction, the control plane.

``write`` and ``scoring`` run in Spark's Python workers, ``control`` and ``maintenance`` in the driver, in Airflow's
tasks and triggerer, in the API server and on the command line. Nothing here imports Spark or Airflow.
"""
