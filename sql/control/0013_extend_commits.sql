-- The ledger of topics that were made again, of records that retention took, and of replays. The equation is now:
-- until - from = written + duplicate + stale + filtered + quarantined + gap + lost + unselected.
ALTER TABLE commits
    ADD COLUMN generation INT UNSIGNED NOT NULL DEFAULT 1 COMMENT 'counts up when the topic is made again' AFTER topic,
    ADD COLUMN lost_rows BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'offsets that Kafka removed before they were read' AFTER gap_rows,
    ADD COLUMN unselected_rows BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'offsets in the range that a replay did not ask for' AFTER lost_rows,
    ADD COLUMN warned_rows BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'records that a check warns about, counted above too' AFTER unselected_rows,
    ADD COLUMN forgotten_rows BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'of the quarantined, those that upkeep has removed since' AFTER warned_rows,
    ADD COLUMN merged_commits INT UNSIGNED NOT NULL DEFAULT 1 COMMENT 'how many commits upkeep has put together in this row',
    ADD COLUMN replay_id BIGINT UNSIGNED NULL COMMENT 'the replay that made it; NULL for the stream itself' AFTER stream,
    MODIFY COLUMN written_rows BIGINT UNSIGNED NOT NULL DEFAULT 0,
    MODIFY COLUMN duplicate_rows BIGINT UNSIGNED NOT NULL DEFAULT 0,
    MODIFY COLUMN stale_rows BIGINT UNSIGNED NOT NULL DEFAULT 0,
    MODIFY COLUMN filtered_rows BIGINT UNSIGNED NOT NULL DEFAULT 0,
    MODIFY COLUMN quarantined_rows BIGINT UNSIGNED NOT NULL DEFAULT 0,
    ADD KEY by_replay (replay_id, partition_id, from_offset),
    DROP CONSTRAINT nothing_lost,
    ADD CONSTRAINT nothing_lost CHECK (
        until_offset - from_offset = written_rows + duplicate_rows + stale_rows + filtered_rows + quarantined_rows
        + gap_rows + lost_rows + unselected_rows
    )
