-- Where a driver runs that is no process of the host it was submitted from.
ALTER TABLE leases
    ADD COLUMN master VARCHAR(1024) NULL COMMENT 'as spark-submit was told' AFTER log_file,
    ADD COLUMN submission_id VARCHAR(255) NULL COMMENT 'what a cluster calls a driver that it runs itself' AFTER master
