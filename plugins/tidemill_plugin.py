"""Registers the console and the listener with an Airflow that runs from this checkout.

An installed package registers them by its entry point. Airflow would report a second registration as an import error.
"""

from importlib.metadata import entry_points

if not entry_points(group="airflow.plugins", name="tidemill"):
    from tidemill.console.plugin import TidemillPlugin  # noqa: F401 -- Airflow looks for it here
