"""Whether the parts of a pipeline folder agree with each other and have the right shape; one module for each part.

Pure: reads no file and asks no server. Runs wherever a folder is loaded (see :mod:`tidemill.spec`).
"""
