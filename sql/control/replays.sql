-- Grain: one replay. What was requested, by whom, and its progress; its commits carry its id.
CREATE TABLE IF NOT EXISTS replays (
    id               BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    stream           VARCHAR(64)     NOT NULL,
    pipeline_version INT UNSIGNED    NOT NULL,
    selection        LONGTEXT        NOT NULL COMMENT 'JSON: offsets, times or quarantine, as requested',
    requested_by     VARCHAR(128)    NOT NULL,
    state            ENUM('requested', 'running', 'done', 'failed') NOT NULL DEFAULT 'requested',
    records          BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'read again so far',
    retracted_rows   BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'rows of an older pipeline version that this version does not make',
    last_error       TEXT            NULL,
    requested_at     DATETIME(6)     NOT NULL DEFAULT UTC_TIMESTAMP(6),
    ended_at         DATETIME(6)     NULL,
    KEY by_stream (stream, id)
)
