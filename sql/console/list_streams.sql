-- Grain: one stream, and whether its commits are old enough for their sums to be kept. Purpose: the sums of the ledger
-- after the last commit that the console has already added up. Replays read the same records again and do not count.
SELECT stream, id <= %(closed)s AS is_closed,
       CAST(SUM(merged_commits) AS SIGNED) AS commits,
       CAST(SUM(until_offset - from_offset) AS SIGNED) AS records,
       CAST(SUM(written_rows) AS SIGNED) AS written_rows,
       CAST(SUM(quarantined_rows) AS SIGNED) AS quarantined_rows,
       MAX(committed_at) AS last_committed_at,
       MAX(newest_at) AS newest_at
FROM commits
WHERE id > %(after)s AND replay_id IS NULL
GROUP BY stream, is_closed
