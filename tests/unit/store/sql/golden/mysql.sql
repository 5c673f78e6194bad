-- MySQL 8.0.19 and later. The data are in schema `data`.

-- session
SET SESSION time_zone = '+00:00', transaction_isolation = 'READ-COMMITTED',
    sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION';

-- snapshot_read
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY;

-- first_row orders
SELECT 1 FROM `data`.`orders` LIMIT 1;

-- count_rows orders
SELECT COUNT(*) FROM `data`.`orders`;

-- empty orders
DELETE FROM `data`.`orders`;

-- offsets_in orders
SELECT `_offset` FROM `data`.`_stage_orders`;

-- create_table orders
CREATE TABLE IF NOT EXISTS `data`.`orders` (
    `shop` INT NOT NULL,
    `id` BIGINT NOT NULL,
    `state` VARCHAR(8),
    `amount` DECIMAL(12,2),
    `placed_at` DATETIME,
    `changed_at` DATETIME(6) NOT NULL,
    `_commit` BIGINT UNSIGNED NOT NULL,
    `_partition` INT UNSIGNED NOT NULL,
    `_offset` BIGINT UNSIGNED NOT NULL,
    `_pipeline_version` INT UNSIGNED NOT NULL,
    PRIMARY KEY (`shop`, `id`),
    KEY `by_state_placed_at` (`state`, `placed_at`)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin COMMENT 'definition 606476bfe7185fde95d60b88e07f6dea';

-- create_deletion_markers orders
CREATE TABLE IF NOT EXISTS `data`.`_deleted_orders` (`shop` INT NOT NULL, `id` BIGINT NOT NULL,
    `_commit` BIGINT UNSIGNED NOT NULL, `_partition` INT UNSIGNED NOT NULL,
    `_offset` BIGINT UNSIGNED NOT NULL, PRIMARY KEY (`shop`,
    `id`)) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin;

-- create_stage orders
DROP TEMPORARY TABLE IF EXISTS `data`.`_stage_orders`;
CREATE TEMPORARY TABLE `data`.`_stage_orders` (`shop` INT NOT NULL, `id` BIGINT NOT NULL, `state` VARCHAR(8),
    `amount` DECIMAL(12,2), `placed_at` DATETIME, `changed_at` DATETIME(6) NOT NULL,
    `_offset` BIGINT UNSIGNED NOT NULL, PRIMARY KEY (`shop`,
    `id`)) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin;

-- create_stage orders keyed=False
DROP TEMPORARY TABLE IF EXISTS `data`.`_stage_orders`;
CREATE TEMPORARY TABLE `data`.`_stage_orders` (`shop` INT NOT NULL, `id` BIGINT NOT NULL, `state` VARCHAR(8),
    `amount` DECIMAL(12,2), `placed_at` DATETIME, `changed_at` DATETIME(6) NOT NULL,
    `_offset` BIGINT UNSIGNED NOT NULL) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin;

-- load orders
LOAD DATA LOCAL INFILE %(file)s REPLACE
INTO TABLE `data`.`_stage_orders` CHARACTER SET utf8mb4 (`shop`, `id`, `state`, `amount`, `placed_at`,
    `changed_at`, `_offset`);

-- load orders lenient=True
LOAD DATA LOCAL INFILE %(file)s
INTO TABLE `data`.`_stage_orders` CHARACTER SET utf8mb4 (`shop`, `id`, `state`, `amount`, `placed_at`,
    `changed_at`, `_offset`);

-- insert_or_lock orders
INSERT INTO `data`.`orders` (`shop`, `id`, `state`, `amount`, `placed_at`, `changed_at`, `_commit`,
    `_partition`, `_offset`, `_pipeline_version`)
SELECT s.`shop`, s.`id`, s.`state`, s.`amount`, s.`placed_at`, s.`changed_at`, %(commit)s, %(partition)s,
    s.`_offset`, %(pipeline_version)s
FROM `data`.`_stage_orders` AS s
ORDER BY s.`shop`, s.`id`
ON DUPLICATE KEY UPDATE `shop` = `data`.`orders`.`shop`;

-- lock_existing orders

-- count_known orders
SELECT COUNT(*)
FROM `data`.`_stage_orders` AS s
STRAIGHT_JOIN `data`.`orders` AS t ON t.`shop` = s.`shop` AND t.`id` = s.`id`;

-- update orders
UPDATE `data`.`_stage_orders` AS s
STRAIGHT_JOIN `data`.`orders` AS t ON t.`shop` = s.`shop` AND t.`id` = s.`id`
SET t.`state` = s.`state`, t.`amount` = s.`amount`, t.`placed_at` = s.`placed_at`,
    t.`changed_at` = s.`changed_at`, t.`_commit` = %(commit)s, t.`_partition` = %(partition)s,
    t.`_offset` = s.`_offset`, t.`_pipeline_version` = %(pipeline_version)s
WHERE t.`_commit` <> %(commit)s AND (s.`changed_at` > t.`changed_at` OR (t.`_partition` = %(partition)s
    AND t.`_offset` = s.`_offset` AND t.`_commit` > %(since_commit)s
    AND t.`_pipeline_version` < %(pipeline_version)s));

-- written_offsets orders
SELECT s.`_offset`
FROM `data`.`_stage_orders` AS s
STRAIGHT_JOIN `data`.`orders` AS t ON t.`shop` = s.`shop` AND t.`id` = s.`id`
WHERE t.`_commit` = %(commit)s;

-- create_tombstones orders
DROP TEMPORARY TABLE IF EXISTS `data`.`_tombstones_orders`;
CREATE TEMPORARY TABLE `data`.`_tombstones_orders` (`shop` INT NOT NULL, `id` BIGINT NOT NULL,
    `_offset` BIGINT UNSIGNED NOT NULL, PRIMARY KEY (`shop`,
    `id`)) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin;
DROP TEMPORARY TABLE IF EXISTS `data`.`_locked_orders`;
CREATE TEMPORARY TABLE `data`.`_locked_orders` (`shop` INT NOT NULL, `id` BIGINT NOT NULL,
    `_offset` BIGINT UNSIGNED NOT NULL, PRIMARY KEY (`shop`,
    `id`)) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin;

-- discard_recorded_tombstones orders
DELETE k
FROM `data`.`_tombstones_orders` AS k
STRAIGHT_JOIN `data`.`_deleted_orders` AS d ON d.`shop` = k.`shop` AND d.`id` = k.`id`
WHERE d.`_partition` = %(partition)s AND d.`_offset` >= k.`_offset` AND d.`_commit` > %(since_commit)s;

-- insert_locked_key orders
INSERT INTO `data`.`_locked_orders` (`shop`, `id`, `_offset`)
VALUES (%s, %s, %s);

-- lock_rows_to_remove orders
SELECT k.`shop`, k.`id`, k.`_offset`
FROM `data`.`_tombstones_orders` AS k
STRAIGHT_JOIN `data`.`orders` AS t ON t.`shop` = k.`shop` AND t.`id` = k.`id`
WHERE NOT (t.`_partition` = %(partition)s AND t.`_offset` > k.`_offset` AND t.`_commit` > %(since_commit)s)
FOR UPDATE;

-- delete_locked_rows orders
DELETE t
FROM `data`.`_locked_orders` AS k
STRAIGHT_JOIN `data`.`orders` AS t ON t.`shop` = k.`shop` AND t.`id` = k.`id`;

-- record_deletions orders
INSERT INTO `data`.`_deleted_orders` (`shop`, `id`, `_commit`, `_partition`, `_offset`)
SELECT *
FROM (SELECT `shop`, `id`, %(commit)s, %(partition)s, `_offset`
    FROM `data`.`_tombstones_orders`) AS n (`shop`, `id`, `_commit`, `_partition`, `_offset`)
ORDER BY `shop`, `id`
ON DUPLICATE KEY UPDATE `_commit` = IF(`data`.`_deleted_orders`.`_partition` = %(partition)s
    AND `data`.`_deleted_orders`.`_offset` > n.`_offset`
    AND `data`.`_deleted_orders`.`_commit` > %(since_commit)s, `data`.`_deleted_orders`.`_commit`,
    %(commit)s), `_offset` = IF(`data`.`_deleted_orders`.`_commit` = %(commit)s, n.`_offset`,
    `data`.`_deleted_orders`.`_offset`), `_partition` = IF(`data`.`_deleted_orders`.`_commit` = %(commit)s,
    n.`_partition`, `data`.`_deleted_orders`.`_partition`);

-- recorded_deletions orders
SELECT s.`shop`, s.`id`, d.`_offset`
FROM `data`.`_stage_orders` AS s
STRAIGHT_JOIN `data`.`_deleted_orders` AS d ON d.`shop` = s.`shop` AND d.`id` = s.`id`
WHERE d.`_partition` = %(partition)s AND d.`_commit` > %(since_commit)s;

-- discard_deleted_rows orders
DELETE s
FROM `data`.`_stage_orders` AS s
STRAIGHT_JOIN `data`.`_deleted_orders` AS d ON d.`shop` = s.`shop` AND d.`id` = s.`id`
WHERE d.`_partition` = %(partition)s AND d.`_offset` >= s.`_offset` AND d.`_commit` > %(since_commit)s;

-- create_table clicks
CREATE TABLE IF NOT EXISTS `data`.`clicks` (
    `code` VARCHAR(12) NOT NULL,
    `page` TEXT,
    `at` DATETIME(6) NOT NULL,
    `_commit` BIGINT UNSIGNED NOT NULL,
    `_partition` INT UNSIGNED NOT NULL,
    `_offset` BIGINT UNSIGNED NOT NULL,
    `_pipeline_version` INT UNSIGNED NOT NULL,
    PRIMARY KEY (`code`)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin COMMENT 'definition 4fcff045ce706bf4012481f0688f6a7d';

-- create_deletion_markers clicks
CREATE TABLE IF NOT EXISTS `data`.`_deleted_clicks` (`code` VARCHAR(12) NOT NULL,
    `_commit` BIGINT UNSIGNED NOT NULL, `_partition` INT UNSIGNED NOT NULL,
    `_offset` BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (`code`)) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin;

-- create_stage clicks
DROP TEMPORARY TABLE IF EXISTS `data`.`_stage_clicks`;
CREATE TEMPORARY TABLE `data`.`_stage_clicks` (`code` VARCHAR(12) NOT NULL, `page` TEXT,
    `at` DATETIME(6) NOT NULL, `_offset` BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (`code`)) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin;

-- create_stage clicks keyed=False
DROP TEMPORARY TABLE IF EXISTS `data`.`_stage_clicks`;
CREATE TEMPORARY TABLE `data`.`_stage_clicks` (`code` VARCHAR(12) NOT NULL, `page` TEXT,
    `at` DATETIME(6) NOT NULL,
    `_offset` BIGINT UNSIGNED NOT NULL) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin;

-- load clicks
LOAD DATA LOCAL INFILE %(file)s REPLACE
INTO TABLE `data`.`_stage_clicks` CHARACTER SET utf8mb4 (`code`, `page`, `at`, `_offset`);

-- load clicks lenient=True
LOAD DATA LOCAL INFILE %(file)s
INTO TABLE `data`.`_stage_clicks` CHARACTER SET utf8mb4 (`code`, `page`, `at`, `_offset`);

-- insert_or_lock clicks
INSERT INTO `data`.`clicks` (`code`, `page`, `at`, `_commit`, `_partition`, `_offset`, `_pipeline_version`)
SELECT s.`code`, s.`page`, s.`at`, %(commit)s, %(partition)s, s.`_offset`, %(pipeline_version)s
FROM `data`.`_stage_clicks` AS s
ORDER BY s.`code`
ON DUPLICATE KEY UPDATE `code` = `data`.`clicks`.`code`;

-- lock_existing clicks

-- count_known clicks
SELECT COUNT(*)
FROM `data`.`_stage_clicks` AS s
STRAIGHT_JOIN `data`.`clicks` AS t ON t.`code` = s.`code`;

-- update clicks
UPDATE `data`.`_stage_clicks` AS s
STRAIGHT_JOIN `data`.`clicks` AS t ON t.`code` = s.`code`
SET t.`page` = s.`page`, t.`at` = s.`at`, t.`_commit` = %(commit)s, t.`_partition` = %(partition)s,
    t.`_offset` = s.`_offset`, t.`_pipeline_version` = %(pipeline_version)s
WHERE t.`_commit` <> %(commit)s AND (t.`_partition` = %(partition)s AND t.`_offset` > s.`_offset`
    AND t.`_commit` > %(since_commit)s OR (t.`_partition` = %(partition)s AND t.`_offset` = s.`_offset`
    AND t.`_commit` > %(since_commit)s AND t.`_pipeline_version` < %(pipeline_version)s));

-- written_offsets clicks
SELECT s.`_offset`
FROM `data`.`_stage_clicks` AS s
STRAIGHT_JOIN `data`.`clicks` AS t ON t.`code` = s.`code`
WHERE t.`_commit` = %(commit)s;

-- create_tombstones clicks
DROP TEMPORARY TABLE IF EXISTS `data`.`_tombstones_clicks`;
CREATE TEMPORARY TABLE `data`.`_tombstones_clicks` (`code` VARCHAR(12) NOT NULL,
    `_offset` BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (`code`)) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin;
DROP TEMPORARY TABLE IF EXISTS `data`.`_locked_clicks`;
CREATE TEMPORARY TABLE `data`.`_locked_clicks` (`code` VARCHAR(12) NOT NULL,
    `_offset` BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (`code`)) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin;

-- discard_recorded_tombstones clicks
DELETE k
FROM `data`.`_tombstones_clicks` AS k
STRAIGHT_JOIN `data`.`_deleted_clicks` AS d ON d.`code` = k.`code`
WHERE d.`_partition` = %(partition)s AND d.`_offset` >= k.`_offset` AND d.`_commit` > %(since_commit)s;

-- insert_locked_key clicks
INSERT INTO `data`.`_locked_clicks` (`code`, `_offset`) VALUES (%s, %s);

-- lock_rows_to_remove clicks
SELECT k.`code`, k.`_offset`
FROM `data`.`_tombstones_clicks` AS k
STRAIGHT_JOIN `data`.`clicks` AS t ON t.`code` = k.`code`
WHERE NOT (t.`_partition` = %(partition)s AND t.`_offset` > k.`_offset` AND t.`_commit` > %(since_commit)s)
FOR UPDATE;

-- delete_locked_rows clicks
DELETE t
FROM `data`.`_locked_clicks` AS k
STRAIGHT_JOIN `data`.`clicks` AS t ON t.`code` = k.`code`;

-- record_deletions clicks
INSERT INTO `data`.`_deleted_clicks` (`code`, `_commit`, `_partition`, `_offset`)
SELECT *
FROM (SELECT `code`, %(commit)s, %(partition)s, `_offset`
    FROM `data`.`_tombstones_clicks`) AS n (`code`, `_commit`, `_partition`, `_offset`)
ORDER BY `code`
ON DUPLICATE KEY UPDATE `_commit` = IF(`data`.`_deleted_clicks`.`_partition` = %(partition)s
    AND `data`.`_deleted_clicks`.`_offset` > n.`_offset`
    AND `data`.`_deleted_clicks`.`_commit` > %(since_commit)s, `data`.`_deleted_clicks`.`_commit`,
    %(commit)s), `_offset` = IF(`data`.`_deleted_clicks`.`_commit` = %(commit)s, n.`_offset`,
    `data`.`_deleted_clicks`.`_offset`), `_partition` = IF(`data`.`_deleted_clicks`.`_commit` = %(commit)s,
    n.`_partition`, `data`.`_deleted_clicks`.`_partition`);

-- recorded_deletions clicks
SELECT s.`code`, d.`_offset`
FROM `data`.`_stage_clicks` AS s
STRAIGHT_JOIN `data`.`_deleted_clicks` AS d ON d.`code` = s.`code`
WHERE d.`_partition` = %(partition)s AND d.`_commit` > %(since_commit)s;

-- discard_deleted_rows clicks
DELETE s
FROM `data`.`_stage_clicks` AS s
STRAIGHT_JOIN `data`.`_deleted_clicks` AS d ON d.`code` = s.`code`
WHERE d.`_partition` = %(partition)s AND d.`_offset` >= s.`_offset` AND d.`_commit` > %(since_commit)s;

-- create_rollup orders_by_hour
CREATE TABLE IF NOT EXISTS `data`.`orders_by_hour` (
    `_group` BINARY(32) NOT NULL,
    `state` VARCHAR(8),
    `hour` DATETIME,
    `orders` BIGINT NOT NULL,
    `amount` DECIMAL(65,2) NOT NULL,
    `dear` BIGINT NOT NULL,
    `_rows` BIGINT NOT NULL,
    PRIMARY KEY (`_group`),
    KEY `by_keys` (`state`, `hour`)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin COMMENT 'definition 001a32154b6f0f2c9747d42e37bdfbfc';

-- create_rollup_cursor orders_by_hour
CREATE TABLE IF NOT EXISTS `data`.`_cursor_orders_by_hour` (`shop` INT NOT NULL,
    `id` BIGINT NOT NULL) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin;

-- create_delta orders_by_hour
DROP TEMPORARY TABLE IF EXISTS `data`.`_delta_orders_by_hour`;
CREATE TEMPORARY TABLE `data`.`_delta_orders_by_hour` (`_group` BINARY(32) NOT NULL, `state` VARCHAR(8),
    `hour` DATETIME, `orders` BIGINT NOT NULL, `amount` DECIMAL(65,2) NOT NULL, `dear` BIGINT NOT NULL,
    `_rows` BIGINT NOT NULL, PRIMARY KEY (`_group`)) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin;

-- move_rollup orders_by_hour all_new=True complete=True
INSERT INTO `data`.`_delta_orders_by_hour` (`_group`, `state`, `hour`, `orders`, `amount`, `dear`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`state`), QUOTE(`hour`)), 256)), `state`, `hour`, SUM(`orders`),
    SUM(`amount`), SUM(`dear`), SUM(`_rows`)
