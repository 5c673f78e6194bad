-- Grain: one record that could not become a row: its bytes, where it stood, and why.
CREATE TABLE IF NOT EXISTS quarantine (
    id               BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    stream           VARCHAR(64)     NOT NULL,
    topic            VARCHAR(249)    NOT NULL,
    partition_id     INT UNSIGNED    NOT NULL,
    record_offset    BIGINT UNSIGNED NOT NULL,
    record_at        DATETIME(6)     NULL COMMENT 'Kafka timestamp',
    record_key       LONGBLOB        NULL,
    record_value     LONGBLOB        NULL,
    reason           VARCHAR(1000)   NOT NULL,
    pipeline_version INT UNSIGNED    NOT NULL,
    commit_id        BIGINT UNSIGNED NOT NULL,
    UNIQUE KEY by_record (stream, topic, partition_id, record_offset)
)
