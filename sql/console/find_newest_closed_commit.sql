-- Grain: one commit. Purpose: the newest one before which none is open any more, for a transaction ends within minutes.
SELECT id FROM commits WHERE committed_at < UTC_TIMESTAMP(6) - INTERVAL 10 MINUTE ORDER BY id DESC LIMIT 1
