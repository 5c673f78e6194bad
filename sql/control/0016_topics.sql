-- Grain: one topic of one stream. Which incarnation of the topic the positions belong to.
CREATE TABLE IF NOT EXISTS topics (
    stream      VARCHAR(64)     NOT NULL,
    topic       VARCHAR(249)    NOT NULL,
    topic_id    VARCHAR(32)     NOT NULL COMMENT 'Kafka gives each incarnation another',
    generation  INT UNSIGNED    NOT NULL DEFAULT 1,
    since       BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'newest commit when this incarnation was met',
    PRIMARY KEY (stream, topic)
)
