"""Rows scored inside the transaction that writes them, without a JVM.

Runs in Spark's Python workers; the scoring job uses the same model code, so that both give the same bits.
"""
