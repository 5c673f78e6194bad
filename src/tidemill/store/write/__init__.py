"""The one transaction of a commit: rows, rollups, quarantine, ledger and position, wholly or not at all.

Runs in Spark's Python workers, one transaction per Kafka partition and Arrow batch.
"""
