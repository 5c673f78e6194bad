-- The sums of the ledger by partition, which each commit moves.
CREATE TABLE IF NOT EXISTS ledger_sums (
    stream            VARCHAR(64)     NOT NULL,
    topic             VARCHAR(249)    NOT NULL,
    generation        INT UNSIGNED    NOT NULL,
    partition_id      INT UNSIGNED    NOT NULL,
    from_offset       BIGINT UNSIGNED NOT NULL COMMENT 'where the first commit begins',
    commits           BIGINT UNSIGNED NOT NULL,
    records           BIGINT UNSIGNED NOT NULL COMMENT 'offsets, gaps included',
    written_rows      BIGINT UNSIGNED NOT NULL,
    duplicate_rows    BIGINT UNSIGNED NOT NULL,
    stale_rows        BIGINT UNSIGNED NOT NULL,
    filtered_rows     BIGINT UNSIGNED NOT NULL,
    quarantined_rows  BIGINT UNSIGNED NOT NULL,
    gap_rows          BIGINT UNSIGNED NOT NULL,
    lost_rows         BIGINT UNSIGNED NOT NULL,
    newest_at         DATETIME(6)     NULL COMMENT 'the newest Kafka timestamp among the records',
    last_commit       BIGINT UNSIGNED NOT NULL,
    last_committed_at DATETIME(6)     NOT NULL,
    verified_offset   BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'up to here a verification has found the ledger right',
    PRIMARY KEY (stream, topic, generation, partition_id)
)
