"""Rows to train on: the feature query read in parallel, split by time, cached and turned into vectors.

Runs in the training and scoring jobs; ``leakage`` is plain Python over the database.
"""
