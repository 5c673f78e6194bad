-- Grain: one run of the feedback loop of one model.
CREATE TABLE IF NOT EXISTS refreshes (
    id             BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    pipeline       VARCHAR(64)     NOT NULL,
    model          VARCHAR(64)     NOT NULL,
    run            VARCHAR(250)    NOT NULL COMMENT 'the DAG run that requested it',
    options        LONGTEXT        NULL COMMENT 'JSON: what the form of the run requested',
    state          ENUM('running', 'published', 'skipped', 'failed', 'refused') NOT NULL DEFAULT 'running',
    as_of_commit   BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'newest commit with all before it when the refresh began',
    scored_version INT UNSIGNED    NULL COMMENT 'the model version that scored; NULL until scoring is complete',
    scored_rows    BIGINT UNSIGNED NULL COMMENT 'rows scored, then rows published',
    reason         VARCHAR(1000)   NULL COMMENT 'why it was skipped, failed or refused (drift)',
    started_at     DATETIME(6)     NOT NULL DEFAULT UTC_TIMESTAMP(6),
    ended_at       DATETIME(6)     NULL,
    UNIQUE KEY by_run (pipeline, model, run)
)
