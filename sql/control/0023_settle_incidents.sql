-- What happened before anybody could be told is not news.
UPDATE incidents SET told_at = opened_at, told_end_at = closed_at WHERE told_at IS NULL
