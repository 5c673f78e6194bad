"""Rows to learn from: the feature query read in parallel, cut by time, sampled and made into vectors.

Runs in the training and scoring jobs; ``leakage`` is plain Python over the database.
"""
