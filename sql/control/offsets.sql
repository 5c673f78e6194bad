-- Grain: one Kafka partition of a stream. The next offset to read; moved by compare-and-set, in the
-- transaction that writes the rows.
CREATE TABLE IF NOT EXISTS offsets (
    stream       VARCHAR(64)     NOT NULL,
    topic        VARCHAR(249)    NOT NULL,
    partition_id INT UNSIGNED    NOT NULL,
    position     BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (stream, topic, partition_id)
)
