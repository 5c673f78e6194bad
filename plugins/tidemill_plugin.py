"""Registers the console and the listener with an Airflow that runs from this checkout."""

from tidemill.console.plugin import TidemillPlugin

__all__ = ["TidemillPlugin"]
