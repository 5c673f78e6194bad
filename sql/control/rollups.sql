-- Grain: one rollup of one pipeline. Whether it counts all rows of its table yet. A commit reads the row of a rollup
-- that is being built with a shared lock; each step of the backfill holds it exclusively. Abandoned: a pipeline
-- version that does not declare it was applied since.
CREATE TABLE IF NOT EXISTS rollups (
    pipeline   VARCHAR(64)     NOT NULL,
    rollup     VARCHAR(64)     NOT NULL,
    state      ENUM('building', 'ready', 'abandoned') NOT NULL,
    rows_built BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'rows of the table counted by the backfill',
    changed_at DATETIME(6)     NOT NULL DEFAULT UTC_TIMESTAMP(6),
    PRIMARY KEY (pipeline, rollup)
)
