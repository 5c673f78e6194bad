"""A model's history as the lines that ``tidemill models show`` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidemill.ml.registry.history import ModelHistory, VersionRecord

_MOST_IMPORTANT = 5
"""How many features are listed by importance."""


def describe(history: ModelHistory) -> Iterator[str]:
    """The lines: the model, each version with its metrics, the drift of its features, and the decisions."""
    model = f"{history.pipeline}.{history.model}"
    champion, published = history.champion_version or "none", history.published_version or "none"
    yield f"{model}: champion {champion}, published {published}"
    if history.waiting_version is not None:
        yield f"version {history.waiting_version} waits for a decision: ./tidemill models approve {model}"
    for version in history.versions:
        yield from _describe_version(version)
    if history.drift:
        yield f"drift (PSI) of {history.drift[0].drift_rows:,} new rows:"
    for feature in history.drift:
        limit = "no limit" if feature.allowed is None else f"limit {feature.allowed:g}"
        yield f"  {feature.feature} {feature.psi:.3f} ({limit}){', exceeded' if feature.is_beyond else ''}"
    if history.decisions:
        yield "decisions:"
    for decision in history.decisions:
        yield (
            f"  {decision.decided_at:%Y-%m-%d %H:%M:%S} UTC: version {decision.version} {decision.verdict} "
            f"by {decision.decided_by}: {decision.reason}"
        )


def _describe_version(version: VersionRecord) -> Iterator[str]:
    yield (
        f"version {version.version}, {version.state}: trained {version.trained_at:%Y-%m-%d %H:%M:%S} UTC on "
        f"{version.train_rows:,} rows, measured on {version.holdout_rows:,} of {version.holdout_from:%Y-%m-%d} to "
        f"{version.holdout_until:%Y-%m-%d}"
    )
    for measure in version.measures:
        value = "could not be measured" if measure.value is None else f"{measure.value:.4g}"
        if measure.low is not None and measure.high is not None:
            value += f" (95 %: {measure.low:.4g} to {measure.high:.4g})"
        others = {"champion": measure.champion, "baseline": measure.baseline}
        compared = ", ".join(f"{name} {other:.4g}" for name, other in others.items() if other is not None)
        yield f"  {measure.metric} {value}{'; ' if compared else ''}{compared}"
    if version.parameters:
        yield f"  parameters: {', '.join(f'{name} {value}' for name, value in version.parameters.items())}"
    if version.importance:
        first = list(version.importance.items())[:_MOST_IMPORTANT]
        yield f"  by importance: {', '.join(f'{name} {share:.2f}' for name, share in first)}"
    if version.calibration:
        bins = (f"{each['predicted']:.2f}→{each['observed']:.2f}" for each in version.calibration)
        yield f"  predicted→observed: {' '.join(bins)}"
