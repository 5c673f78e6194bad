-- Grain: one feature of one model, the largest drift first. Purpose: how far the feature had drifted from the training
-- rows at the last measurement.
SELECT r.pipeline, r.model, d.feature, d.psi, d.allowed, d.drift_rows
FROM (
    SELECT s.pipeline, s.model, MAX(s.id) AS id
    FROM refreshes AS s
    WHERE EXISTS (SELECT 1 FROM drift AS x WHERE x.refresh_id = s.id)
    GROUP BY s.pipeline, s.model
) AS r
JOIN drift AS d ON d.refresh_id = r.id
ORDER BY d.psi DESC, d.feature
