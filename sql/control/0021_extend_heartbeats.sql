-- What a stream is measured by. NULL is not known yet.
ALTER TABLE heartbeats
    ADD COLUMN lag_seconds DOUBLE NULL COMMENT 'age of the newest committed record while others wait, 0 while none does' AFTER lag_records,
    ADD COLUMN newest_at DATETIME(6) NULL COMMENT 'Kafka timestamp of the newest committed record' AFTER lag_seconds,
    ADD COLUMN records_per_second DOUBLE NULL COMMENT 'committed, over the last minute' AFTER newest_at,
    ADD COLUMN batch_limit INT UNSIGNED NULL COMMENT 'records that one micro-batch may take now' AFTER batch_ms,
    ADD COLUMN latency_p50_ms INT UNSIGNED NULL COMMENT 'from Kafka timestamp to COMMIT, over the last minutes' AFTER batch_limit,
    ADD COLUMN latency_p99_ms INT UNSIGNED NULL COMMENT 'from Kafka timestamp to COMMIT, over the last minutes' AFTER latency_p50_ms,
    ADD COLUMN waiting_for VARCHAR(2000) NULL COMMENT 'what is away that the driver waits for' AFTER last_error
