-- Grain: one row per reading. Purpose: what was known when the gauge was read, and whether it flooded afterwards.
SELECT t.id, t.read_at AS known_at, t.station, t.height, t.wind, t.flooded, t._commit
FROM tides AS t