FROM (SELECT CAST(NULLIF(`s`.`state`, '') AS CHAR(8)) AS `state`, CAST(DATE_FORMAT(`s`.`placed_at`,
    '%%Y-%%m-%%d %%H:00:00') AS DATETIME) AS `hour`, 1 AS `orders`, COALESCE(`s`.`amount`, 0) AS `amount`,
    COALESCE(`s`.`amount` > 100, 0) AS `dear`, 1 AS `_rows`
    FROM `data`.`_stage_orders` AS s) AS d
GROUP BY `state`, `hour`;
INSERT INTO `data`.`orders_by_hour`
SELECT *
FROM (SELECT *
    FROM `data`.`_delta_orders_by_hour`) AS n
ORDER BY `_group`
ON DUPLICATE KEY UPDATE `data`.`orders_by_hour`.`orders` = `data`.`orders_by_hour`.`orders` + n.`orders`,
    `data`.`orders_by_hour`.`amount` = `data`.`orders_by_hour`.`amount` + n.`amount`,
    `data`.`orders_by_hour`.`dear` = `data`.`orders_by_hour`.`dear` + n.`dear`,
    `data`.`orders_by_hour`.`_rows` = `data`.`orders_by_hour`.`_rows` + n.`_rows`;

-- move_rollup orders_by_hour all_new=False complete=True
INSERT INTO `data`.`_delta_orders_by_hour` (`_group`, `state`, `hour`, `orders`, `amount`, `dear`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`state`), QUOTE(`hour`)), 256)), `state`, `hour`, SUM(`orders`),
    SUM(`amount`), SUM(`dear`), SUM(`_rows`)
FROM (SELECT CAST(NULLIF(`s`.`state`, '') AS CHAR(8)) AS `state`, CAST(DATE_FORMAT(`s`.`placed_at`,
    '%%Y-%%m-%%d %%H:00:00') AS DATETIME) AS `hour`, 1 AS `orders`, COALESCE(`s`.`amount`, 0) AS `amount`,
    COALESCE(`s`.`amount` > 100, 0) AS `dear`, 1 AS `_rows`
    FROM `data`.`_stage_orders` AS s
    STRAIGHT_JOIN `data`.`orders` AS t ON t.`shop` = s.`shop` AND t.`id` = s.`id`
    WHERE t.`_commit` = %(commit)s OR (s.`changed_at` > t.`changed_at` OR (t.`_partition` = %(partition)s
        AND t.`_offset` = s.`_offset` AND t.`_commit` > %(since_commit)s
        AND t.`_pipeline_version` < %(pipeline_version)s))) AS d
GROUP BY `state`, `hour`;
INSERT INTO `data`.`_delta_orders_by_hour` (`_group`, `state`, `hour`, `orders`, `amount`, `dear`, `_rows`)
SELECT *
FROM (SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`state`), QUOTE(`hour`)), 256)), `state`, `hour`, SUM(`orders`),
    SUM(`amount`), SUM(`dear`), SUM(`_rows`)
    FROM (SELECT CAST(NULLIF(`t`.`state`, '') AS CHAR(8)) AS `state`, CAST(DATE_FORMAT(`t`.`placed_at`,
        '%%Y-%%m-%%d %%H:00:00') AS DATETIME) AS `hour`, -1 AS `orders`, -COALESCE(`t`.`amount`,
        0) AS `amount`, -COALESCE(`t`.`amount` > 100, 0) AS `dear`, -1 AS `_rows`
      FROM `data`.`_stage_orders` AS s
      STRAIGHT_JOIN `data`.`orders` AS t ON t.`shop` = s.`shop` AND t.`id` = s.`id`
      WHERE t.`_commit` <> %(commit)s AND (s.`changed_at` > t.`changed_at` OR (t.`_partition` = %(partition)s
          AND t.`_offset` = s.`_offset` AND t.`_commit` > %(since_commit)s
          AND t.`_pipeline_version` < %(pipeline_version)s))) AS d
    GROUP BY `state`, `hour`) AS n (`_group`, `state`, `hour`, `orders`, `amount`, `dear`, `_rows`)
