-- Grain: one model. Purpose: the last decision about it, with its reason and who made it.
SELECT d.pipeline, d.model, d.version, d.verdict, d.reason, d.decided_by, d.decided_at
FROM decisions AS d
JOIN (SELECT MAX(id) AS id FROM decisions GROUP BY pipeline, model) AS newest ON newest.id = d.id
