-- Whether the notifiers were called, once for an incident's beginning and once for its end.
ALTER TABLE incidents
    ADD COLUMN told_at DATETIME(6) NULL COMMENT 'when its beginning was told',
    ADD COLUMN told_end_at DATETIME(6) NULL COMMENT 'when its end was told',
    ADD KEY to_tell (told_end_at, subject)
