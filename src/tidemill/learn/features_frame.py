"""The feature query as a Spark DataFrame, read from the database in parallel."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession

from tidemill.config import Account, Settings
from tidemill.learn.versions import model_of
from tidemill.spec.features import feature_names
from tidemill.spec.model import Model, Pipeline
from tidemill.store.connect import session
from tidemill.store.dialects import dialect

LABEL, KNOWN_US, COMMIT = "_label", "_known_us", "_commit"
"""Beside key and features: the label, the row's time in µs since 1970, the commit that wrote the row."""
_MOST_CONNECTIONS = 16


def jdbc_options(settings: Settings) -> dict[str, str]:
    """How Spark reaches the database, as the account that only reads.

    ``password`` is one of the names that Spark blanks out wherever it shows options.
    """
    variables = dialect(settings.db_dialect).jdbc_session
    return {
        # With jdbc:mariadb Spark quotes columns as string literals, and every value is its column's name.
        "url": f"jdbc:mysql://{settings.db_host}:{settings.db_port}/{settings.db_data}?permitMysqlScheme",
        "driver": "org.mariadb.jdbc.Driver",
        "user": settings.user(Account.READ),
        "password": settings.password(Account.READ).get_secret_value(),
        "sslMode": "verify-full" if settings.db_tls else "disable",
        "fetchsize": "10000",
    } | ({"sessionVariables": variables} if variables else {})


def read_features(
    spark: SparkSession, settings: Settings, pipeline: Pipeline, model_name: str, *, unscored_by: int | None = None
) -> DataFrame:
    """The rows of the feature query: ``<key>, _known_us, <features>, _label, _commit``, and no order.

    Each row is as it is at some moment of the read; which one, its ``_commit`` says.

    Args:
        spark: session.
        settings: where the database is.
        pipeline: whose model.
        model_name: which.
        unscored_by: only rows that this version has not scored as they are now.
    """
    model = model_of(pipeline, model_name)
    sql = pipeline.sql(model.features)
    table = pipeline.tables[model.table]
    d = dialect(settings.db_dialect)
    rows = d.feature_rows(sql, model, table, feature_names(model, sql))
    if unscored_by is not None:
        rows = d.unscored(settings.db_data, rows, model, unscored_by)
    parts = min(spark.sparkContext.defaultParallelism, _MOST_CONNECTIONS)
    options = jdbc_options(settings)
    return spark.read.jdbc(
        options.pop("url"),
        f"({rows}) AS features",
        predicates=d.key_slices(model.key[0], _bounds(settings, pipeline, model), parts),
        properties=options,
    )


def _bounds(settings: Settings, pipeline: Pipeline, model: Model) -> tuple[int, int] | None:
    """Smallest and largest value of the first key column if it is a whole number, else None."""
    d = dialect(settings.db_dialect)
    if not d.is_whole_number(pipeline.tables[model.table].columns[model.key[0]]):
        return None
    with session(settings, Account.READ) as connection, connection.cursor() as cursor:
        cursor.execute(d.key_range(settings.db_data, model.table, model.key[0]))
        low, high = cursor.fetchone()
    return (0, 0) if low is None else (int(low), int(high))
