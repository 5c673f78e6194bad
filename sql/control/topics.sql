-- Grain: one topic of one stream. Which generation of the topic the positions belong to.
CREATE TABLE IF NOT EXISTS topics (
    stream       VARCHAR(64)     NOT NULL,
    topic        VARCHAR(249)    NOT NULL,
    topic_id     VARCHAR(32)     NOT NULL COMMENT 'given by Kafka; another one after the topic is recreated',
    generation   INT UNSIGNED    NOT NULL DEFAULT 1 COMMENT 'counts up when the topic is recreated, or turned back to',
    since_commit BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'newest commit when this generation was first seen',
    PRIMARY KEY (stream, topic)
)
