-- Grain: one record that could not become a row: its bytes, its coordinates, the reason, and how it was resolved.
CREATE TABLE IF NOT EXISTS quarantine (
    id               BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    stream           VARCHAR(64)     NOT NULL,
    topic            VARCHAR(249)    NOT NULL,
    generation       INT UNSIGNED    NOT NULL DEFAULT 1 COMMENT 'of the topic, as in commits',
    partition_id     INT UNSIGNED    NOT NULL,
    record_offset    BIGINT UNSIGNED NOT NULL,
    record_at        DATETIME(6)     NULL COMMENT 'Kafka timestamp',
    record_key       LONGBLOB        NULL,
    record_value     LONGBLOB        NULL,
    record_headers   LONGTEXT        NULL COMMENT 'JSON: [[name, base64 or null], …]',
    value_bytes      BIGINT UNSIGNED NULL COMMENT 'size in Kafka; more than record_value holds if it was over the limit',
    reason           VARCHAR(1000)   NOT NULL,
    pipeline_version INT UNSIGNED    NOT NULL,
    commit_id        BIGINT UNSIGNED NOT NULL,
    quarantined_at   DATETIME(6)     NOT NULL DEFAULT UTC_TIMESTAMP(6),
    replay_id        BIGINT UNSIGNED NULL COMMENT 'the replay that quarantined it first; NULL for the stream itself',
    resolved_commit  BIGINT UNSIGNED NULL COMMENT 'the commit of the replay that made it a row',
    resolved_at      DATETIME(6)     NULL,
    UNIQUE KEY by_record (stream, topic, generation, partition_id, record_offset)
)
