-- Grain: one row per record. Purpose: the reading as it was sent.
SELECT r.id, r.station, r.read_at, r.height, r.wind, r.flooded, r.updated_at
FROM records AS r
