-- Grain: one incident: what a person should know about one subject (a stream, a model), while it lasts. The notifiers
-- are called once when it opens and once when it closes.
CREATE TABLE IF NOT EXISTS incidents (
    id              BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    subject         VARCHAR(128)    NOT NULL,
    kind            VARCHAR(64)     NOT NULL,
    message         VARCHAR(2000)   NOT NULL,
    opened_at       DATETIME(6)     NOT NULL DEFAULT UTC_TIMESTAMP(6),
    closed_at       DATETIME(6)     NULL,
    notified_at     DATETIME(6)     NULL COMMENT 'when the notifiers were called for its opening',
    end_notified_at DATETIME(6)     NULL COMMENT 'when the notifiers were called for its closing',
    KEY open_by_subject (subject, kind, closed_at),
    KEY to_notify (end_notified_at, subject)
)
