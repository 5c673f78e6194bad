"""What Spark plans for a stream or a replay: read the topic, decode, transform.

Runs in the driver; the plan itself is executed by the executors' JVM.
"""
