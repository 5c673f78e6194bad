-- Grain: one commit. Purpose: the newest commit before which no transaction is still open; transactions end within
-- minutes.
SELECT id FROM commits WHERE committed_at < UTC_TIMESTAMP(6) - INTERVAL 10 MINUTE ORDER BY id DESC LIMIT 1