ON DUPLICATE KEY UPDATE `data`.`_delta_orders_by_hour`.`orders` = `data`.`_delta_orders_by_hour`.`orders` + n.`orders`,
    `data`.`_delta_orders_by_hour`.`amount` = `data`.`_delta_orders_by_hour`.`amount` + n.`amount`,
    `data`.`_delta_orders_by_hour`.`dear` = `data`.`_delta_orders_by_hour`.`dear` + n.`dear`,
    `data`.`_delta_orders_by_hour`.`_rows` = `data`.`_delta_orders_by_hour`.`_rows` + n.`_rows`;
INSERT INTO `data`.`orders_by_hour`
SELECT *
FROM (SELECT *
    FROM `data`.`_delta_orders_by_hour`) AS n
ORDER BY `_group`
ON DUPLICATE KEY UPDATE `data`.`orders_by_hour`.`orders` = `data`.`orders_by_hour`.`orders` + n.`orders`,
    `data`.`orders_by_hour`.`amount` = `data`.`orders_by_hour`.`amount` + n.`amount`,
    `data`.`orders_by_hour`.`dear` = `data`.`orders_by_hour`.`dear` + n.`dear`,
    `data`.`orders_by_hour`.`_rows` = `data`.`orders_by_hour`.`_rows` + n.`_rows`;
DELETE r
FROM `data`.`_delta_orders_by_hour` AS d
STRAIGHT_JOIN `data`.`orders_by_hour` AS r ON r.`_group` = d.`_group`
WHERE r.`_rows` = 0;

-- remove_from_rollup orders_by_hour complete=True
INSERT INTO `data`.`_delta_orders_by_hour` (`_group`, `state`, `hour`, `orders`, `amount`, `dear`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`state`), QUOTE(`hour`)), 256)), `state`, `hour`, SUM(`orders`),
    SUM(`amount`), SUM(`dear`), SUM(`_rows`)
FROM (SELECT CAST(NULLIF(`t`.`state`, '') AS CHAR(8)) AS `state`, CAST(DATE_FORMAT(`t`.`placed_at`,
    '%Y-%m-%d %H:00:00') AS DATETIME) AS `hour`, -1 AS `orders`, -COALESCE(`t`.`amount`, 0) AS `amount`,
    -COALESCE(`t`.`amount` > 100, 0) AS `dear`, -1 AS `_rows`
    FROM `data`.`_locked_orders` AS k
    STRAIGHT_JOIN `data`.`orders` AS t ON t.`shop` = k.`shop` AND t.`id` = k.`id`) AS d
GROUP BY `state`, `hour`;
INSERT INTO `data`.`orders_by_hour`
SELECT *
FROM (SELECT *
    FROM `data`.`_delta_orders_by_hour`) AS n
ORDER BY `_group`
ON DUPLICATE KEY UPDATE `data`.`orders_by_hour`.`orders` = `data`.`orders_by_hour`.`orders` + n.`orders`,
    `data`.`orders_by_hour`.`amount` = `data`.`orders_by_hour`.`amount` + n.`amount`,
    `data`.`orders_by_hour`.`dear` = `data`.`orders_by_hour`.`dear` + n.`dear`,
    `data`.`orders_by_hour`.`_rows` = `data`.`orders_by_hour`.`_rows` + n.`_rows`;
DELETE r
FROM `data`.`_delta_orders_by_hour` AS d
STRAIGHT_JOIN `data`.`orders_by_hour` AS r ON r.`_group` = d.`_group`
WHERE r.`_rows` = 0;
DELETE FROM `data`.`_delta_orders_by_hour`;

-- move_rollup orders_by_hour all_new=True complete=False
INSERT INTO `data`.`_delta_orders_by_hour` (`_group`, `state`, `hour`, `orders`, `amount`, `dear`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`state`), QUOTE(`hour`)), 256)), `state`, `hour`, SUM(`orders`),
    SUM(`amount`), SUM(`dear`), SUM(`_rows`)
FROM (SELECT CAST(NULLIF(`s`.`state`, '') AS CHAR(8)) AS `state`, CAST(DATE_FORMAT(`s`.`placed_at`,
    '%%Y-%%m-%%d %%H:00:00') AS DATETIME) AS `hour`, 1 AS `orders`, COALESCE(`s`.`amount`, 0) AS `amount`,
    COALESCE(`s`.`amount` > 100, 0) AS `dear`, 1 AS `_rows`
    FROM `data`.`_stage_orders` AS s
    JOIN `data`.`_cursor_orders_by_hour` AS b ON ((b.`shop` > s.`shop`) OR (b.`shop` = s.`shop`
        AND b.`id` > s.`id`) OR (b.`shop` = s.`shop` AND b.`id` = s.`id`))) AS d
GROUP BY `state`, `hour`;
INSERT INTO `data`.`orders_by_hour`
SELECT *
FROM (SELECT *
    FROM `data`.`_delta_orders_by_hour`) AS n
ORDER BY `_group`
ON DUPLICATE KEY UPDATE `data`.`orders_by_hour`.`orders` = `data`.`orders_by_hour`.`orders` + n.`orders`,
    `data`.`orders_by_hour`.`amount` = `data`.`orders_by_hour`.`amount` + n.`amount`,
    `data`.`orders_by_hour`.`dear` = `data`.`orders_by_hour`.`dear` + n.`dear`,
    `data`.`orders_by_hour`.`_rows` = `data`.`orders_by_hour`.`_rows` + n.`_rows`;

-- move_rollup orders_by_hour all_new=False complete=False
INSERT INTO `data`.`_delta_orders_by_hour` (`_group`, `state`, `hour`, `orders`, `amount`, `dear`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`state`), QUOTE(`hour`)), 256)), `state`, `hour`, SUM(`orders`),
    SUM(`amount`), SUM(`dear`), SUM(`_rows`)
FROM (SELECT CAST(NULLIF(`s`.`state`, '') AS CHAR(8)) AS `state`, CAST(DATE_FORMAT(`s`.`placed_at`,
    '%%Y-%%m-%%d %%H:00:00') AS DATETIME) AS `hour`, 1 AS `orders`, COALESCE(`s`.`amount`, 0) AS `amount`,
    COALESCE(`s`.`amount` > 100, 0) AS `dear`, 1 AS `_rows`
    FROM `data`.`_stage_orders` AS s
    STRAIGHT_JOIN `data`.`orders` AS t ON t.`shop` = s.`shop` AND t.`id` = s.`id`
    JOIN `data`.`_cursor_orders_by_hour` AS b ON ((b.`shop` > s.`shop`) OR (b.`shop` = s.`shop`
        AND b.`id` > s.`id`) OR (b.`shop` = s.`shop` AND b.`id` = s.`id`))
    WHERE t.`_commit` = %(commit)s OR (s.`changed_at` > t.`changed_at` OR (t.`_partition` = %(partition)s
        AND t.`_offset` = s.`_offset` AND t.`_commit` > %(since_commit)s
        AND t.`_pipeline_version` < %(pipeline_version)s))) AS d
GROUP BY `state`, `hour`;
INSERT INTO `data`.`_delta_orders_by_hour` (`_group`, `state`, `hour`, `orders`, `amount`, `dear`, `_rows`)
SELECT *
FROM (SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`state`), QUOTE(`hour`)), 256)), `state`, `hour`, SUM(`orders`),
    SUM(`amount`), SUM(`dear`), SUM(`_rows`)
    FROM (SELECT CAST(NULLIF(`t`.`state`, '') AS CHAR(8)) AS `state`, CAST(DATE_FORMAT(`t`.`placed_at`,
        '%%Y-%%m-%%d %%H:00:00') AS DATETIME) AS `hour`, -1 AS `orders`, -COALESCE(`t`.`amount`,
        0) AS `amount`, -COALESCE(`t`.`amount` > 100, 0) AS `dear`, -1 AS `_rows`
      FROM `data`.`_stage_orders` AS s
      STRAIGHT_JOIN `data`.`orders` AS t ON t.`shop` = s.`shop` AND t.`id` = s.`id`
      JOIN `data`.`_cursor_orders_by_hour` AS b ON ((b.`shop` > s.`shop`) OR (b.`shop` = s.`shop`
          AND b.`id` > s.`id`) OR (b.`shop` = s.`shop` AND b.`id` = s.`id`))
      WHERE t.`_commit` <> %(commit)s AND (s.`changed_at` > t.`changed_at` OR (t.`_partition` = %(partition)s
          AND t.`_offset` = s.`_offset` AND t.`_commit` > %(since_commit)s
          AND t.`_pipeline_version` < %(pipeline_version)s))) AS d
    GROUP BY `state`, `hour`) AS n (`_group`, `state`, `hour`, `orders`, `amount`, `dear`, `_rows`)
ON DUPLICATE KEY UPDATE `data`.`_delta_orders_by_hour`.`orders` = `data`.`_delta_orders_by_hour`.`orders` + n.`orders`,
    `data`.`_delta_orders_by_hour`.`amount` = `data`.`_delta_orders_by_hour`.`amount` + n.`amount`,
    `data`.`_delta_orders_by_hour`.`dear` = `data`.`_delta_orders_by_hour`.`dear` + n.`dear`,
    `data`.`_delta_orders_by_hour`.`_rows` = `data`.`_delta_orders_by_hour`.`_rows` + n.`_rows`;
INSERT INTO `data`.`orders_by_hour`
SELECT *
FROM (SELECT *
    FROM `data`.`_delta_orders_by_hour`) AS n
ORDER BY `_group`
ON DUPLICATE KEY UPDATE `data`.`orders_by_hour`.`orders` = `data`.`orders_by_hour`.`orders` + n.`orders`,
    `data`.`orders_by_hour`.`amount` = `data`.`orders_by_hour`.`amount` + n.`amount`,
    `data`.`orders_by_hour`.`dear` = `data`.`orders_by_hour`.`dear` + n.`dear`,
    `data`.`orders_by_hour`.`_rows` = `data`.`orders_by_hour`.`_rows` + n.`_rows`;
DELETE r
FROM `data`.`_delta_orders_by_hour` AS d
STRAIGHT_JOIN `data`.`orders_by_hour` AS r ON r.`_group` = d.`_group`
WHERE r.`_rows` = 0;

-- remove_from_rollup orders_by_hour complete=False
INSERT INTO `data`.`_delta_orders_by_hour` (`_group`, `state`, `hour`, `orders`, `amount`, `dear`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`state`), QUOTE(`hour`)), 256)), `state`, `hour`, SUM(`orders`),
    SUM(`amount`), SUM(`dear`), SUM(`_rows`)
