"""Checks of a pipeline folder beyond the form of its file; one module for each block of pipeline.yaml.

The checks read the folder's SQL files and use no server. They run wherever a folder is loaded (see
:mod:`tidemill.spec`).
"""
