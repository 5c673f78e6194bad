"""The feed of the example pipeline: flights of 2013 as a change log, with faults added on request.

Runs in the process of ``./tidemill up``, as ``docker/feed.py``, and in tests.
"""
