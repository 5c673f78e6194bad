-- Grain: one decision about a model version, with its reason: by measure, or by a person.
CREATE TABLE IF NOT EXISTS decisions (
    id         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    pipeline   VARCHAR(64)     NOT NULL,
    model      VARCHAR(64)     NOT NULL,
    version    INT UNSIGNED    NOT NULL,
    refresh_id BIGINT UNSIGNED NULL COMMENT 'the refresh that led to it; NULL for a rollback',
    verdict    ENUM('promoted', 'rejected', 'waiting', 'rolled back') NOT NULL,
    reason     VARCHAR(1000)   NOT NULL,
    decided_by VARCHAR(250)    NOT NULL COMMENT 'measure, or the person',
    decided_at DATETIME(6)     NOT NULL DEFAULT UTC_TIMESTAMP(6),
    KEY by_model (pipeline, model, id)
)
