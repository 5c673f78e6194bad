-- Grain: one candidate measured in one refresh, all on the same held-out rows. Version 0 is the baseline.
CREATE TABLE IF NOT EXISTS evaluations (
    refresh_id BIGINT UNSIGNED NOT NULL,
    version    INT UNSIGNED    NOT NULL,
    metric     VARCHAR(64)     NOT NULL,
    value      DOUBLE          NULL COMMENT 'NULL: it could not be measured, because it cannot read these features',
    PRIMARY KEY (refresh_id, version, metric)
)
