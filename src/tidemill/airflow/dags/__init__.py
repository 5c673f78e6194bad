"""The factories of all DAGs, and the tasks in them that need no Spark.

Runs in the DAG processor, which only declares, and in task processes.
"""
