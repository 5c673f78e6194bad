"""Keeps the database small and verifies it: retention, compaction, rollup backfill, verification.

Runs in Airflow's ``maintenance`` tasks and on the command line; the rollup backfill runs in a thread of the driver.
"""