FROM (SELECT CAST(NULLIF(`t`.`state`, '') AS CHAR(8)) AS `state`, CAST(DATE_FORMAT(`t`.`placed_at`,
    '%Y-%m-%d %H:00:00') AS DATETIME) AS `hour`, -1 AS `orders`, -COALESCE(`t`.`amount`, 0) AS `amount`,
    -COALESCE(`t`.`amount` > 100, 0) AS `dear`, -1 AS `_rows`
    FROM `data`.`_locked_orders` AS k
    STRAIGHT_JOIN `data`.`orders` AS t ON t.`shop` = k.`shop` AND t.`id` = k.`id`
    JOIN `data`.`_cursor_orders_by_hour` AS b ON ((b.`shop` > t.`shop`) OR (b.`shop` = t.`shop`
        AND b.`id` > t.`id`) OR (b.`shop` = t.`shop` AND b.`id` = t.`id`))) AS d
GROUP BY `state`, `hour`;
INSERT INTO `data`.`orders_by_hour`
SELECT *
FROM (SELECT *
    FROM `data`.`_delta_orders_by_hour`) AS n
ORDER BY `_group`
ON DUPLICATE KEY UPDATE `data`.`orders_by_hour`.`orders` = `data`.`orders_by_hour`.`orders` + n.`orders`,
    `data`.`orders_by_hour`.`amount` = `data`.`orders_by_hour`.`amount` + n.`amount`,
    `data`.`orders_by_hour`.`dear` = `data`.`orders_by_hour`.`dear` + n.`dear`,
    `data`.`orders_by_hour`.`_rows` = `data`.`orders_by_hour`.`_rows` + n.`_rows`;
DELETE r
FROM `data`.`_delta_orders_by_hour` AS d
STRAIGHT_JOIN `data`.`orders_by_hour` AS r ON r.`_group` = d.`_group`
WHERE r.`_rows` = 0;
DELETE FROM `data`.`_delta_orders_by_hour`;

-- probe_rollup orders_by_hour
DELETE FROM `data`.`_delta_orders_by_hour`;
INSERT INTO `data`.`_delta_orders_by_hour` (`_group`, `state`, `hour`, `orders`, `amount`, `dear`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`state`), QUOTE(`hour`)), 256)), `state`, `hour`, SUM(`orders`),
    SUM(`amount`), SUM(`dear`), SUM(`_rows`)
FROM (SELECT CAST(NULLIF(`s`.`state`, '') AS CHAR(8)) AS `state`, CAST(DATE_FORMAT(`s`.`placed_at`,
    '%%Y-%%m-%%d %%H:00:00') AS DATETIME) AS `hour`, 1 AS `orders`, COALESCE(`s`.`amount`, 0) AS `amount`,
    COALESCE(`s`.`amount` > 100, 0) AS `dear`, 1 AS `_rows`
    FROM `data`.`_stage_orders` AS s
    LEFT JOIN `data`.`orders` AS t ON t.`shop` = s.`shop` AND t.`id` = s.`id`
    WHERE s.`_offset` BETWEEN %(first)s AND %(last)s AND (t.`_commit` IS NULL
        OR (s.`changed_at` > t.`changed_at` OR (t.`_partition` = %(partition)s AND t.`_offset` = s.`_offset`
        AND t.`_commit` > %(since_commit)s AND t.`_pipeline_version` < %(pipeline_version)s)))) AS d
GROUP BY `state`, `hour`;

-- next_cursor orders_by_hour first=True
SELECT `shop`, `id`
FROM (SELECT t.`shop`, t.`id`
    FROM `data`.`orders` AS t
    ORDER BY t.`shop`, t.`id`
    LIMIT %(rows)s) AS c
ORDER BY `shop` DESC, `id` DESC
LIMIT 1;

-- backfill_rollup orders_by_hour first=True
INSERT INTO `data`.`_delta_orders_by_hour` (`_group`, `state`, `hour`, `orders`, `amount`, `dear`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`state`), QUOTE(`hour`)), 256)), `state`, `hour`, SUM(`orders`),
    SUM(`amount`), SUM(`dear`), SUM(`_rows`)
FROM (SELECT CAST(NULLIF(`t`.`state`, '') AS CHAR(8)) AS `state`, CAST(DATE_FORMAT(`t`.`placed_at`,
    '%%Y-%%m-%%d %%H:00:00') AS DATETIME) AS `hour`, 1 AS `orders`, COALESCE(`t`.`amount`, 0) AS `amount`,
    COALESCE(`t`.`amount` > 100, 0) AS `dear`, 1 AS `_rows`
    FROM `data`.`orders` AS t
    WHERE ((t.`shop` < %(k0)s) OR (t.`shop` = %(k0)s AND t.`id` < %(k1)s) OR (t.`shop` = %(k0)s
        AND t.`id` = %(k1)s)) AND t.`shop` <= %(k0)s) AS d
GROUP BY `state`, `hour`;
INSERT INTO `data`.`orders_by_hour`
SELECT *
FROM (SELECT *
    FROM `data`.`_delta_orders_by_hour`) AS n
ORDER BY `_group`
ON DUPLICATE KEY UPDATE `data`.`orders_by_hour`.`orders` = `data`.`orders_by_hour`.`orders` + n.`orders`,
    `data`.`orders_by_hour`.`amount` = `data`.`orders_by_hour`.`amount` + n.`amount`,
    `data`.`orders_by_hour`.`dear` = `data`.`orders_by_hour`.`dear` + n.`dear`,
    `data`.`orders_by_hour`.`_rows` = `data`.`orders_by_hour`.`_rows` + n.`_rows`;
DELETE FROM `data`.`_cursor_orders_by_hour`;
INSERT INTO `data`.`_cursor_orders_by_hour` (`shop`, `id`)
VALUES (%(k0)s, %(k1)s);

-- next_cursor orders_by_hour first=False
SELECT `shop`, `id`
FROM (SELECT t.`shop`, t.`id`
    FROM `data`.`orders` AS t
    WHERE t.`shop` >= (SELECT `shop`
      FROM `data`.`_cursor_orders_by_hour`) AND EXISTS (SELECT 1
      FROM `data`.`_cursor_orders_by_hour` AS b
      WHERE ((t.`shop` > b.`shop`) OR (t.`shop` = b.`shop` AND t.`id` > b.`id`)))
    ORDER BY t.`shop`, t.`id`
    LIMIT %(rows)s) AS c
ORDER BY `shop` DESC, `id` DESC
LIMIT 1;

-- backfill_rollup orders_by_hour first=False
INSERT INTO `data`.`_delta_orders_by_hour` (`_group`, `state`, `hour`, `orders`, `amount`, `dear`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`state`), QUOTE(`hour`)), 256)), `state`, `hour`, SUM(`orders`),
    SUM(`amount`), SUM(`dear`), SUM(`_rows`)
FROM (SELECT CAST(NULLIF(`t`.`state`, '') AS CHAR(8)) AS `state`, CAST(DATE_FORMAT(`t`.`placed_at`,
    '%%Y-%%m-%%d %%H:00:00') AS DATETIME) AS `hour`, 1 AS `orders`, COALESCE(`t`.`amount`, 0) AS `amount`,
    COALESCE(`t`.`amount` > 100, 0) AS `dear`, 1 AS `_rows`
    FROM `data`.`orders` AS t
    WHERE t.`shop` >= (SELECT `shop`
      FROM `data`.`_cursor_orders_by_hour`) AND EXISTS (SELECT 1
      FROM `data`.`_cursor_orders_by_hour` AS b
      WHERE ((t.`shop` > b.`shop`) OR (t.`shop` = b.`shop` AND t.`id` > b.`id`))) AND ((t.`shop` < %(k0)s)
          OR (t.`shop` = %(k0)s AND t.`id` < %(k1)s) OR (t.`shop` = %(k0)s AND t.`id` = %(k1)s))
          AND t.`shop` <= %(k0)s) AS d
GROUP BY `state`, `hour`;
INSERT INTO `data`.`orders_by_hour`
SELECT *
FROM (SELECT *
    FROM `data`.`_delta_orders_by_hour`) AS n
ORDER BY `_group`
ON DUPLICATE KEY UPDATE `data`.`orders_by_hour`.`orders` = `data`.`orders_by_hour`.`orders` + n.`orders`,
    `data`.`orders_by_hour`.`amount` = `data`.`orders_by_hour`.`amount` + n.`amount`,
    `data`.`orders_by_hour`.`dear` = `data`.`orders_by_hour`.`dear` + n.`dear`,
    `data`.`orders_by_hour`.`_rows` = `data`.`orders_by_hour`.`_rows` + n.`_rows`;
DELETE FROM `data`.`_cursor_orders_by_hour`;
INSERT INTO `data`.`_cursor_orders_by_hour` (`shop`, `id`)
VALUES (%(k0)s, %(k1)s);

-- recompute_rollup orders_by_hour
SELECT `state`, `hour`, SUM(`orders`) AS `orders`, SUM(`amount`) AS `amount`, SUM(`dear`) AS `dear`,
    SUM(`_rows`) AS `_rows`
FROM (SELECT CAST(NULLIF(`t`.`state`, '') AS CHAR(8)) AS `state`, CAST(DATE_FORMAT(`t`.`placed_at`,
    '%Y-%m-%d %H:00:00') AS DATETIME) AS `hour`, 1 AS `orders`, COALESCE(`t`.`amount`, 0) AS `amount`,
    COALESCE(`t`.`amount` > 100, 0) AS `dear`, 1 AS `_rows`
    FROM `data`.`orders` AS t) AS d
GROUP BY `state`, `hour`;

-- compare_rollup orders_by_hour
SELECT COUNT(*)
FROM (SELECT 1
    FROM (SELECT `state`, `hour`, `orders`, `amount`, `dear`, `_rows`, 1 AS side
      FROM `data`.`orders_by_hour`
      UNION ALL
      SELECT `state`, `hour`, `orders`, `amount`, `dear`, `_rows`, -1 AS side
      FROM (SELECT `state`, `hour`, SUM(`orders`) AS `orders`, SUM(`amount`) AS `amount`,
          SUM(`dear`) AS `dear`, SUM(`_rows`) AS `_rows`
        FROM (SELECT CAST(NULLIF(`t`.`state`, '') AS CHAR(8)) AS `state`, CAST(DATE_FORMAT(`t`.`placed_at`,
            '%Y-%m-%d %H:00:00') AS DATETIME) AS `hour`, 1 AS `orders`, COALESCE(`t`.`amount`, 0) AS `amount`,
            COALESCE(`t`.`amount` > 100, 0) AS `dear`, 1 AS `_rows`
          FROM `data`.`orders` AS t) AS d
        GROUP BY `state`, `hour`) AS q) AS sides
    GROUP BY `state`, `hour`, `orders`, `amount`, `dear`, `_rows`
    HAVING SUM(side) <> 0) AS difference;

