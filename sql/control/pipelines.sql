-- Grain: one version of one pipeline folder, as `tidemill apply` registered it. Rows of tables refer to it by version.
CREATE TABLE IF NOT EXISTS pipelines (
    pipeline   VARCHAR(64)  NOT NULL,
    version    INT UNSIGNED NOT NULL COMMENT 'counts up from 1 for each pipeline',
    digest     CHAR(64)     NOT NULL COMMENT 'SHA-256 of the folder without cases/',
    applied_at DATETIME(6)  NOT NULL DEFAULT UTC_TIMESTAMP(6),
    PRIMARY KEY (pipeline, version)
)
