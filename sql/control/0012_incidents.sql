-- Grain: one thing that a person should know about one subject (a stream, a model).
CREATE TABLE IF NOT EXISTS incidents (
    id        BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    subject   VARCHAR(128)    NOT NULL,
    kind      VARCHAR(64)     NOT NULL,
    sentence  VARCHAR(2000)   NOT NULL,
    opened_at DATETIME(6)     NOT NULL DEFAULT UTC_TIMESTAMP(6),
    closed_at DATETIME(6)     NULL,
    KEY open_by_subject (subject, kind, closed_at)
)
