-- Grain: one feature of one model, the furthest first. Purpose: how far it was from the training rows when that was
-- measured last.
SELECT r.pipeline, r.model, d.feature, d.psi, d.allowed, d.drift_rows
FROM (
    SELECT s.pipeline, s.model, MAX(s.id) AS id
    FROM refreshes AS s
    WHERE EXISTS (SELECT 1 FROM drift AS x WHERE x.refresh_id = s.id)
    GROUP BY s.pipeline, s.model
) AS r
JOIN drift AS d ON d.refresh_id = r.id
ORDER BY d.psi DESC, d.feature
