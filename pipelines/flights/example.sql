-- Purpose: the question an operations desk asks, in one query over what is new and what is old: which of the latest
-- departures are likely to arrive late, beside how their carrier has done on that route so far (history) and how
-- their origin has done in the hour they were scheduled for (rollup).
SELECT
    f.departed_at AS departed,
    CONCAT(f.carrier, ' ', f.flight) AS flight,
    CONCAT(f.origin, '-', f.dest) AS route,
    f.dep_delay AS delay,
    f.status,
    f.score AS p_late,
    CAST(h.late / h.flights AS DOUBLE) AS hour_late,
    (
        SELECT CAST(AVG(past.arr_delay > 15) AS DOUBLE)
        FROM flights AS past
        WHERE past.origin = f.origin AND past.dest = f.dest AND past.carrier = f.carrier
            AND past.scheduled_at < f.scheduled_at - INTERVAL 1 DAY
    ) AS route_late
FROM flights_scored AS f
JOIN delays_by_hour AS h
    ON h.origin = f.origin AND h.hour = CAST(DATE_FORMAT(f.scheduled_at, '%Y-%m-%d %H:00:00') AS DATETIME)
WHERE f.score IS NOT NULL
ORDER BY f.departed_at DESC, f.id
LIMIT 8
