-- Grain: one commit, which is one Kafka partition of one batch, of a stream or of a replay. The ledger:
-- until_offset - from_offset = written + duplicate + stale + filtered + quarantined + gap + lost + unselected.
CREATE TABLE IF NOT EXISTS commits (
    id               BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    stream           VARCHAR(64)     NOT NULL,
    replay_id        BIGINT UNSIGNED NULL COMMENT 'the replay that made it; NULL for the stream itself',
    epoch            BIGINT UNSIGNED NOT NULL,
    pipeline_version INT UNSIGNED    NOT NULL,
    batch_id         BIGINT UNSIGNED NOT NULL COMMENT 'as the driver counts; starts again with each epoch',
    topic            VARCHAR(249)    NOT NULL,
    generation       INT UNSIGNED    NOT NULL DEFAULT 1 COMMENT 'of the topic; counts up when it is recreated',
    partition_id     INT UNSIGNED    NOT NULL,
    from_offset      BIGINT UNSIGNED NOT NULL,
    until_offset     BIGINT UNSIGNED NOT NULL,
    written_rows     BIGINT UNSIGNED NOT NULL DEFAULT 0,
    duplicate_rows   BIGINT UNSIGNED NOT NULL DEFAULT 0,
    stale_rows       BIGINT UNSIGNED NOT NULL DEFAULT 0,
    filtered_rows    BIGINT UNSIGNED NOT NULL DEFAULT 0,
    quarantined_rows BIGINT UNSIGNED NOT NULL DEFAULT 0,
    gap_rows         BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'offsets that Kafka never delivers',
    lost_rows        BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'offsets that Kafka removed before they were read',
    unselected_rows  BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'offsets in the range that a replay did not select',
    warned_rows      BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'records that a check warns about, counted above too',
    purged_rows      BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'of the quarantined, those that retention has removed since',
    newest_at        DATETIME(6)     NULL COMMENT 'the newest Kafka timestamp among the records',
    committed_at     DATETIME(6)     NOT NULL DEFAULT UTC_TIMESTAMP(6),
    merged_commits   INT UNSIGNED    NOT NULL DEFAULT 1 COMMENT 'how many commits compaction has merged into this row',
    KEY by_stream (stream, id),
    KEY by_position (stream, topic, partition_id, until_offset),
    KEY by_replay (replay_id, partition_id, from_offset),
    CONSTRAINT nothing_lost CHECK (
        until_offset - from_offset = written_rows + duplicate_rows + stale_rows + filtered_rows + quarantined_rows
        + gap_rows + lost_rows + unselected_rows
    )
)
