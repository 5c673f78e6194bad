-- Grain: one stream. What is wanted of it, by whom, since when; a halted stream waits for a person.
CREATE TABLE IF NOT EXISTS streams (
    stream            VARCHAR(64)                NOT NULL PRIMARY KEY,
    wanted            ENUM('running', 'stopped') NOT NULL DEFAULT 'stopped',
    wanted_by         VARCHAR(128)               NOT NULL,
    wanted_at         DATETIME(6)                NOT NULL DEFAULT UTC_TIMESTAMP(6),
    halted_reason     VARCHAR(2000)              NULL COMMENT 'why the circuit opened; NULL while it is closed',
    failures_in_a_row INT UNSIGNED               NOT NULL DEFAULT 0 COMMENT 'drivers that failed since the last commit',
    last_failed_at    DATETIME(6)                NULL
)
