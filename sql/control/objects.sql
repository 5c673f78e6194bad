-- Grain: one table or view of the operational schema. The pipeline that owns it: no other one writes, fills or retracts it.
CREATE TABLE IF NOT EXISTS objects (
    object   VARCHAR(64) NOT NULL PRIMARY KEY COMMENT 'name in the operational schema',
    pipeline VARCHAR(64) NOT NULL,
    kind     VARCHAR(16) NOT NULL COMMENT 'table, rollup, scores, view, or internal: what accompanies one of them',
    description TEXT NULL COMMENT 'how the database describes the declaration: a line for each column, key, option'
)
