"""The feature query as a Spark DataFrame, read from the database in parallel."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tidemill.config import Account, Settings
from tidemill.ml.registry.versions import declared_model
from tidemill.spec.schema import Model, Pipeline
from tidemill.store.connection import session
from tidemill.store.sql import dialect

LABEL, KNOWN_US = "_label", "_known_us"
"""Beside key, features and ``_commit``: the label, and the row's time in µs since 1970."""
_DECLARED = "__CHAR_VARCHAR_TYPE_STRING"
"""Under this key Spark keeps the declared type of a column whose type it shows as STRING."""


def jdbc_options(settings: Settings) -> dict[str, str]:
    """How Spark reaches the database, as the account that only reads.

    ``password`` is one of the names that Spark blanks out wherever it shows options.
    """
    variables = dialect(settings.db_dialect).jdbc_session
    return {
        # With jdbc:mariadb Spark quotes columns as string literals, and every value is its column's name.
        "url": f"jdbc:mysql://{settings.db_host}:{settings.db_port}/{settings.db_data}"
        # A TINYINT(1) is a number here, as it is for every other client.
        "?permitMysqlScheme&tinyInt1isBit=false",
        "driver": "org.mariadb.jdbc.Driver",
        "user": settings.user(Account.READ),
        "password": settings.password(Account.READ).get_secret_value(),
        "sslMode": "verify-full" if settings.db_tls else "disable",
        "fetchsize": "10000",
    } | ({"sessionVariables": variables} if variables else {})


def read_features(
    spark: SparkSession,
    settings: Settings,
    pipeline: Pipeline,
    model_name: str,
    *,
    unscored_by: int | None = None,
    since_commit: int | None = None,
) -> DataFrame:
    """The rows of the feature query: ``<key>, _known_us, <features>, _label, _commit``, in no order.

    The read is no snapshot: each row has its content at some moment of the read, and ``_commit`` names the commit that
    wrote it.

    Args:
        spark: session.
        settings: where the database is.
        pipeline: the pipeline of the model.
        model_name: which of its models.
        unscored_by: only rows that this version has not scored in their present content.
        since_commit: only rows that a later commit has written.
    """
    model = declared_model(pipeline, model_name)
    table = pipeline.tables[model.table]
    d = dialect(settings.db_dialect)
    by_key = d.with_rollups_by_key(model.query, pipeline.rollups)
    rows = d.feature_rows(by_key, model, table)
    if unscored_by is not None:
        rows = d.unscored(settings.db_data, rows, model, unscored_by)
    if since_commit is not None:
        rows = f"SELECT r.* FROM ({rows}) AS r WHERE r.`_commit` > {int(since_commit)}"
    options = jdbc_options(settings)
    frame = spark.read.jdbc(
        options.pop("url"),
        f"({rows}) AS features",
        predicates=_slices(settings, pipeline, model),
        properties=options,
    )
    return _unpadded(frame)


def _unpadded(frame: DataFrame) -> DataFrame:
    """Remove the blanks that Spark adds to a CHAR, and that no other client of the database sees."""
    return frame.select(
        *(
            F.rtrim(F.col(f"`{each.name}`")).alias(each.name)
            if str(each.metadata.get(_DECLARED, "")).startswith("char(")
            else F.col(f"`{each.name}`")
            for each in frame.schema.fields
        )
    )


def _slices(settings: Settings, pipeline: Pipeline, model: Model) -> list[str]:
    """Conditions that divide the read into parts of about the same number of rows, one for each connection.

    A whole-number key is divided into ranges of about the same number of rows, which the database reads by the key.
    Where one value of it has most of the rows, and for every other key, a digest of the whole key divides the rows.
    """
    d, parts = dialect(settings.db_dialect), model.read_parallelism
    if parts == 1:
        return ["1 = 1"]
    cuts: list[int] = []
    if d.is_whole_number(pipeline.tables[model.table].columns[model.key[0]]):
        with session(settings, Account.READ) as connection, connection.cursor() as cursor:
            cursor.execute(d.count_rows(settings.db_data, model.table))
            step = int(cursor.fetchone()[0]) // parts
            if step == 0:
                return ["1 = 1"]
            for _ in range(parts - 1):
                after = cuts[-1] if cuts else None
                if cursor.execute(d.next_cut(settings.db_data, model.table, model.key[0], step, after)):
                    cuts.append(int(cursor.fetchone()[0]))
    whole = len(set(cuts)) == parts - 1
    return d.key_ranges(model.key[0], cuts) if whole else d.key_digests(model.key, parts)
