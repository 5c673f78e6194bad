-- Grain: one row per flight that has departed. Dialect: MariaDB.
-- Purpose: what is known at known_at, the moment of departure, and `late`, which is known only after arrival.
--
-- Nothing here is newer than known_at:
--   * A flight may leave before its scheduled hour begins; the weather of that hour is then still to be observed.
--   * delays_by_hour goes on changing until the last flight scheduled in the hour has arrived, been diverted or been
--     cancelled. In the flights of 2013 that takes at most 32.9 h from the start of the hour, and the first distance
--     at which no flight sees an unfinished hour is 33 h (at 32 h, 19 flights do). 48 h keeps the hour of day and
--     leaves 15 h in hand. 24 h would leak: 20 flights left before yesterday's same hour was complete.
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
    f.arr_delay > 15 AS late,
    f._commit
FROM flights AS f
LEFT JOIN delays_by_hour AS h
    ON h.origin = f.origin
    AND h.hour = f.scheduled_at - INTERVAL (48 * 60 + MINUTE(f.scheduled_at)) MINUTE
WHERE f.departed_at IS NOT NULL
