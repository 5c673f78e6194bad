-- Grain: one metric of one model's champion, and one row without a metric for a model without a champion. Purpose: the
-- champion, its metrics beside those of the baseline on the same rows, the published version, and the version that waits
-- for a person's decision.
SELECT m.pipeline, m.model, m.champion_version, m.published_version, m.published_at,
       e.metric, e.value AS champion_value, e.low, e.high, b.value AS baseline_value, v.created_at AS trained_at,
       (SELECT MAX(w.version) FROM model_versions AS w
        WHERE w.pipeline = m.pipeline AND w.model = m.model AND w.state = 'waiting') AS waiting_version
FROM models AS m
LEFT JOIN model_versions AS v
       ON v.pipeline = m.pipeline AND v.model = m.model AND v.version = m.champion_version
LEFT JOIN evaluations AS e ON e.refresh_id = v.refresh_id AND e.version = v.version
LEFT JOIN evaluations AS b ON b.refresh_id = v.refresh_id AND b.version = 0 AND b.metric = e.metric
ORDER BY m.pipeline, m.model, e.metric
