-- Grain: one stream. What its driver is doing, as the driver reports every 2 s. NULL means not known yet.
CREATE TABLE IF NOT EXISTS heartbeats (
    stream             VARCHAR(64)     NOT NULL PRIMARY KEY,
    epoch              BIGINT UNSIGNED NOT NULL,
    state              ENUM('starting', 'running', 'stopping', 'stopped', 'failed') NOT NULL,
    heartbeat_at       DATETIME(6)     NOT NULL,
    batches            BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'committed by this driver',
    records            BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'committed by this driver',
    lag_records        BIGINT UNSIGNED NULL COMMENT 'end of the topic less the position',
    behind_seconds        DOUBLE          NULL COMMENT 'for how long at most the tables had not held everything that Kafka held',
    newest_at          DATETIME(6)     NULL COMMENT 'Kafka timestamp of the newest committed record',
    records_per_second DOUBLE          NULL COMMENT 'committed, over the last minute',
    batch_ms           INT UNSIGNED    NULL COMMENT 'duration of the last batch',
    batch_limit        INT UNSIGNED    NULL COMMENT 'records that one micro-batch may take now',
    latency_p50_ms     INT UNSIGNED    NULL COMMENT 'from Kafka timestamp to COMMIT, over the last minutes',
    latency_p99_ms     INT UNSIGNED    NULL COMMENT 'from Kafka timestamp to COMMIT, over the last minutes',
    last_error         TEXT            NULL,
    waiting_for        VARCHAR(2000)   NULL COMMENT 'the unavailable server that the driver waits for'
)
