-- Each table and view of the operational schema has one owner.
CREATE TABLE IF NOT EXISTS objects (
    object   VARCHAR(64) NOT NULL PRIMARY KEY COMMENT 'name in the operational schema',
    pipeline VARCHAR(64) NOT NULL,
    kind     VARCHAR(16) NOT NULL COMMENT 'table, rollup, scores, view, or internal: what accompanies one of them',
    description TEXT NULL COMMENT 'how the database describes the declaration: a line for each column, key, option'
)
