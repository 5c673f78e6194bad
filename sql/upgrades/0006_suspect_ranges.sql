-- Ranges that a driver reads by itself, because an earlier one ended without an error while it read them.
CREATE TABLE IF NOT EXISTS suspect_ranges (
    stream       VARCHAR(64)     NOT NULL,
    topic        VARCHAR(249)    NOT NULL,
    partition_id INT UNSIGNED    NOT NULL,
    from_offset  BIGINT UNSIGNED NOT NULL,
    until_offset BIGINT UNSIGNED NOT NULL,
    epoch        BIGINT UNSIGNED NOT NULL COMMENT 'of the driver that read it',
    attempts     INT UNSIGNED    NOT NULL DEFAULT 0 COMMENT 'how often a driver began to read exactly this range',
    began_at     DATETIME(6)     NOT NULL DEFAULT UTC_TIMESTAMP(6),
    PRIMARY KEY (stream, topic, partition_id)
)
