-- What a person asked of a run by its form, and runs that were refused because the input had drifted.
ALTER TABLE refreshes
    ADD COLUMN options LONGTEXT NULL COMMENT 'JSON: what the form of the run asked for' AFTER run,
    MODIFY COLUMN state ENUM('running', 'published', 'skipped', 'failed', 'refused') NOT NULL DEFAULT 'running'
