-- Grain: one commit, which is one Kafka partition of one batch. The ledger:
-- until_offset - from_offset = written + duplicate + stale + filtered + quarantined + gap.
CREATE TABLE IF NOT EXISTS commits (
    id               BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    stream           VARCHAR(64)     NOT NULL,
    epoch            BIGINT UNSIGNED NOT NULL,
    pipeline_version INT UNSIGNED    NOT NULL,
    batch_id         BIGINT UNSIGNED NOT NULL COMMENT 'as the driver counts; starts again with each epoch',
    topic            VARCHAR(249)    NOT NULL,
    partition_id     INT UNSIGNED    NOT NULL,
    from_offset      BIGINT UNSIGNED NOT NULL,
    until_offset     BIGINT UNSIGNED NOT NULL,
    written_rows     INT UNSIGNED    NOT NULL DEFAULT 0,
    duplicate_rows   INT UNSIGNED    NOT NULL DEFAULT 0,
    stale_rows       INT UNSIGNED    NOT NULL DEFAULT 0,
    filtered_rows    INT UNSIGNED    NOT NULL DEFAULT 0,
    quarantined_rows INT UNSIGNED    NOT NULL DEFAULT 0,
    gap_rows         BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'offsets that Kafka never delivers',
    newest_at        DATETIME(6)     NULL COMMENT 'the newest Kafka timestamp among the records',
    committed_at     DATETIME(6)     NOT NULL DEFAULT UTC_TIMESTAMP(6),
    KEY by_position (stream, topic, partition_id, until_offset),
    CONSTRAINT nothing_lost CHECK (
        until_offset - from_offset
        = written_rows + duplicate_rows + stale_rows + filtered_rows + quarantined_rows + gap_rows
    )
)
