"""Figures for Prometheus.

The rooms below keep their own counts; the composition root hands in one function that collects them when a scrape comes, so that
nothing on a call's path touches a metrics library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

Kind: TypeAlias = Literal["counter", "gauge"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure at this moment. Samples of one name have the same kind, text and label names."""

    name: str
    """With the unit, without `_total`: `switchhook_calls_active`, `switchhook_rtp_packets_lost`."""
    text: str
    """What it counts."""
    value: float
    kind: Kind = "gauge"
    labels: Mapping[str, str] = field(default_factory=dict)


Collect = Callable[[], Iterable[Sample]]


class Metrics:
    """A registry of its own: the figures that `collect` gives at each scrape, and the HTTP requests counted by `observe`."""

    def __init__(self, collect: Collect = tuple, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self._requests = Counter(
            "switchhook_http_requests", "HTTP requests answered", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram("switchhook_http_request_seconds", "Time to answer an HTTP request", registry=self.registry)
        self.registry.register(_Figures(collect))

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request; `route` is the template, which bounds the number of series."""
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._seconds.observe(seconds)

    def render(self) -> tuple[bytes, str]:
        """The text format and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Figures(Collector):
    def __init__(self, collect: Collect) -> None:
        self._collect = collect

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing beforehand: registering must not collect."""
        return ()

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for sample in self._collect():
            family = families.get(sample.name)
            if family is None:
                of_kind = CounterMetricFamily if sample.kind == "counter" else GaugeMetricFamily
                family = families[sample.name] = of_kind(sample.name, sample.text, labels=tuple(sample.labels))
            family.add_metric(tuple(sample.labels.values()), sample.value)
        return families.values()
