-- Grain: one feature in one refresh: how far the rows to be scored were from those that the champion was trained on.
CREATE TABLE IF NOT EXISTS drift (
    refresh_id BIGINT UNSIGNED NOT NULL,
    feature    VARCHAR(64)     NOT NULL,
    psi        DOUBLE          NOT NULL COMMENT 'population stability index: 0 is the same distribution',
    allowed    DOUBLE          NULL COMMENT 'above it nothing is scored; NULL for a feature that may move',
    drift_rows BIGINT UNSIGNED NOT NULL COMMENT 'rows that were compared',
    PRIMARY KEY (refresh_id, feature)
)
