-- The sums of the commits that exist already.
INSERT INTO ledger_sums (stream, topic, generation, partition_id, from_offset, commits, records, written_rows,
    duplicate_rows, stale_rows, filtered_rows, quarantined_rows, gap_rows, lost_rows, newest_at, last_commit,
    last_committed_at)
SELECT stream, topic, generation, partition_id, MIN(from_offset), SUM(merged_commits), SUM(until_offset - from_offset),
    SUM(written_rows), SUM(duplicate_rows), SUM(stale_rows), SUM(filtered_rows), SUM(quarantined_rows), SUM(gap_rows),
    SUM(lost_rows), MAX(newest_at), MAX(id), MAX(committed_at)
FROM commits WHERE replay_id IS NULL
GROUP BY stream, topic, generation, partition_id
ON DUPLICATE KEY UPDATE from_offset = VALUES(from_offset), commits = VALUES(commits), records = VALUES(records),
    written_rows = VALUES(written_rows), duplicate_rows = VALUES(duplicate_rows), stale_rows = VALUES(stale_rows),
    filtered_rows = VALUES(filtered_rows), quarantined_rows = VALUES(quarantined_rows), gap_rows = VALUES(gap_rows),
    lost_rows = VALUES(lost_rows), newest_at = VALUES(newest_at), last_commit = VALUES(last_commit),
    last_committed_at = VALUES(last_committed_at)
