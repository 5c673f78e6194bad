-- Grain: one fitted model, with what it was fitted on and what was decided about it. ``details`` is JSON: seed,
-- parameters, seconds of each step, importance of the features, calibration, and the distribution of each feature in
-- training, which drift is measured against.
CREATE TABLE IF NOT EXISTS model_versions (
    pipeline         VARCHAR(64)     NOT NULL,
    model            VARCHAR(64)     NOT NULL,
    version          INT UNSIGNED    NOT NULL,
    refresh_id       BIGINT UNSIGNED NOT NULL,
    pipeline_version INT UNSIGNED    NOT NULL,
    artifact         VARCHAR(1024)   NOT NULL,
    checksum         CHAR(64)        NULL COMMENT 'SHA-256 of the artifact as it was written',
    as_of_commit     BIGINT UNSIGNED NOT NULL,
    train_from       DATETIME(6)     NOT NULL,
    holdout_from     DATETIME(6)     NOT NULL,
    holdout_until    DATETIME(6)     NOT NULL,
    train_rows       BIGINT UNSIGNED NOT NULL,
    holdout_rows     BIGINT UNSIGNED NOT NULL,
    train_seconds    DOUBLE          NOT NULL,
    details          LONGTEXT        NULL,
    state            ENUM('challenger', 'champion', 'rejected', 'retired', 'waiting') NOT NULL DEFAULT 'challenger',
    reason           VARCHAR(1000)   NULL COMMENT 'why it was promoted or rejected',
    published_at     DATETIME(6)     NULL COMMENT 'when readers first saw its scores of all rows',
    created_at       DATETIME(6)     NOT NULL DEFAULT UTC_TIMESTAMP(6),
    PRIMARY KEY (pipeline, model, version)
)
