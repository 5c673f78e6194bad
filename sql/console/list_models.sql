-- Grain: one model. Purpose: its champion, what that was measured at beside the baseline on the same rows, and what
-- readers see.
SELECT m.pipeline, m.model, m.champion_version, m.published_version, m.published_at,
       e.metric, e.value AS champion_value, b.value AS baseline_value, v.created_at AS trained_at
FROM models AS m
LEFT JOIN model_versions AS v
       ON v.pipeline = m.pipeline AND v.model = m.model AND v.version = m.champion_version
LEFT JOIN evaluations AS e ON e.refresh_id = v.refresh_id AND e.version = v.version
LEFT JOIN evaluations AS b ON b.refresh_id = v.refresh_id AND b.version = 0 AND b.metric = e.metric
ORDER BY m.pipeline, m.model, e.metric
