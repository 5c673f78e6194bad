-- Grain: one fitted model, with what it was fitted on and what was decided about it.
CREATE TABLE IF NOT EXISTS model_versions (
    pipeline         VARCHAR(64)     NOT NULL,
    model            VARCHAR(64)     NOT NULL,
    version          INT UNSIGNED    NOT NULL,
    refresh_id       BIGINT UNSIGNED NOT NULL,
    pipeline_version INT UNSIGNED    NOT NULL,
    artifact         VARCHAR(1024)   NOT NULL,
    as_of_commit     BIGINT UNSIGNED NOT NULL,
    train_from       DATETIME(6)     NOT NULL,
    holdout_from     DATETIME(6)     NOT NULL,
    holdout_until    DATETIME(6)     NOT NULL,
    train_rows       BIGINT UNSIGNED NOT NULL,
    holdout_rows     BIGINT UNSIGNED NOT NULL,
    train_seconds    DOUBLE          NOT NULL,
    state            ENUM('challenger', 'champion', 'rejected', 'retired') NOT NULL DEFAULT 'challenger',
    reason           VARCHAR(1000)   NULL COMMENT 'why it was promoted or rejected',
    created_at       DATETIME(6)     NOT NULL DEFAULT UTC_TIMESTAMP(6),
    PRIMARY KEY (pipeline, model, version)
)
