-- Grain: one row per flight that has departed. Dialect: MariaDB.
-- Purpose: the features of features.sql, whose header explains why nothing in them is newer than known_at, and
-- `delay_minutes`, how late the flight arrives, in minutes; negative if early. A test keeps the two queries together.
SELECT
    f.id,
    f.departed_at AS known_at,
    f.dep_delay,
    f.carrier,
    f.origin,
    f.dest,
    f.distance,
    HOUR(f.scheduled_at) AS scheduled_hour,
    MONTH(f.scheduled_at) AS scheduled_month,
    DAYOFWEEK(f.scheduled_at) AS scheduled_weekday,
    f.plane_age,
    IF(f.scheduled_at - INTERVAL MINUTE(f.scheduled_at) MINUTE <= f.departed_at, f.temp, NULL) AS temp,
    IF(f.scheduled_at - INTERVAL MINUTE(f.scheduled_at) MINUTE <= f.departed_at, f.wind_speed, NULL) AS wind_speed,
    IF(f.scheduled_at - INTERVAL MINUTE(f.scheduled_at) MINUTE <= f.departed_at, f.precip, NULL) AS precip,
    IF(f.scheduled_at - INTERVAL MINUTE(f.scheduled_at) MINUTE <= f.departed_at, f.visib, NULL) AS visib,
    CAST(h.late AS DOUBLE) / h.flights AS origin_late_share,
    f.arr_delay AS delay_minutes,
    f._commit
FROM flights AS f
LEFT JOIN delays_by_hour AS h
    ON h.origin = f.origin
    AND h.hour = f.scheduled_at - INTERVAL (48 * 60 + MINUTE(f.scheduled_at)) MINUTE
WHERE f.departed_at IS NOT NULL
