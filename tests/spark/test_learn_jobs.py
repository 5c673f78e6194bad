"""The Spark entries of the feedback loop, started as they are in production: by spark-submit."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.models import Shop, open_shop, own_schemas, some_orders
from tidemill.config import PREFIX, Account, Settings
from tidemill.devstack.child_process import environment
from tidemill.devstack.jars import part
from tidemill.ml.refresh import begin_refresh
from tidemill.ml.registry import versions
from tidemill.ml.registry.promotion import promote_or_reject


@pytest.fixture(scope="module")
def shop(mariadb: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop of two months whose pipeline folder is where the jobs look for it."""
    folder = tmp_path_factory.mktemp("pipelines")
    with own_schemas(mariadb, tmp_path_factory.mktemp("models")) as settings:
        shop = open_shop(
            settings.model_copy(update={"pipelines": folder}),
            folder,
            estimator="logistic_regression",
            parameters={"maxIter": 3},
        )
        shop.commit(some_orders(600, 60))
        yield shop
        shop.connection.close()


def submit(job: str, shop: Shop, refresh: int, events: Path) -> subprocess.CompletedProcess[str]:
    """Run a job on a machine that does not live in UTC, and keep what Spark would show in its UI."""
    settings = shop.settings
    conf = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file://{events}",
        "spark.eventLog.compress": "false",
    }
    argv = ["spark-submit", "--master", "local[1]", "--driver-memory", "1g"]
    argv += ["--driver-java-options", "-XX:TieredStopAtLevel=1"]  # a short job is over before the second compiler pays
    argv += ["--jars", ",".join(map(str, part(settings, "spark")))]
    argv += [word for name, value in conf.items() for word in ("--conf", f"{name}={value}")]
    argv += [str(settings.root / "spark_jobs" / f"{job}.py")]
    argv += ["--pipeline", "shop", "--model", shop.model, "--refresh", str(refresh)]
    given = {f"{PREFIX}{name}": value for name, value in (("PIPELINES", str(settings.pipelines)),)}
    env = environment(settings) | given | {"TZ": "America/New_York", "SPARK_LOCAL_IP": "127.0.0.1"}
    return subprocess.run(argv, env=os.environ | env, capture_output=True, text=True, check=False, timeout=600)


def test_the_jobs_train_and_score(shop: Shop, tmp_path: Path) -> None:
    """Each job prints one line of result; times are the data's, whatever the machine's zone; no password shows."""
    refresh = begin_refresh(shop.connection, shop.pipeline, shop.model, "a run")
    done = submit("train", shop, refresh, tmp_path)
    assert (done.returncode, done.stdout) == (0, "trained version 1\n"), done.stderr
    promote_or_reject(shop.connection, shop.pipeline, shop.model, refresh)
    champion = versions.read_champion(shop.connection, "shop", shop.model)
    assert champion is not None
    ((newest,),) = shop.query("SELECT MAX(ordered_at) FROM orders")
    assert champion.holdout_until == newest
    scored = submit("score", shop, refresh, tmp_path)
    assert (scored.returncode, scored.stdout) == (0, "scored 600 rows\n"), scored.stderr
    shown = (
        done.stdout
        + done.stderr
        + scored.stdout
        + scored.stderr
        + "".join(each.read_text() for each in tmp_path.rglob("*") if each.is_file())
    )
    assert "spark.eventLog.dir" in shown
    for account in Account:
        assert shop.settings.password(account).get_secret_value() not in shown


def test_a_job_that_fails_prints_one_line(shop: Shop, tmp_path: Path) -> None:
    """An unknown refresh ends in its own exit code and a sentence, not in a traceback."""
    done = submit("score", shop, 999, tmp_path)
    assert done.returncode == 8
    # spark-submit prints both outputs of the job to its standard output.
    assert done.stdout.startswith("tidemill: [TM-ML-REFRESH-UNKNOWN] shop.returns has no such refresh: 999; ")
    assert done.stdout.count("\n") == 1
