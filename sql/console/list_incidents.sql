-- Grain: one open incident, newest first. Purpose: the conditions that a person should know about.
SELECT subject, kind, message, opened_at
FROM incidents
WHERE closed_at IS NULL
ORDER BY opened_at DESC, id DESC
LIMIT 1000
