"""
Metrics for CloudWatch, in its embedded metric format: lines of JSON in the log, of which CloudWatch makes metrics.

Nothing is done for a request: now and then, what Prometheus's registry has counted since the last time is written.
Source of the format: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from runrails.metrics import NAMESPACE, Metric, sent_to_cloudwatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client import CollectorRegistry

__all__ = ["SERVICE", "Document", "Figures", "documents", "figures_of"]

SERVICE = "Service"
"""The dimension that every metric has: which gateway it is."""
Key: TypeAlias = "tuple[str, str]"
"""A metric's name and the value of its dimension ('' if it has none)."""


class Spread(NamedTuple):
    """A histogram: how often which value was seen, each rounded up to its bucket's bound."""

    counts: tuple[int, ...]
    """One for each bound and one for what is beyond the last; not cumulated."""


Figure: TypeAlias = "float | Spread"
Figures: TypeAlias = "Mapping[Key, Figure]"


class Document(NamedTuple):
    """A line for the log."""

    keys: tuple[Key, ...]
    """What it tells of."""
    content: dict[str, object]


def figures_of(registry: CollectorRegistry) -> Figures:
    """What a registry holds of the metrics that are sent; labels that are no dimensions are summed over."""
    listed = {each.name: each for each in sent_to_cloudwatch()}
    found: dict[tuple[str, str], Figure] = {}
    for family in registry.collect():
        metric = listed.get(family.name)
        if metric is None:
            continue
        if metric.kind == "histogram":
            _add_spreads(found, metric, family.samples)
            continue
        name = f"{metric.name}_total" if metric.kind == "counter" else metric.name
        for sample in family.samples:
            if sample.name == name:
                key = metric.name, "" if metric.dimension is None else sample.labels[metric.dimension]
                before = found.get(key, 0.0)
                found[key] = (0.0 if isinstance(before, Spread) else before) + sample.value
    return found


def _add_spreads(found: dict[tuple[str, str], Figure], metric: Metric, samples: Iterable[object]) -> None:
    cumulated = [0.0] * (len(metric.buckets) + 1)
    places = {_bound(each): place for place, each in enumerate(metric.buckets)}
    for sample in samples:
        name, labels, value = getattr(sample, "name", ""), getattr(sample, "labels", {}), getattr(sample, "value", 0.0)
        if name == f"{metric.name}_bucket":
            cumulated[places.get(labels["le"], len(metric.buckets))] += value
    counts = (round(upper - lower) for lower, upper in zip((0.0, *cumulated), cumulated, strict=False))
    found[metric.name, ""] = Spread(tuple(counts))


def _bound(value: float) -> str:
    """As Prometheus writes it."""
    return str(float(value))


def documents(before: Figures, now: Figures, *, time_ms: int, service: str) -> list[Document]:
    """
    What has been counted between two looks, one document for each set of dimensions. Gauges are told as they are.

    What has not changed is left out, so an idle gateway says little.
    """
    listed = {each.name: each for each in sent_to_cloudwatch()}
    by_dimension: dict[tuple[str, str], dict[Key, object]] = {}
    for key, figure in now.items():
        metric = listed[key[0]]
        told = _told(metric, before.get(key), figure)
        if told is not None:
            by_dimension.setdefault((metric.dimension or "", key[1]), {})[key] = told
    made: list[Document] = []
    for (label, value), figures in by_dimension.items():
        dimensions = {SERVICE: service} | ({_camel(label): value} if label else {})
        made.append(Document(tuple(figures), _content(dimensions, figures, time_ms)))
    return made


def _told(metric: Metric, before: Figure | None, now: Figure) -> object:
    """The value of a metric in a document; None if there is nothing to tell."""
    if isinstance(now, Spread):
        earlier = before.counts if isinstance(before, Spread) else (0,) * len(now.counts)
        bounds = (*metric.buckets, 2 * metric.buckets[-1])  # beyond the last bound nobody knows how far
        added = [(bound, new - old) for bound, old, new in zip(bounds, earlier, now.counts, strict=True) if new > old]
        return _spread(added) if added else None
    if metric.kind == "gauge":
        return now
    more = now - (before if isinstance(before, float) else 0.0)
    return more if more > 0 else None


def _spread(added: list[tuple[float, int]]) -> dict[str, object]:
    # The specification knows lists of single values; this form, which CloudWatch takes too, is the one that AWS's own
    # exporter writes, always with all of these members: opentelemetry-collector-contrib, exporter/awsemfexporter.
    return {
        "Values": [bound for bound, _ in added], "Counts": [count for _, count in added],
        "Min": added[0][0], "Max": added[-1][0], "Count": sum(count for _, count in added),
        "Sum": sum(bound * count for bound, count in added),
    }  # fmt: skip


def _content(dimensions: dict[str, str], figures: Mapping[Key, object], time_ms: int) -> dict[str, object]:
    listed = {each.name: each for each in sent_to_cloudwatch()}
    told = {str(listed[name].cloudwatch): (listed[name].unit, figure) for (name, _), figure in figures.items()}
    directive = {
        "Namespace": NAMESPACE, "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": name, "Unit": unit} for name, (unit, _) in told.items()],
    }  # fmt: skip
    head: dict[str, object] = {"_aws": {"Timestamp": time_ms, "CloudWatchMetrics": [directive]}}
    return head | dimensions | {name: figure for name, (_, figure) in told.items()}


def _camel(label: str) -> str:
    return label.title().replace("_", "")
