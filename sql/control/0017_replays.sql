-- Grain: one replay. What was asked for, by whom, and how far it is; its commits carry its id.
CREATE TABLE IF NOT EXISTS replays (
    id               BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    stream           VARCHAR(64)     NOT NULL,
    pipeline_version INT UNSIGNED    NOT NULL,
    selection        LONGTEXT        NOT NULL COMMENT 'JSON: offsets, times or quarantine, as asked for',
    asked_by         VARCHAR(128)    NOT NULL,
    state            ENUM('asked', 'running', 'done', 'failed') NOT NULL DEFAULT 'asked',
    records          BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'read again so far',
    retracted_rows   BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'rows of an older pipeline version that it no longer makes',
    last_error       TEXT            NULL,
    asked_at         DATETIME(6)     NOT NULL DEFAULT UTC_TIMESTAMP(6),
    ended_at         DATETIME(6)     NULL,
    KEY by_stream (stream, id)
)
