-- What else is known of a fitted model. ``details`` is JSON: seed, parameters, seconds of each step, importance of the
-- features, calibration, and the distribution of each feature in training, which drift is measured against.
ALTER TABLE model_versions
    ADD COLUMN checksum CHAR(64) NULL COMMENT 'SHA-256 of the artifact as it was written' AFTER artifact,
    ADD COLUMN details LONGTEXT NULL AFTER train_seconds,
    ADD COLUMN published_at DATETIME(6) NULL COMMENT 'when readers first saw its scores of all rows' AFTER reason,
    MODIFY COLUMN state ENUM('challenger', 'champion', 'rejected', 'retired', 'waiting') NOT NULL DEFAULT 'challenger'
