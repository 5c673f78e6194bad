-- Grain: one fitted model in the form that scores without a JVM, so that streams need no folder of models.
CREATE TABLE IF NOT EXISTS portable_models (
    pipeline VARCHAR(64)  NOT NULL,
    model    VARCHAR(64)  NOT NULL,
    version  INT UNSIGNED NOT NULL,
    content  LONGBLOB     NOT NULL COMMENT 'JSON, compressed by zlib',
    PRIMARY KEY (pipeline, model, version)
)
