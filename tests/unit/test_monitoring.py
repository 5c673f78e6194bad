"""The example alerts, the dashboard and the guide speak of metrics and labels that exist, and of all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse

from support.paths import ROOT
from support.streams import RUNNING
from tidemill.console.ledgers import Ledger
from tidemill.console.metrics import exposition
from tidemill.console.models import ModelView
from tidemill.console.queries import Incident, Status, stream_status
from tidemill.ml.registry.history import FeatureDrift

DOCS = ROOT / "docs"
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
STATUS = Status(
    [stream_status(replace(RUNNING, behind_seconds=1.0), Ledger(1, 1, 1, 1, AT, AT), 30.0)],
    [
        ModelView(
            "flights", "late", 4, 3, AT, "areaUnderROC", 0.9, 0.7, AT, drift=(FeatureDrift("hour", 0.3, 0.25, 900),)
        )
    ],
    [Incident("stream flights", "freshness", "it is late", AT)],
)
"""Something of everything, so that no family is without a sample."""
FUNCTIONS = {
    "absent",
    "and",
    "by",
    "count",
    "deriv",
    "increase",
    "on",
    "or",
    "rate",
    "sum",
    "time",
    "vector",
    "label_values",
}
SCRAPED = {"job", "instance"}
"""Labels that Prometheus adds."""


def exposed() -> dict[str, set[str]]:
    """Name of each sample -> its labels, as a scraper gets them."""
    found: dict[str, set[str]] = {}
    for family in parse(exposition(lambda: STATUS)[0].decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def alerts() -> list[dict[str, Any]]:
    """Every rule of the example file."""
    groups = yaml.safe_load((DOCS / "monitoring" / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """The example dashboard."""
    return dict(json.loads((DOCS / "monitoring" / "dashboard.json").read_text()))


def asked() -> Iterator[tuple[str, str]]:
    """Every PromQL expression, and the text that is made of its labels."""
    for rule in alerts():
        yield rule["expr"], " ".join(rule["annotations"].values())
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield target["expr"], target["legendFormat"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"], ""


def wrong(expression: str, text: str, known: dict[str, set[str]]) -> list[str]:
    """What an expression, or the text beside it, names and no metric has."""
    plain = re.sub(r'"[^"]*"', '""', expression)
    words = set(re.findall(r"(?<![\w$.])[a-z_]\w*", re.sub(r"\{[^}]*\}|\[[^]]*\]", "", plain)))
    names = {word for word in words if word.startswith("tidemill_")}
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", "".join(re.findall(r"\{[^}]*\}", plain))))
    labels |= set(re.findall(r"\$labels\.(\w+)", text)) | set(re.findall(r"\{\{\s*(\w+)\s*\}\}", text))
    for inside in re.findall(r"(?:by|on)\s*\(([^)]*)\)", plain):
        labels |= {label.strip() for label in inside.split(",")}
    if match := re.match(r"label_values\([^,]*,\s*(\w+)\)", plain):
        labels.add(match.group(1))
    having = SCRAPED.union(*(known.get(name, set()) for name in names))
    found = [f"no metric {name}" for name in names - set(known)]
    found += [f"no label {label}" for label in labels - having]
    found += [f"no function {word}" for word in words - names - FUNCTIONS - labels]
    found += ["brackets do not match"] if any(plain.count(a) != plain.count(b) for a, b in ("()", "[]", "{}")) else []
    return found if names else [*found, "it asks for nothing of ours"]


@pytest.mark.parametrize(("expression", "text"), list(asked()))
def test_what_is_asked_for_is_exposed(expression: str, text: str) -> None:
    """Names of metrics, their labels in matchers, in legends and in the text of alerts."""
    assert wrong(expression, text, exposed()) == []


@pytest.mark.parametrize(
    ("expression", "text", "found"),
    [
        ("tidemill_stream_runing == 0", "", "no metric tidemill_stream_runing"),
        ('tidemill_stream_running{steam="x"} == 0', "", "no label steam"),
        ("sum by (model) (tidemill_stream_running)", "", "no label model"),
        ("tidemill_stream_running == 0", "{{ $labels.model }} is down", "no label model"),
        ("tidemill_stream_running", "{{pipeline}}", "no label pipeline"),
        ("rat(tidemill_stream_records_total[5m])", "", "no function rat"),
        ("rate(tidemill_stream_records_total[5m]", "", "brackets do not match"),
        ("label_values(tidemill_stream_running, steam)", "", "no label steam"),
        ("up == 0", "", "it asks for nothing of ours"),
    ],
)
def test_a_wrong_name_would_be_found(expression: str, text: str, found: str) -> None:
    """The check above can fail."""
    assert found in wrong(expression, text, exposed())


def test_alerts_name_what_to_do() -> None:
    """Each has a name of its own, a severity, a summary and a description."""
    rules = alerts()
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description"}
        assert re.fullmatch(r"\d+[smhd]", rule.get("for", "0s"))


def test_the_dashboard_can_be_imported() -> None:
    """Into any Grafana: it brings no data source of its own, its panels have their places and do not overlap."""
    board = dashboard()
    assert board["schemaVersion"] >= 36
    assert [each["name"] for each in board["templating"]["list"] if each["type"] == "datasource"] == ["datasource"]
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def undescribed(guide: str, known: dict[str, set[str]]) -> set[str]:
    """Metrics that the guide's tables leave out, or name without there being one."""
    return set(re.findall(r"^\| `(tidemill_\w+)` \|", guide, re.MULTILINE)) ^ set(known)


def test_the_guide_describes_every_metric_and_no_other() -> None:
    """One row of a table each; one too many or too few would be noticed."""
    guide = (DOCS / "guide" / "monitoring.md").read_text()
    assert undescribed(guide, exposed()) == set()
    assert undescribed(guide + "\n| `tidemill_nothing` | |\n", exposed()) == {"tidemill_nothing"}
    assert undescribed("", exposed()) == set(exposed())
