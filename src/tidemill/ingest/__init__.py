"""From Kafka to the store: source, decode, transform, and the batch."""
