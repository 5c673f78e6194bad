"""What may be imported where Spark is not."""

import subprocess
import sys

import pytest

_PLAIN = (
    "refresh",
    "registry.promotion",
    "serving.publish",
    "registry.status",
    "registry.versions",
    "data.leakage",
    "data.split",
)


@pytest.mark.parametrize(("modules", "spark"), [(_PLAIN, False), (("training.train",), True)])
def test_only_spark_jobs_import_spark(modules: tuple[str, ...], spark: bool) -> None:
    """Airflow's tasks and the console use the loop without loading pyspark; training does load it."""
    imports = ", ".join(f"tidemill.ml.{name}" for name in modules)
    code = f"import sys, {imports}; print('pyspark' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(spark)
