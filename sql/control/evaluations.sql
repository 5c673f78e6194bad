-- Grain: one candidate measured by one metric in one refresh, all on the same held-out rows. Version 0 is the baseline.
CREATE TABLE IF NOT EXISTS evaluations (
    refresh_id      BIGINT UNSIGNED NOT NULL,
    version         INT UNSIGNED    NOT NULL,
    metric          VARCHAR(64)     NOT NULL,
    value           DOUBLE          NULL COMMENT 'NULL: it could not be measured, because the candidate cannot read these features',
    low             DOUBLE          NULL COMMENT 'lower end of the 95 % interval over resampled held-out rows',
    high            DOUBLE          NULL COMMENT 'upper end of the interval',
    difference_low  DOUBLE          NULL COMMENT 'lower end of the 95 % interval of the challenger minus this candidate',
    difference_high DOUBLE          NULL COMMENT 'upper end of that interval',
    PRIMARY KEY (refresh_id, version, metric)
)
