-- Headers, true size, and what became of a quarantined record later.
ALTER TABLE quarantine
    ADD COLUMN generation INT UNSIGNED NOT NULL DEFAULT 1 COMMENT 'of the topic, as in commits' AFTER topic,
    ADD COLUMN record_headers LONGTEXT NULL COMMENT 'JSON: [[name, base64 or null], …]' AFTER record_value,
    ADD COLUMN value_bytes BIGINT UNSIGNED NULL COMMENT 'size in Kafka; more than record_value holds if it was over the limit' AFTER record_headers,
    ADD COLUMN quarantined_at DATETIME(6) NOT NULL DEFAULT UTC_TIMESTAMP(6),
    ADD COLUMN replay_id BIGINT UNSIGNED NULL COMMENT 'the replay that set it aside first; NULL for the stream itself',
    ADD COLUMN resolved_commit BIGINT UNSIGNED NULL COMMENT 'the commit of the replay that made it a row',
    ADD COLUMN resolved_at DATETIME(6) NULL,
    DROP KEY by_record,
    ADD UNIQUE KEY by_record (stream, topic, generation, partition_id, record_offset)
