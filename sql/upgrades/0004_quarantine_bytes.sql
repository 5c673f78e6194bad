-- What the quarantine was given each day.
CREATE TABLE IF NOT EXISTS quarantine_bytes (
    stream       VARCHAR(64)     NOT NULL,
    day          DATE            NOT NULL,
    partition_id INT UNSIGNED    NOT NULL,
    kept_bytes   BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (stream, day, partition_id)
)
