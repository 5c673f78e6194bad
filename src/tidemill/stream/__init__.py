"""The driver of a stream: it keeps a query running while the stream is to run, and reports every 2 s.

Runs in the driver process that ``spark_jobs/stream.py`` starts, with three exceptions. :mod:`tidemill.stream.task` and
what it imports of ``store/write`` run in Spark's Python workers. :mod:`tidemill.stream.diagnosis` and
:mod:`tidemill.stream.log_rotation` import no PySpark, and also run in Airflow's tasks and in the console, which read
the logs of drivers. Nothing here imports Airflow, so that a driver starts without it.

In the order in which a record meets them: ``driver`` starts one ``query`` after another at its ``start_offsets``; the
``plan`` reads and transforms; ``batch`` runs a micro-batch; each ``task`` commits one Kafka partition. Beside it run
``heartbeat``, ``kafka_probe`` and ``rollup_builder``; after a failed query, ``outage``.
"""
