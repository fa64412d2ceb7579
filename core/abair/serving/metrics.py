"""What the server counts, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from abair.serving.jobs import Jobs

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The counters of one server."""

    def __init__(self, jobs: Jobs) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("abair_requests", "Requests.", ["route", "status"], registry=registry)
        self._seconds = Histogram(
            "abair_stage_seconds", "Seconds by stage.", ["stage"], buckets=_SECONDS, registry=registry
        )
        self.megapixels = Counter("abair_megapixels", "Megapixels that were restored.", registry=registry)
        self._labels = Counter("abair_label", "Photos by their largest weight.", ["label"], registry=registry)
        self._weights = Counter("abair_label_weight", "Sums of the photos' weights.", ["label"], registry=registry)
        self._deployment = Gauge("abair_deployment_info", "The deployment that serves.", ["name"], registry=registry)
        for name, text, value in (
            ("waiting", "Requests that wait.", lambda: jobs.waiting),
            ("running", "Requests that are worked for.", lambda: jobs.running),
            ("places", "Requests that may be under way.", lambda: jobs.places),
        ):
            Gauge(f"abair_queue_{name}", text, registry=registry).set_function(value)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage: upload, read, estimate, restore or write."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds.labels(name).observe(time.perf_counter() - started)

    def see(self, weights: Mapping[str, float]) -> None:
        """Count what was seen in a photo."""
        if any(weights.values()):
            self._labels.labels(max(weights, key=lambda label: weights[label])).inc()
        for label, weight in weights.items():
            self._weights.labels(label).inc(max(0.0, weight))

    def text(self, deployment: str) -> bytes:
        """Return all of it in Prometheus' text format."""
        self._deployment.clear()
        self._deployment.labels(deployment).set(1)
        return generate_latest(self._registry)
