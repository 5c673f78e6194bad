"""Where Spark starts: one module for each program that ``spark-submit`` is given.

Each runs in a driver process of its own: it reads its arguments, opens a Spark session and makes one call. In a
checkout the files of the top-level folder ``spark_jobs/`` import these; an installation submits these themselves.
"""
