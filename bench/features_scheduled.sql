-- Grain: one row per scheduled flight. Dialect: MariaDB.
-- Purpose: what is known two hours before the scheduled departure, and `late`, which is known only after arrival.
--
-- Nothing here is newer than known_at = scheduled_at - 2 h, nor is anything of the departure itself:
--   * No dep_delay, and no age of the plane: which plane flies may change until it does.
--   * The weather is that of the scheduled hour less 2 h: its observation was made by known_at.
--   * delays_by_hour of 48 h before the scheduled hour is 46 h old or more; 33 h are enough (see features.sql).
--   * What has departed and what has arrived is counted by the hour in which it did so, and of those hours only such
--     count as had ended by known_at: nothing is added to them afterwards.
SELECT
    f.id,
    f.scheduled_at - INTERVAL 2 HOUR AS known_at,
    f.carrier,
    f.origin,
    f.dest,
    f.distance,
    HOUR(f.scheduled_at) AS scheduled_hour,
    MONTH(f.scheduled_at) AS scheduled_month,
    DAYOFWEEK(f.scheduled_at) AS scheduled_weekday,
    w.temp,
    w.wind_speed,
    w.precip,
    w.visib,
    CAST(h.late AS DOUBLE) / h.flights AS origin_late_share,
    d.mean_delay AS origin_departed_delay,
    a.late_share AS origin_arrived_late_share,
    c.mean_delay AS carrier_departed_delay,
    f.arr_delay > 15 AS late,
    f._commit
FROM flights AS f
LEFT JOIN delays_by_hour AS h
    ON h.origin = f.origin
    AND h.hour = f.scheduled_at - INTERVAL (48 * 60 + MINUTE(f.scheduled_at)) MINUTE
LEFT JOIN (
    SELECT origin, CAST(DATE_FORMAT(scheduled_at, '%Y-%m-%d %H:00:00') AS DATETIME) AS hour,
        MAX(temp) AS temp, MAX(wind_speed) AS wind_speed, MAX(precip) AS precip, MAX(visib) AS visib
    FROM flights GROUP BY 1, 2
) AS w ON w.origin = f.origin AND w.hour = f.scheduled_at - INTERVAL (2 * 60 + MINUTE(f.scheduled_at)) MINUTE
LEFT JOIN (
    SELECT origin, CAST(DATE_FORMAT(departed_at, '%Y-%m-%d %H:00:00') AS DATETIME) AS hour, AVG(dep_delay) AS mean_delay
    FROM flights WHERE departed_at IS NOT NULL GROUP BY 1, 2
) AS d ON d.origin = f.origin AND d.hour = f.scheduled_at - INTERVAL (3 * 60 + MINUTE(f.scheduled_at)) MINUTE
LEFT JOIN (
    SELECT origin, CAST(DATE_FORMAT(arrived_at, '%Y-%m-%d %H:00:00') AS DATETIME) AS hour,
        AVG(arr_delay > 15) AS late_share
    FROM flights WHERE arrived_at IS NOT NULL GROUP BY 1, 2
) AS a ON a.origin = f.origin AND a.hour = f.scheduled_at - INTERVAL (3 * 60 + MINUTE(f.scheduled_at)) MINUTE
LEFT JOIN (
    SELECT carrier, CAST(DATE_FORMAT(departed_at, '%Y-%m-%d %H:00:00') AS DATETIME) AS hour,
        AVG(dep_delay) AS mean_delay
    FROM flights WHERE departed_at IS NOT NULL GROUP BY 1, 2
) AS c ON c.carrier = f.carrier AND c.hour = f.scheduled_at - INTERVAL (3 * 60 + MINUTE(f.scheduled_at)) MINUTE
