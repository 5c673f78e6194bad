-- Grain: one stream. Purpose: the sums over its own commits.
SELECT stream,
       CAST(SUM(commits) AS SIGNED) AS commits,
       CAST(SUM(records) AS SIGNED) AS records,
       CAST(SUM(written_rows) AS SIGNED) AS written_rows,
       CAST(SUM(quarantined_rows) AS SIGNED) AS quarantined_rows,
       MAX(last_committed_at) AS last_committed_at,
       MAX(newest_at) AS newest_at
FROM ledger_sums
GROUP BY stream
