-- Grain: one table in one commit of a pipeline with several tables. Each record that was not quarantined counts once
-- for each table; the commit's own row counts it once, by its best outcome.
CREATE TABLE IF NOT EXISTS commit_tables (
    commit_id      BIGINT UNSIGNED NOT NULL,
    table_name     VARCHAR(64)     NOT NULL,
    written_rows   BIGINT UNSIGNED NOT NULL DEFAULT 0,
    duplicate_rows BIGINT UNSIGNED NOT NULL DEFAULT 0,
    stale_rows     BIGINT UNSIGNED NOT NULL DEFAULT 0,
    filtered_rows  BIGINT UNSIGNED NOT NULL DEFAULT 0,
    PRIMARY KEY (commit_id, table_name)
)
