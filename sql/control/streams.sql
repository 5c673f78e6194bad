-- Grain: one stream. Its desired state, who requested it and when; a halted stream waits for a person.
CREATE TABLE IF NOT EXISTS streams (
    stream            VARCHAR(64)                NOT NULL PRIMARY KEY,
    desired_state     ENUM('running', 'stopped') NOT NULL DEFAULT 'stopped',
    requested_by      VARCHAR(128)               NOT NULL,
    requested_at      DATETIME(6)                NOT NULL DEFAULT UTC_TIMESTAMP(6),
    exit_epoch        BIGINT UNSIGNED            NULL COMMENT 'drivers up to this epoch are requested to exit: a restart, or a roll',
    exit_requested_at DATETIME(6)                NULL,
    halted_reason     VARCHAR(2000)              NULL COMMENT 'why the circuit opened; NULL while it is closed',
    failures_in_a_row INT UNSIGNED               NOT NULL DEFAULT 0 COMMENT 'drivers that failed since the last commit',
    last_failed_at    DATETIME(6)                NULL
)
