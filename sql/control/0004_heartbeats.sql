-- Grain: one stream. What its driver is doing, as the driver says every 2 s.
CREATE TABLE IF NOT EXISTS heartbeats (
    stream      VARCHAR(64)     NOT NULL PRIMARY KEY,
    epoch       BIGINT UNSIGNED NOT NULL,
    state       ENUM('starting', 'running', 'stopping', 'stopped', 'failed') NOT NULL,
    beat_at     DATETIME(6)     NOT NULL,
    batches     BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'committed by this driver',
    records     BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'committed by this driver',
    lag_records BIGINT UNSIGNED NULL COMMENT 'end of the topic less the position',
    batch_ms    INT UNSIGNED    NULL COMMENT 'duration of the last batch',
    last_error  TEXT            NULL
)
