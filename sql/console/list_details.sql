-- Grain: one model with a champion. Purpose: the details of the champion, as JSON.
SELECT m.pipeline, m.model, v.details
FROM models AS m
JOIN model_versions AS v ON v.pipeline = m.pipeline AND v.model = m.model AND v.version = m.champion_version