-- create_rollup clicks_by_page
CREATE TABLE IF NOT EXISTS `data`.`clicks_by_page` (
    `_group` BINARY(32) NOT NULL,
    `page` VARCHAR(20),
    `clicks` BIGINT NOT NULL,
    `_rows` BIGINT NOT NULL,
    PRIMARY KEY (`_group`),
    KEY `by_keys` (`page`)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin COMMENT 'definition d3bc3929b016c329c10da6daada8c170';

-- create_rollup_cursor clicks_by_page
CREATE TABLE IF NOT EXISTS `data`.`_cursor_clicks_by_page` (`code` VARCHAR(12) NOT NULL) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin;

-- create_delta clicks_by_page
DROP TEMPORARY TABLE IF EXISTS `data`.`_delta_clicks_by_page`;
CREATE TEMPORARY TABLE `data`.`_delta_clicks_by_page` (`_group` BINARY(32) NOT NULL, `page` VARCHAR(20),
    `clicks` BIGINT NOT NULL, `_rows` BIGINT NOT NULL,
    PRIMARY KEY (`_group`)) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin;

-- move_rollup clicks_by_page all_new=True complete=True
INSERT INTO `data`.`_delta_clicks_by_page` (`_group`, `page`, `clicks`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`page`)), 256)), `page`, SUM(`clicks`), SUM(`_rows`)
FROM (SELECT CAST(LEFT(`s`.`page`, 20) AS CHAR(20)) AS `page`, 1 AS `clicks`, 1 AS `_rows`
    FROM `data`.`_stage_clicks` AS s) AS d
GROUP BY `page`;
INSERT INTO `data`.`clicks_by_page`
SELECT *
FROM (SELECT *
    FROM `data`.`_delta_clicks_by_page`) AS n
ORDER BY `_group`
ON DUPLICATE KEY UPDATE `data`.`clicks_by_page`.`clicks` = `data`.`clicks_by_page`.`clicks` + n.`clicks`,
    `data`.`clicks_by_page`.`_rows` = `data`.`clicks_by_page`.`_rows` + n.`_rows`;

-- move_rollup clicks_by_page all_new=False complete=True
INSERT INTO `data`.`_delta_clicks_by_page` (`_group`, `page`, `clicks`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`page`)), 256)), `page`, SUM(`clicks`), SUM(`_rows`)
FROM (SELECT CAST(LEFT(`s`.`page`, 20) AS CHAR(20)) AS `page`, 1 AS `clicks`, 1 AS `_rows`
    FROM `data`.`_stage_clicks` AS s
    STRAIGHT_JOIN `data`.`clicks` AS t ON t.`code` = s.`code`
    WHERE t.`_commit` = %(commit)s OR (t.`_partition` = %(partition)s AND t.`_offset` > s.`_offset`
        AND t.`_commit` > %(since_commit)s OR (t.`_partition` = %(partition)s AND t.`_offset` = s.`_offset`
        AND t.`_commit` > %(since_commit)s AND t.`_pipeline_version` < %(pipeline_version)s))) AS d
GROUP BY `page`;
INSERT INTO `data`.`_delta_clicks_by_page` (`_group`, `page`, `clicks`, `_rows`)
SELECT *
FROM (SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`page`)), 256)), `page`, SUM(`clicks`), SUM(`_rows`)
    FROM (SELECT CAST(LEFT(`t`.`page`, 20) AS CHAR(20)) AS `page`, -1 AS `clicks`, -1 AS `_rows`
      FROM `data`.`_stage_clicks` AS s
      STRAIGHT_JOIN `data`.`clicks` AS t ON t.`code` = s.`code`
      WHERE t.`_commit` <> %(commit)s AND (t.`_partition` = %(partition)s AND t.`_offset` > s.`_offset`
          AND t.`_commit` > %(since_commit)s OR (t.`_partition` = %(partition)s AND t.`_offset` = s.`_offset`
          AND t.`_commit` > %(since_commit)s AND t.`_pipeline_version` < %(pipeline_version)s))) AS d
    GROUP BY `page`) AS n (`_group`, `page`, `clicks`, `_rows`)
ON DUPLICATE KEY UPDATE `data`.`_delta_clicks_by_page`.`clicks` = `data`.`_delta_clicks_by_page`.`clicks` + n.`clicks`,
    `data`.`_delta_clicks_by_page`.`_rows` = `data`.`_delta_clicks_by_page`.`_rows` + n.`_rows`;
INSERT INTO `data`.`clicks_by_page`
SELECT *
FROM (SELECT *
    FROM `data`.`_delta_clicks_by_page`) AS n
ORDER BY `_group`
ON DUPLICATE KEY UPDATE `data`.`clicks_by_page`.`clicks` = `data`.`clicks_by_page`.`clicks` + n.`clicks`,
    `data`.`clicks_by_page`.`_rows` = `data`.`clicks_by_page`.`_rows` + n.`_rows`;
DELETE r
FROM `data`.`_delta_clicks_by_page` AS d
STRAIGHT_JOIN `data`.`clicks_by_page` AS r ON r.`_group` = d.`_group`
WHERE r.`_rows` = 0;

-- remove_from_rollup clicks_by_page complete=True
INSERT INTO `data`.`_delta_clicks_by_page` (`_group`, `page`, `clicks`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`page`)), 256)), `page`, SUM(`clicks`), SUM(`_rows`)
FROM (SELECT CAST(LEFT(`t`.`page`, 20) AS CHAR(20)) AS `page`, -1 AS `clicks`, -1 AS `_rows`
    FROM `data`.`_locked_clicks` AS k
    STRAIGHT_JOIN `data`.`clicks` AS t ON t.`code` = k.`code`) AS d
GROUP BY `page`;
INSERT INTO `data`.`clicks_by_page`
SELECT *
FROM (SELECT *
    FROM `data`.`_delta_clicks_by_page`) AS n
ORDER BY `_group`
ON DUPLICATE KEY UPDATE `data`.`clicks_by_page`.`clicks` = `data`.`clicks_by_page`.`clicks` + n.`clicks`,
    `data`.`clicks_by_page`.`_rows` = `data`.`clicks_by_page`.`_rows` + n.`_rows`;
DELETE r
FROM `data`.`_delta_clicks_by_page` AS d
STRAIGHT_JOIN `data`.`clicks_by_page` AS r ON r.`_group` = d.`_group`
WHERE r.`_rows` = 0;
DELETE FROM `data`.`_delta_clicks_by_page`;

-- move_rollup clicks_by_page all_new=True complete=False
INSERT INTO `data`.`_delta_clicks_by_page` (`_group`, `page`, `clicks`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`page`)), 256)), `page`, SUM(`clicks`), SUM(`_rows`)
FROM (SELECT CAST(LEFT(`s`.`page`, 20) AS CHAR(20)) AS `page`, 1 AS `clicks`, 1 AS `_rows`
    FROM `data`.`_stage_clicks` AS s
    JOIN `data`.`_cursor_clicks_by_page` AS b ON ((b.`code` > s.`code`) OR (b.`code` = s.`code`))) AS d
GROUP BY `page`;
INSERT INTO `data`.`clicks_by_page`
SELECT *
FROM (SELECT *
    FROM `data`.`_delta_clicks_by_page`) AS n
ORDER BY `_group`
ON DUPLICATE KEY UPDATE `data`.`clicks_by_page`.`clicks` = `data`.`clicks_by_page`.`clicks` + n.`clicks`,
    `data`.`clicks_by_page`.`_rows` = `data`.`clicks_by_page`.`_rows` + n.`_rows`;

-- move_rollup clicks_by_page all_new=False complete=False
INSERT INTO `data`.`_delta_clicks_by_page` (`_group`, `page`, `clicks`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`page`)), 256)), `page`, SUM(`clicks`), SUM(`_rows`)
FROM (SELECT CAST(LEFT(`s`.`page`, 20) AS CHAR(20)) AS `page`, 1 AS `clicks`, 1 AS `_rows`
    FROM `data`.`_stage_clicks` AS s
    STRAIGHT_JOIN `data`.`clicks` AS t ON t.`code` = s.`code`
    JOIN `data`.`_cursor_clicks_by_page` AS b ON ((b.`code` > s.`code`) OR (b.`code` = s.`code`))
    WHERE t.`_commit` = %(commit)s OR (t.`_partition` = %(partition)s AND t.`_offset` > s.`_offset`
        AND t.`_commit` > %(since_commit)s OR (t.`_partition` = %(partition)s AND t.`_offset` = s.`_offset`
        AND t.`_commit` > %(since_commit)s AND t.`_pipeline_version` < %(pipeline_version)s))) AS d
GROUP BY `page`;
INSERT INTO `data`.`_delta_clicks_by_page` (`_group`, `page`, `clicks`, `_rows`)
SELECT *
FROM (SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`page`)), 256)), `page`, SUM(`clicks`), SUM(`_rows`)
    FROM (SELECT CAST(LEFT(`t`.`page`, 20) AS CHAR(20)) AS `page`, -1 AS `clicks`, -1 AS `_rows`
      FROM `data`.`_stage_clicks` AS s
      STRAIGHT_JOIN `data`.`clicks` AS t ON t.`code` = s.`code`
      JOIN `data`.`_cursor_clicks_by_page` AS b ON ((b.`code` > s.`code`) OR (b.`code` = s.`code`))
      WHERE t.`_commit` <> %(commit)s AND (t.`_partition` = %(partition)s AND t.`_offset` > s.`_offset`
          AND t.`_commit` > %(since_commit)s OR (t.`_partition` = %(partition)s AND t.`_offset` = s.`_offset`
          AND t.`_commit` > %(since_commit)s AND t.`_pipeline_version` < %(pipeline_version)s))) AS d
    GROUP BY `page`) AS n (`_group`, `page`, `clicks`, `_rows`)
ON DUPLICATE KEY UPDATE `data`.`_delta_clicks_by_page`.`clicks` = `data`.`_delta_clicks_by_page`.`clicks` + n.`clicks`,
    `data`.`_delta_clicks_by_page`.`_rows` = `data`.`_delta_clicks_by_page`.`_rows` + n.`_rows`;
INSERT INTO `data`.`clicks_by_page`
SELECT *
FROM (SELECT *
    FROM `data`.`_delta_clicks_by_page`) AS n
ORDER BY `_group`
ON DUPLICATE KEY UPDATE `data`.`clicks_by_page`.`clicks` = `data`.`clicks_by_page`.`clicks` + n.`clicks`,
    `data`.`clicks_by_page`.`_rows` = `data`.`clicks_by_page`.`_rows` + n.`_rows`;
DELETE r
FROM `data`.`_delta_clicks_by_page` AS d
STRAIGHT_JOIN `data`.`clicks_by_page` AS r ON r.`_group` = d.`_group`
WHERE r.`_rows` = 0;

-- remove_from_rollup clicks_by_page complete=False
INSERT INTO `data`.`_delta_clicks_by_page` (`_group`, `page`, `clicks`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`page`)), 256)), `page`, SUM(`clicks`), SUM(`_rows`)
FROM (SELECT CAST(LEFT(`t`.`page`, 20) AS CHAR(20)) AS `page`, -1 AS `clicks`, -1 AS `_rows`
    FROM `data`.`_locked_clicks` AS k
    STRAIGHT_JOIN `data`.`clicks` AS t ON t.`code` = k.`code`
    JOIN `data`.`_cursor_clicks_by_page` AS b ON ((b.`code` > t.`code`) OR (b.`code` = t.`code`))) AS d
