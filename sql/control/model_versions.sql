-- Grain: one fitted model, with what it was fitted on and what was decided about it. Nothing decides by ``details``: it
-- is JSON for people, with the seed, the parameters, the seconds of each step, the importance of the features and the
-- calibration.
CREATE TABLE IF NOT EXISTS model_versions (
    pipeline              VARCHAR(64)     NOT NULL,
    model                 VARCHAR(64)     NOT NULL,
    version               INT UNSIGNED    NOT NULL,
    refresh_id            BIGINT UNSIGNED NOT NULL,
    pipeline_version      INT UNSIGNED    NOT NULL,
    artifact              VARCHAR(1024)   NOT NULL,
    checksum              CHAR(64)        NULL COMMENT 'SHA-256 of the artifact as it was written',
    as_of_commit          BIGINT UNSIGNED NOT NULL,
    train_from            DATETIME(6)     NOT NULL,
    holdout_from          DATETIME(6)     NOT NULL,
    holdout_until         DATETIME(6)     NOT NULL,
    train_rows            BIGINT UNSIGNED NOT NULL,
    holdout_rows          BIGINT UNSIGNED NOT NULL,
    train_seconds         DOUBLE          NOT NULL,
    champion_saw_holdout  BOOLEAN         NOT NULL DEFAULT FALSE COMMENT 'the champion was trained on rows of this holdout',
    training_distribution LONGTEXT        NULL COMMENT 'JSON: bins of each feature in training, for the drift check',
    details               LONGTEXT        NULL COMMENT 'JSON: what is shown to people; no code decides by it',
    state                 ENUM('challenger', 'champion', 'rejected', 'retired', 'waiting') NOT NULL DEFAULT 'challenger',
    reason                VARCHAR(1000)   NULL COMMENT 'why it was promoted or rejected',
    published_at          DATETIME(6)     NULL COMMENT 'when readers first saw its scores of all rows',
    created_at            DATETIME(6)     NOT NULL DEFAULT UTC_TIMESTAMP(6),
    PRIMARY KEY (pipeline, model, version)
)
