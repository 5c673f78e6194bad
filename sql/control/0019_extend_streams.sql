-- A stream that is wanted may have to change its driver: drivers up to this epoch leave gracefully, the next one stays.
ALTER TABLE streams
    ADD COLUMN leave_epoch BIGINT UNSIGNED NULL COMMENT 'drivers up to this epoch are to leave: a restart, or a roll' AFTER wanted_at,
    ADD COLUMN leave_at DATETIME(6) NULL COMMENT 'when they were told' AFTER leave_epoch
