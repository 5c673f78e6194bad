-- Grain: one row per record of the feed, so several per flight; the table keeps the newest by updated_at.
-- Purpose: the flight as the feed describes it, with the names of airline and destination, the age of its plane in the
-- year of the flight, and the weather observed at its origin in the hour it is scheduled for. Times are UTC.
SELECT
    r.id,
    r.status,
    r.carrier,
    al.name AS airline,
    r.flight,
    r.tailnum,
    CAST(YEAR(r.scheduled_at) - p.year AS INT) AS plane_age,
    r.origin,
    r.dest,
    ap.name AS dest_name,
    r.distance,
    r.scheduled_at,
    r.departed_at,
    r.dep_delay,
    r.arrived_at,
    r.arr_delay,
    r.air_time,
    CAST(w.temp AS DOUBLE) AS temp,
    CAST(w.wind_speed AS DOUBLE) AS wind_speed,
    CAST(w.precip AS DOUBLE) AS precip,
    CAST(w.visib AS DOUBLE) AS visib,
    r.updated_at
FROM records AS r
LEFT JOIN airlines AS al ON al.carrier = r.carrier
LEFT JOIN airports AS ap ON ap.faa = r.dest
LEFT JOIN planes AS p ON p.tailnum = r.tailnum
LEFT JOIN weather AS w ON w.origin = r.origin AND w.time_hour = DATE_TRUNC('HOUR', r.scheduled_at)
