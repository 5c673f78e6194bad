-- Grain: one stream. The epoch and the driver that holds it. Only acquiring the lease and starting its driver write it,
-- so that a commit's shared lock on this row never waits for a heartbeat.
CREATE TABLE IF NOT EXISTS leases (
    stream           VARCHAR(64)     NOT NULL PRIMARY KEY,
    epoch            BIGINT UNSIGNED NOT NULL,
    pipeline_version INT UNSIGNED    NOT NULL,
    host             VARCHAR(255)    NULL COMMENT 'where spark-submit was started',
    pid              INT UNSIGNED    NULL COMMENT 'leader of the session that spark-submit runs in',
    log_file         VARCHAR(1024)   NULL,
    master           VARCHAR(1024)   NULL COMMENT 'the --master of spark-submit',
    submission_id    VARCHAR(255)    NULL COMMENT 'the id of a driver that a cluster runs',
    acquired_by      VARCHAR(128)    NOT NULL,
    acquired_at      DATETIME(6)     NOT NULL DEFAULT UTC_TIMESTAMP(6)
)
