-- How sure a measure is: the middle 95 % of what resampled held-out rows say.
ALTER TABLE evaluations
    ADD COLUMN low DOUBLE NULL COMMENT 'lower end of the interval' AFTER value,
    ADD COLUMN high DOUBLE NULL COMMENT 'upper end of the interval' AFTER low