GROUP BY `page`;
INSERT INTO `data`.`clicks_by_page`
SELECT *
FROM (SELECT *
    FROM `data`.`_delta_clicks_by_page`) AS n
ORDER BY `_group`
ON DUPLICATE KEY UPDATE `data`.`clicks_by_page`.`clicks` = `data`.`clicks_by_page`.`clicks` + n.`clicks`,
    `data`.`clicks_by_page`.`_rows` = `data`.`clicks_by_page`.`_rows` + n.`_rows`;
DELETE r
FROM `data`.`_delta_clicks_by_page` AS d
STRAIGHT_JOIN `data`.`clicks_by_page` AS r ON r.`_group` = d.`_group`
WHERE r.`_rows` = 0;
DELETE FROM `data`.`_delta_clicks_by_page`;

-- probe_rollup clicks_by_page
DELETE FROM `data`.`_delta_clicks_by_page`;
INSERT INTO `data`.`_delta_clicks_by_page` (`_group`, `page`, `clicks`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`page`)), 256)), `page`, SUM(`clicks`), SUM(`_rows`)
FROM (SELECT CAST(LEFT(`s`.`page`, 20) AS CHAR(20)) AS `page`, 1 AS `clicks`, 1 AS `_rows`
    FROM `data`.`_stage_clicks` AS s
    LEFT JOIN `data`.`clicks` AS t ON t.`code` = s.`code`
    WHERE s.`_offset` BETWEEN %(first)s AND %(last)s AND (t.`_commit` IS NULL
        OR (t.`_partition` = %(partition)s AND t.`_offset` > s.`_offset` AND t.`_commit` > %(since_commit)s
        OR (t.`_partition` = %(partition)s AND t.`_offset` = s.`_offset` AND t.`_commit` > %(since_commit)s
        AND t.`_pipeline_version` < %(pipeline_version)s)))) AS d
GROUP BY `page`;

-- next_cursor clicks_by_page first=True
SELECT `code`
FROM (SELECT t.`code`
    FROM `data`.`clicks` AS t
    ORDER BY t.`code`
    LIMIT %(rows)s) AS c
ORDER BY `code` DESC
LIMIT 1;

-- backfill_rollup clicks_by_page first=True
INSERT INTO `data`.`_delta_clicks_by_page` (`_group`, `page`, `clicks`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`page`)), 256)), `page`, SUM(`clicks`), SUM(`_rows`)
FROM (SELECT CAST(LEFT(`t`.`page`, 20) AS CHAR(20)) AS `page`, 1 AS `clicks`, 1 AS `_rows`
    FROM `data`.`clicks` AS t
    WHERE ((t.`code` < %(k0)s) OR (t.`code` = %(k0)s)) AND t.`code` <= %(k0)s) AS d
GROUP BY `page`;
INSERT INTO `data`.`clicks_by_page`
SELECT *
FROM (SELECT *
    FROM `data`.`_delta_clicks_by_page`) AS n
ORDER BY `_group`
ON DUPLICATE KEY UPDATE `data`.`clicks_by_page`.`clicks` = `data`.`clicks_by_page`.`clicks` + n.`clicks`,
    `data`.`clicks_by_page`.`_rows` = `data`.`clicks_by_page`.`_rows` + n.`_rows`;
DELETE FROM `data`.`_cursor_clicks_by_page`;
INSERT INTO `data`.`_cursor_clicks_by_page` (`code`) VALUES (%(k0)s);

-- next_cursor clicks_by_page first=False
SELECT `code`
FROM (SELECT t.`code`
    FROM `data`.`clicks` AS t
    WHERE t.`code` >= (SELECT `code`
      FROM `data`.`_cursor_clicks_by_page`) AND EXISTS (SELECT 1
      FROM `data`.`_cursor_clicks_by_page` AS b
      WHERE ((t.`code` > b.`code`)))
    ORDER BY t.`code`
    LIMIT %(rows)s) AS c
ORDER BY `code` DESC
LIMIT 1;

-- backfill_rollup clicks_by_page first=False
INSERT INTO `data`.`_delta_clicks_by_page` (`_group`, `page`, `clicks`, `_rows`)
SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`page`)), 256)), `page`, SUM(`clicks`), SUM(`_rows`)
FROM (SELECT CAST(LEFT(`t`.`page`, 20) AS CHAR(20)) AS `page`, 1 AS `clicks`, 1 AS `_rows`
    FROM `data`.`clicks` AS t
    WHERE t.`code` >= (SELECT `code`
      FROM `data`.`_cursor_clicks_by_page`) AND EXISTS (SELECT 1
      FROM `data`.`_cursor_clicks_by_page` AS b
      WHERE ((t.`code` > b.`code`))) AND ((t.`code` < %(k0)s) OR (t.`code` = %(k0)s))
          AND t.`code` <= %(k0)s) AS d
GROUP BY `page`;
INSERT INTO `data`.`clicks_by_page`
SELECT *
FROM (SELECT *
    FROM `data`.`_delta_clicks_by_page`) AS n
ORDER BY `_group`
ON DUPLICATE KEY UPDATE `data`.`clicks_by_page`.`clicks` = `data`.`clicks_by_page`.`clicks` + n.`clicks`,
    `data`.`clicks_by_page`.`_rows` = `data`.`clicks_by_page`.`_rows` + n.`_rows`;
DELETE FROM `data`.`_cursor_clicks_by_page`;
INSERT INTO `data`.`_cursor_clicks_by_page` (`code`) VALUES (%(k0)s);

-- recompute_rollup clicks_by_page
SELECT `page`, SUM(`clicks`) AS `clicks`, SUM(`_rows`) AS `_rows`
FROM (SELECT CAST(LEFT(`t`.`page`, 20) AS CHAR(20)) AS `page`, 1 AS `clicks`, 1 AS `_rows`
    FROM `data`.`clicks` AS t) AS d
GROUP BY `page`;

-- compare_rollup clicks_by_page
SELECT COUNT(*)
FROM (SELECT 1
    FROM (SELECT `page`, `clicks`, `_rows`, 1 AS side
      FROM `data`.`clicks_by_page`
      UNION ALL
      SELECT `page`, `clicks`, `_rows`, -1 AS side
      FROM (SELECT `page`, SUM(`clicks`) AS `clicks`, SUM(`_rows`) AS `_rows`
        FROM (SELECT CAST(LEFT(`t`.`page`, 20) AS CHAR(20)) AS `page`, 1 AS `clicks`, 1 AS `_rows`
          FROM `data`.`clicks` AS t) AS d
        GROUP BY `page`) AS q) AS sides
    GROUP BY `page`, `clicks`, `_rows`
    HAVING SUM(side) <> 0) AS difference;

