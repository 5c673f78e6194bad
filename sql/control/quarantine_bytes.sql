-- Grain: one Kafka partition of a stream on one day (UTC). The bytes of keys, values and headers that the quarantine was
-- given, for quarantine.max_bytes_per_day.
CREATE TABLE IF NOT EXISTS quarantine_bytes (
    stream       VARCHAR(64)     NOT NULL,
    day          DATE            NOT NULL,
    partition_id INT UNSIGNED    NOT NULL,
    kept_bytes   BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (stream, day, partition_id)
)
