-- Grain: one model of a pipeline. Who is champion, and the one pointer that readers of <table>_scored follow.
CREATE TABLE IF NOT EXISTS models (
    pipeline          VARCHAR(64)  NOT NULL,
    model             VARCHAR(64)  NOT NULL,
    champion_version  INT UNSIGNED NULL,
    published_version INT UNSIGNED NULL,
    published_at      DATETIME(6)  NULL,
    PRIMARY KEY (pipeline, model)
)