-- create_scores comes_back
CREATE TABLE IF NOT EXISTS `data`.`order_scores` (
    `shop` INT NOT NULL,
    `id` BIGINT NOT NULL,
    `model_version` INT UNSIGNED NOT NULL,
    `score` DOUBLE,
    `scored_commit` BIGINT UNSIGNED NOT NULL COMMENT 'commit that wrote the row as it was scored',
    `as_of_commit` BIGINT UNSIGNED NOT NULL COMMENT 'newest commit when its scoring began',
    PRIMARY KEY (`model_version`, `shop`, `id`)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin;

-- create_scores comes_back pending
CREATE TABLE IF NOT EXISTS `data`.`order_scores_pending` (
    `shop` INT NOT NULL,
    `id` BIGINT NOT NULL,
    `model_version` INT UNSIGNED NOT NULL,
    `score` DOUBLE,
    `scored_commit` BIGINT UNSIGNED NOT NULL COMMENT 'commit that wrote the row as it was scored',
    `as_of_commit` BIGINT UNSIGNED NOT NULL COMMENT 'newest commit when its scoring began',
    PRIMARY KEY (`model_version`, `shop`, `id`)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin;

-- create_scored_view comes_back
CREATE OR REPLACE VIEW `data`.`orders_scored` AS
SELECT t.*, s0.`score` AS `score`, s0.`model_version` AS `model_version`, s0.`as_of_commit` AS `as_of_commit`
FROM `data`.`orders` AS t
JOIN `control`.`models` AS m0 ON m0.`pipeline` = 'shop' AND m0.`model` = 'comes_back'
LEFT JOIN `data`.`order_scores` AS s0 ON s0.`model_version` = m0.`published_version` AND s0.`shop` = t.`shop`
    AND s0.`id` = t.`id`;

-- feature_rows comes_back
SELECT f.`shop` AS `shop`, f.`id` AS `id`, TIMESTAMPDIFF(MICROSECOND, '1970-01-01',
    f.`changed_at`) AS `_known_us`, f.`amount`, f.`back` AS `_label`, CAST(f.`_commit` AS SIGNED) AS `_commit`
FROM (
SELECT o.shop, o.id, o.changed_at, o.amount, o.state = 'back' AS back, o._commit
FROM orders AS o -- 5 %
) AS f;

-- committed_features comes_back
SELECT /*+ NO_BNL() */ f.`shop` AS `shop`, f.`id` AS `id`, f.`amount`,
    CAST(f.`_commit` AS SIGNED) AS `_commit`
FROM `data`.`_stage_orders` AS s
STRAIGHT_JOIN (
SELECT o.shop, o.id, o.changed_at, o.amount, o.state = 'back' AS back, o._commit
FROM orders AS o -- 5 %
) AS f ON f.`shop` = s.`shop` AND f.`id` = s.`id` WHERE f.`_commit` = 7;

-- create_score_stage comes_back
DROP TEMPORARY TABLE IF EXISTS `data`.`_stage_order_scores`;
CREATE TEMPORARY TABLE `data`.`_stage_order_scores` (`shop` INT NOT NULL, `id` BIGINT NOT NULL,
    `model_version` INT UNSIGNED NOT NULL, `score` DOUBLE, `scored_commit` BIGINT UNSIGNED NOT NULL,
    `as_of_commit` BIGINT UNSIGNED NOT NULL, PRIMARY KEY (`model_version`, `shop`,
    `id`)) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin;

-- upsert_scores comes_back
INSERT INTO `data`.`order_scores` (`shop`, `id`, `model_version`, `score`, `scored_commit`, `as_of_commit`)
SELECT *
FROM (SELECT `shop`, `id`, `model_version`, `score`, `scored_commit`, `as_of_commit`
    FROM `data`.`_stage_order_scores`) AS n (`shop`, `id`, `model_version`, `score`, `scored_commit`,
        `as_of_commit`)
ORDER BY `model_version`, `shop`, `id`
ON DUPLICATE KEY UPDATE `score` = n.`score`, `scored_commit` = n.`scored_commit`,
    `as_of_commit` = n.`as_of_commit`;

-- unscored comes_back
SELECT r.*
FROM (SELECT f.`shop` AS `shop`, f.`id` AS `id`, TIMESTAMPDIFF(MICROSECOND, '1970-01-01',
    f.`changed_at`) AS `_known_us`, f.`amount`, f.`back` AS `_label`, CAST(f.`_commit` AS SIGNED) AS `_commit`
    FROM (
SELECT o.shop, o.id, o.changed_at, o.amount, o.state = 'back' AS back, o._commit
FROM orders AS o -- 5 %
) AS f) AS r
WHERE NOT EXISTS (SELECT 1
FROM `data`.`order_scores` AS s
WHERE s.`model_version` = 3 AND s.`shop` = r.`shop` AND s.`id` = r.`id` AND s.`scored_commit` = r.`_commit`)
    AND NOT EXISTS (SELECT 1
FROM `data`.`order_scores_pending` AS s
WHERE s.`model_version` = 3 AND s.`shop` = r.`shop` AND s.`id` = r.`id` AND s.`scored_commit` = r.`_commit`);

-- next_cut comes_back first
SELECT `id` FROM `data`.`orders` ORDER BY `id` LIMIT 1 OFFSET 500;

-- next_cut comes_back next
SELECT `id`
FROM `data`.`orders`
WHERE `id` >= 77
ORDER BY `id`
LIMIT 1 OFFSET 500;

-- key_ranges comes_back
`id` < 33;
`id` >= 33 AND `id` < 77;
`id` >= 77;

-- key_digests comes_back
CRC32(CONCAT_WS(',', `shop`, `id`)) % 3 = 0;
CRC32(CONCAT_WS(',', `shop`, `id`)) % 3 = 1;
CRC32(CONCAT_WS(',', `shop`, `id`)) % 3 = 2;

-- publish_scores comes_back
INSERT INTO `data`.`order_scores` (`shop`, `id`, `model_version`, `score`, `scored_commit`, `as_of_commit`)
SELECT *
FROM (SELECT p.`shop`, p.`id`, p.`model_version`, p.`score`, p.`scored_commit`, p.`as_of_commit`
    FROM `data`.`order_scores_pending` AS p
    WHERE p.`model_version` = %(version)s) AS n (`shop`, `id`, `model_version`, `score`, `scored_commit`,
        `as_of_commit`)
ORDER BY p.`shop`, p.`id`
ON DUPLICATE KEY UPDATE `score` = n.`score`, `scored_commit` = n.`scored_commit`,
    `as_of_commit` = n.`as_of_commit`;

-- publish_part comes_back
INSERT INTO `data`.`order_scores` (`shop`, `id`, `model_version`, `score`, `scored_commit`, `as_of_commit`)
SELECT *
FROM (SELECT p.`shop`, p.`id`, p.`model_version`, p.`score`, p.`scored_commit`, p.`as_of_commit`
    FROM (SELECT *
      FROM `data`.`order_scores_pending`
      WHERE `model_version` = %(version)s
      ORDER BY `model_version`, `shop`, `id`
      LIMIT %(rows)s) AS p
    WHERE p.`model_version` = %(version)s) AS n (`shop`, `id`, `model_version`, `score`, `scored_commit`,
        `as_of_commit`)
ORDER BY p.`shop`, p.`id`
ON DUPLICATE KEY UPDATE `score` = n.`score`, `scored_commit` = n.`scored_commit`,
    `as_of_commit` = n.`as_of_commit`;

-- clear_pending comes_back
DELETE FROM `data`.`order_scores_pending` WHERE `model_version` <= %(version)s;

-- count_pending comes_back
SELECT COUNT(*)
FROM `data`.`order_scores_pending`
WHERE `model_version` = %(version)s;

-- count_scores comes_back
SELECT COUNT(`score`)
FROM `data`.`order_scores`
WHERE `model_version` = %(version)s;

-- unscored_rows comes_back
SELECT `shop`, `id`, COUNT(*) OVER ()
FROM `data`.`order_scores`
WHERE `model_version` = %(version)s AND `score` IS NULL
LIMIT 1;

-- publish_scores comes_back live
INSERT INTO `data`.`order_scores` (`shop`, `id`, `model_version`, `score`, `scored_commit`, `as_of_commit`)
SELECT *
FROM (SELECT p.`shop`, p.`id`, p.`model_version`, p.`score`, p.`scored_commit`, p.`as_of_commit`
    FROM `data`.`order_scores_pending` AS p
    WHERE p.`model_version` = %(version)s AND NOT EXISTS (SELECT 1
      FROM `data`.`order_scores` AS s
      JOIN `data`.`orders` AS t ON t.`shop` = s.`shop` AND t.`id` = s.`id` AND t.`_commit` = s.`scored_commit`
      WHERE s.`model_version` = p.`model_version` AND s.`shop` = p.`shop` AND s.`id` = p.`id`
          AND s.`scored_commit` <> p.`scored_commit`)) AS n (`shop`, `id`, `model_version`, `score`,
          `scored_commit`, `as_of_commit`)
ORDER BY p.`shop`, p.`id`
ON DUPLICATE KEY UPDATE `score` = n.`score`, `scored_commit` = n.`scored_commit`,
    `as_of_commit` = n.`as_of_commit`;

-- create_snapshot comes_back
DROP TEMPORARY TABLE IF EXISTS `data`.`_features_comes_back`;
CREATE TEMPORARY TABLE `data`.`_features_comes_back` (PRIMARY KEY (`shop`, `id`)) AS
SELECT f.*
FROM (
SELECT o.shop, o.id, o.changed_at, o.amount, o.state = 'back' AS back, o._commit
FROM orders AS o -- 5 %
) AS f WHERE FALSE;

-- extend_snapshot comes_back
INSERT INTO `data`.`_features_comes_back` SELECT k.* FROM (SELECT f.* FROM (
SELECT o.shop, o.id, o.changed_at, o.amount, o.state = 'back' AS back, o._commit
FROM orders AS o -- 5 %
) AS f
WHERE f.`changed_at` <= '2026-01-02 03:04:05.000000') AS k
ON DUPLICATE KEY UPDATE `shop` = `data`.`_features_comes_back`.`shop`;

-- compare_snapshot comes_back
SELECT COALESCE(SUM(n.`shop` IS NOT NULL AND NOT (n.`amount` <=> s.`amount`)), 0),
    COALESCE(SUM(NOT n.`shop` IS NOT NULL), 0)
FROM `data`.`_features_comes_back` AS s
LEFT JOIN (
SELECT o.shop, o.id, o.changed_at, o.amount, o.state = 'back' AS back, o._commit
FROM orders AS o -- 5 %
) AS n ON n.`shop` = s.`shop` AND n.`id` = s.`id`;

-- count_missing comes_back
SELECT COUNT(*) FROM (SELECT f.* FROM (
SELECT o.shop, o.id, o.changed_at, o.amount, o.state = 'back' AS back, o._commit
FROM orders AS o -- 5 %
) AS f
WHERE f.`changed_at` <= '2026-01-02 03:04:05.000000') AS k
WHERE NOT EXISTS (SELECT 1
FROM `data`.`_features_comes_back` AS s
WHERE s.`shop` = k.`shop` AND s.`id` = k.`id`);

-- with_rollups_by_key comes_back
SELECT o.shop, o.id, o.changed_at, h.orders AS amount, o.state = 'back' AS back, o._commit
FROM orders AS o
LEFT JOIN orders_by_hour AS h FORCE INDEX (`by_keys`) ON h.state = o.state
WHERE o.id IN (SELECT id
    FROM orders);

-- without_later comes_back
SELECT o.shop, o.id, o.changed_at, h.orders AS amount, o.state = 'back' AS back, o._commit
FROM orders AS o
LEFT JOIN (SELECT `state`, `hour`, SUM(`orders`) AS `orders`, SUM(`amount`) AS `amount`,
    SUM(`dear`) AS `dear`, SUM(`_rows`) AS `_rows`
    FROM (SELECT CAST(NULLIF(`t`.`state`, '') AS CHAR(8)) AS `state`, CAST(DATE_FORMAT(`t`.`placed_at`,
        '%Y-%m-%d %H:00:00') AS DATETIME) AS `hour`, 1 AS `orders`, COALESCE(`t`.`amount`, 0) AS `amount`,
        COALESCE(`t`.`amount` > 100, 0) AS `dear`, 1 AS `_rows`
      FROM `data`.`orders` AS t
      WHERE NOT COALESCE(t.changed_at >= '2026-01-02 03:04:05', FALSE)) AS d
    GROUP BY `state`, `hour`) AS h ON h.state = o.state
WHERE o.id IN (SELECT id
    FROM (SELECT *
      FROM `orders` AS t
      WHERE NOT COALESCE(t.changed_at >= '2026-01-02 03:04:05', FALSE)) AS `orders`);

-- compare_look_ahead comes_back
SELECT /*+ NO_BNL() */ COALESCE(SUM(NOT (a.`amount` <=> b.`amount`)), 0)
FROM (SELECT f.*
    FROM (
SELECT o.shop, o.id, o.changed_at, h.orders AS amount, o.state = 'back' AS back, o._commit
FROM orders AS o
LEFT JOIN orders_by_hour AS h ON h.state = o.state
WHERE o.id IN (SELECT id
    FROM orders)
) AS f
WHERE f.`changed_at` >= '2026-01-02 03:04:05' AND f.`changed_at` < '2026-01-02 03:04:05'
ORDER BY f.`changed_at` DESC
LIMIT 9) AS a
LEFT JOIN (
SELECT o.shop, o.id, o.changed_at, h.orders AS amount, o.state = 'back' AS back, o._commit
FROM orders AS o
LEFT JOIN orders_by_hour AS h ON h.state = o.state
WHERE o.id IN (SELECT id
    FROM orders)
) AS b ON a.`shop` = b.`shop` AND a.`id` = b.`id`;

-- outdated_rows orders after=False
SELECT `shop`, `id`, `_partition`, `_offset`
FROM `data`.`orders`
WHERE `_pipeline_version` < %(pipeline_version)s AND `_commit` > %(since_commit)s AND ((`_partition` = %(p0)s
    AND `_offset` >= %(a0)s AND `_offset` < %(b0)s) OR (`_partition` = %(p1)s AND `_offset` >= %(a1)s
    AND `_offset` < %(b1)s))
ORDER BY `shop`, `id`
LIMIT %(rows)s;

-- outdated_rows orders after=True
SELECT `shop`, `id`, `_partition`, `_offset`
FROM `data`.`orders`
WHERE `shop` >= %(k0)s AND ((`shop` > %(k0)s) OR (`shop` = %(k0)s AND `id` > %(k1)s))
    AND `_pipeline_version` < %(pipeline_version)s AND `_commit` > %(since_commit)s
    AND ((`_partition` = %(p0)s AND `_offset` >= %(a0)s AND `_offset` < %(b0)s) OR (`_partition` = %(p1)s
    AND `_offset` >= %(a1)s AND `_offset` < %(b1)s))
ORDER BY `shop`, `id`
LIMIT %(rows)s;

-- insert_tombstone orders
INSERT INTO `data`.`_tombstones_orders` (`shop`, `id`, `_offset`)
VALUES (%s, %s, %s);

-- lock_rows_to_remove orders outdated
SELECT k.`shop`, k.`id`, k.`_offset`
FROM `data`.`_tombstones_orders` AS k
STRAIGHT_JOIN `data`.`orders` AS t ON t.`shop` = k.`shop` AND t.`id` = k.`id`
WHERE t.`_partition` = %(partition)s AND t.`_offset` = k.`_offset` AND t.`_commit` > %(since_commit)s
    AND t.`_pipeline_version` < %(pipeline_version)s
FOR UPDATE;

-- count_rewritable orders
SELECT COUNT(*)
FROM `data`.`_stage_orders` AS s
STRAIGHT_JOIN `data`.`orders` AS t ON t.`shop` = s.`shop` AND t.`id` = s.`id`
WHERE t.`_partition` = %(partition)s AND t.`_offset` = s.`_offset` AND t.`_commit` > %(since_commit)s
    AND t.`_pipeline_version` < %(pipeline_version)s;

-- deleted_concurrently orders
SELECT 1
FROM `data`.`_stage_orders` AS s
STRAIGHT_JOIN `data`.`_deleted_orders` AS d ON d.`shop` = s.`shop` AND d.`id` = s.`id`
WHERE d.`_partition` = %(partition)s AND d.`_offset` >= s.`_offset` AND d.`_commit` > %(since_commit)s
LIMIT 1
FOR SHARE;

-- row_bounds orders
SELECT `_partition`, MIN(CASE WHEN `_commit` > %(since_commit)s
    AND `_partition` <> 4294967295 THEN `_offset` END), MAX(CASE WHEN `_commit` > %(since_commit)s
    AND `_partition` <> 4294967295 THEN `_offset` END), MAX(`_commit`)
FROM `data`.`orders`
GROUP BY `_partition`
ORDER BY `_partition`;

-- count_expired orders
SELECT COUNT(*) FROM `data`.`orders` AS t WHERE t.`placed_at` < %(cutoff)s;

-- clear_tombstones orders
DELETE FROM `data`.`_tombstones_orders`;

-- stage_expired orders source=orders first=True
INSERT INTO `data`.`_tombstones_orders` (`shop`, `id`, `_offset`)
SELECT t.`shop`, t.`id`, t.`_offset`
FROM `data`.`orders` AS t
WHERE t.`placed_at` < %(cutoff)s
ORDER BY t.`shop`, t.`id`
LIMIT %(rows)s;

-- stage_expired orders source=orders first=False
INSERT INTO `data`.`_tombstones_orders` (`shop`, `id`, `_offset`)
SELECT t.`shop`, t.`id`, t.`_offset`
FROM `data`.`orders` AS t
WHERE t.`placed_at` < %(cutoff)s AND t.`shop` >= %(k0)s AND ((t.`shop` > %(k0)s) OR (t.`shop` = %(k0)s
    AND t.`id` > %(k1)s))
ORDER BY t.`shop`, t.`id`
LIMIT %(rows)s;

-- stage_expired orders source=_deleted_orders first=True
INSERT INTO `data`.`_tombstones_orders` (`shop`, `id`, `_offset`)
SELECT t.`shop`, t.`id`, t.`_offset`
FROM `data`.`_deleted_orders` AS t
WHERE t.`_commit` <= %(commit)s
ORDER BY t.`shop`, t.`id`
LIMIT %(rows)s;

-- last_tombstone orders
SELECT `shop`, `id`
FROM `data`.`_tombstones_orders`
ORDER BY `shop` DESC, `id` DESC
LIMIT 1;

-- delete_expired_markers orders
DELETE t
FROM `data`.`_tombstones_orders` AS k
STRAIGHT_JOIN `data`.`_deleted_orders` AS t ON t.`shop` = k.`shop` AND t.`id` = k.`id`
WHERE t.`_commit` <= %(commit)s;

-- outdated_rows clicks after=False
SELECT `code`, `_partition`, `_offset`
FROM `data`.`clicks`
WHERE `_pipeline_version` < %(pipeline_version)s AND `_commit` > %(since_commit)s AND ((`_partition` = %(p0)s
    AND `_offset` >= %(a0)s AND `_offset` < %(b0)s) OR (`_partition` = %(p1)s AND `_offset` >= %(a1)s
    AND `_offset` < %(b1)s))
ORDER BY `code`
LIMIT %(rows)s;

-- outdated_rows clicks after=True
SELECT `code`, `_partition`, `_offset`
FROM `data`.`clicks`
WHERE `code` >= %(k0)s AND ((`code` > %(k0)s)) AND `_pipeline_version` < %(pipeline_version)s
    AND `_commit` > %(since_commit)s AND ((`_partition` = %(p0)s AND `_offset` >= %(a0)s
    AND `_offset` < %(b0)s) OR (`_partition` = %(p1)s AND `_offset` >= %(a1)s AND `_offset` < %(b1)s))
ORDER BY `code`
LIMIT %(rows)s;

-- insert_tombstone clicks
INSERT INTO `data`.`_tombstones_clicks` (`code`, `_offset`) VALUES (%s, %s);

-- lock_rows_to_remove clicks outdated
SELECT k.`code`, k.`_offset`
FROM `data`.`_tombstones_clicks` AS k
STRAIGHT_JOIN `data`.`clicks` AS t ON t.`code` = k.`code`
WHERE t.`_partition` = %(partition)s AND t.`_offset` = k.`_offset` AND t.`_commit` > %(since_commit)s
    AND t.`_pipeline_version` < %(pipeline_version)s
FOR UPDATE;

-- count_rewritable clicks
SELECT COUNT(*)
FROM `data`.`_stage_clicks` AS s
STRAIGHT_JOIN `data`.`clicks` AS t ON t.`code` = s.`code`
WHERE t.`_partition` = %(partition)s AND t.`_offset` = s.`_offset` AND t.`_commit` > %(since_commit)s
    AND t.`_pipeline_version` < %(pipeline_version)s;

-- deleted_concurrently clicks
SELECT 1
FROM `data`.`_stage_clicks` AS s
STRAIGHT_JOIN `data`.`_deleted_clicks` AS d ON d.`code` = s.`code`
WHERE d.`_partition` = %(partition)s AND d.`_offset` >= s.`_offset` AND d.`_commit` > %(since_commit)s
LIMIT 1
FOR SHARE;

-- row_bounds clicks
SELECT `_partition`, MIN(CASE WHEN `_commit` > %(since_commit)s
    AND `_partition` <> 4294967295 THEN `_offset` END), MAX(CASE WHEN `_commit` > %(since_commit)s
    AND `_partition` <> 4294967295 THEN `_offset` END), MAX(`_commit`)
FROM `data`.`clicks`
GROUP BY `_partition`
ORDER BY `_partition`;

-- count_expired clicks
SELECT COUNT(*) FROM `data`.`clicks` AS t WHERE t.`at` < %(cutoff)s;

-- clear_tombstones clicks
DELETE FROM `data`.`_tombstones_clicks`;

-- stage_expired clicks source=clicks first=True
INSERT INTO `data`.`_tombstones_clicks` (`code`, `_offset`)
SELECT t.`code`, t.`_offset`
FROM `data`.`clicks` AS t
WHERE t.`at` < %(cutoff)s
ORDER BY t.`code`
LIMIT %(rows)s;

-- stage_expired clicks source=clicks first=False
INSERT INTO `data`.`_tombstones_clicks` (`code`, `_offset`)
SELECT t.`code`, t.`_offset`
FROM `data`.`clicks` AS t
WHERE t.`at` < %(cutoff)s AND t.`code` >= %(k0)s AND ((t.`code` > %(k0)s))
ORDER BY t.`code`
LIMIT %(rows)s;

-- stage_expired clicks source=_deleted_clicks first=True
INSERT INTO `data`.`_tombstones_clicks` (`code`, `_offset`)
SELECT t.`code`, t.`_offset`
FROM `data`.`_deleted_clicks` AS t
WHERE t.`_commit` <= %(commit)s
ORDER BY t.`code`
LIMIT %(rows)s;

-- last_tombstone clicks
SELECT `code` FROM `data`.`_tombstones_clicks` ORDER BY `code` DESC LIMIT 1;

-- delete_expired_markers clicks
DELETE t
FROM `data`.`_tombstones_clicks` AS k
STRAIGHT_JOIN `data`.`_deleted_clicks` AS t ON t.`code` = k.`code`
WHERE t.`_commit` <= %(commit)s;

-- differing_groups orders_by_hour
SELECT SUM(`_side`) AS `_sides`, `state`, `hour`, `orders`, `amount`, `dear`, `_rows`
FROM (SELECT `state`, `hour`, `orders`, `amount`, `dear`, `_rows`, 1 AS `_side`
    FROM `data`.`orders_by_hour`
    UNION ALL
    SELECT `state`, `hour`, `orders`, `amount`, `dear`, `_rows`, -1 AS `_side`
    FROM (SELECT `state`, `hour`, SUM(`orders`) AS `orders`, SUM(`amount`) AS `amount`, SUM(`dear`) AS `dear`,
        SUM(`_rows`) AS `_rows`
      FROM (SELECT CAST(NULLIF(`t`.`state`, '') AS CHAR(8)) AS `state`, CAST(DATE_FORMAT(`t`.`placed_at`,
          '%Y-%m-%d %H:00:00') AS DATETIME) AS `hour`, 1 AS `orders`, COALESCE(`t`.`amount`, 0) AS `amount`,
          COALESCE(`t`.`amount` > 100, 0) AS `dear`, 1 AS `_rows`
        FROM `data`.`orders` AS t) AS d
      GROUP BY `state`, `hour`) AS q) AS sides
GROUP BY `state`, `hour`, `orders`, `amount`, `dear`, `_rows`
HAVING SUM(`_side`) <> 0
ORDER BY `state`, `hour`
LIMIT 1000;

-- differing_groups clicks_by_page
SELECT SUM(`_side`) AS `_sides`, `page`, `clicks`, `_rows`
FROM (SELECT `page`, `clicks`, `_rows`, 1 AS `_side`
    FROM `data`.`clicks_by_page`
    UNION ALL
    SELECT `page`, `clicks`, `_rows`, -1 AS `_side`
    FROM (SELECT `page`, SUM(`clicks`) AS `clicks`, SUM(`_rows`) AS `_rows`
      FROM (SELECT CAST(LEFT(`t`.`page`, 20) AS CHAR(20)) AS `page`, 1 AS `clicks`, 1 AS `_rows`
        FROM `data`.`clicks` AS t) AS d
      GROUP BY `page`) AS q) AS sides
GROUP BY `page`, `clicks`, `_rows`
HAVING SUM(`_side`) <> 0
ORDER BY `page`
LIMIT 1000;

-- scored_versions comes_back
SELECT DISTINCT `model_version`
FROM `data`.`order_scores`
ORDER BY `model_version`;

-- count_version comes_back
SELECT COUNT(*) FROM `data`.`order_scores` WHERE `model_version` = %(version)s;

-- remove_scores comes_back
DELETE
FROM `data`.`order_scores`
WHERE `model_version` = %(version)s
ORDER BY `model_version`, `shop`, `id`
LIMIT %(rows)s;
