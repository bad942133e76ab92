"""What Prometheus reads at /metrics: requests, predictions, the journal and the last drift."""

import json
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from .journal.queue import Writer
from .workers.meters import Meters

MONITOR_REPORT = Path("reports/monitor.json")
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The meters of one application, in a registry of its own."""

    def __init__(
        self, writer: Writer | None, report: Path = MONITOR_REPORT, workers: Meters | None = None
    ) -> None:
        self.registry = registry = CollectorRegistry()
        self.workers = workers
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.served: str | None = None
        """The version that answers; what the monitor says of another is not told."""
        registry.register(_Drift(self, report))  # type: ignore[arg-type]
        names = ("method", "route", "status")
        self._requests = Counter("http_requests", "Requests.", names, registry=registry)
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "From the request's first byte to the answer's last.",
            names[:2],
            buckets=BUCKETS,
            registry=registry,
        )
        self._bound: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        text = "Rows predicted."
        self.predictions = Counter("predictions", text, ("version",), registry=registry)
        text = "Values that the training data did not hold."
        self.unseen = Counter("unseen_categories", text, ("column",), registry=registry)
        text = "1 for what is served."
        self.model = Gauge("model_info", text, ("version", "bundle"), registry=registry)
        text = "1 while the version promoted last is not used."
        self.refused = Gauge("bundle_refused", text, registry=registry)
        if writer is not None:
            for name, text, read in (
                ("journal_queue", "Lines that wait to be written.", lambda: writer.waiting),
                ("journal_up", "0 while the journal cannot be written.", lambda: writer.up),
                ("journal_written", "Lines written.", lambda: writer.written),
                ("journal_dropped", "Lines lost: queue full.", lambda: writer.dropped),
            ):
                Gauge(name, text, registry=registry).set_function(read)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts one request; `route` is the template, so that ids do not make series."""
        key = (method, route, status)
        bound = self._bound.get(key)
        if bound is None:
            bound = (
                self._requests.labels(method, route, str(status)),
                self._seconds.labels(method, route),
            )
            self._bound[key] = bound
        bound[0].inc()
        bound[1].observe(seconds)

    def text(self) -> bytes:
        """What Prometheus reads: all workers' where there are several."""
        return self.workers.text() if self.workers else generate_latest(self.registry)


class CandidateMetrics:
    """The meters of what runs beside the served model; what it answers counts with the rest."""

    def __init__(self, metrics: Metrics) -> None:
        self.served: str | None = None
        self.predictions, registry = metrics.predictions, metrics.registry
        text = "1 for what staging holds, which runs beside what is served."
        self.model = Gauge("candidate_info", text, ("version", "bundle"), registry=registry)
        text = "1 while staging's newest version is not used."
        self.refused = Gauge("candidate_refused", text, registry=registry)


class _Drift:
    """Reads the monitor's last report at each scrape, if there is one of what is served."""

    def __init__(self, metrics: Metrics, report: Path) -> None:
        self.metrics, self.report = metrics, report

    def describe(self) -> list[GaugeMetricFamily]:
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        try:
            report = json.loads(self.report.read_text())
            columns = dict(report.get("columns") or {})
            window, metric = (report.get("windows") or [{}])[-1], report.get("metric") or {}
            values = {"metric": window.get("value"), "metric_promoted": metric.get("baseline")}
            values |= {f"shadow_{n}": v for n, v in (report.get("shadow") or {}).items()}
            age = self.report.stat().st_mtime
        except (OSError, ValueError, AttributeError, TypeError):
            return
        if report.get("version") != self.metrics.served:
            return
        for name in ("distance", "threshold", "confirmed"):
            text = f"The monitor's {name} of a column in its last window."
            family = GaugeMetricFamily(f"drift_{name}", text, labels=["column"])
            for column, found in columns.items():
                if isinstance(found, dict) and isinstance(found.get(name), int | float):
                    family.add_metric([column], found[name])
            yield family
        for name, value in values.items():
            if isinstance(value, int | float):
                text = "The business's metric: in the last window, at promotion, or of the shadow."
                yield GaugeMetricFamily(f"monitor_{name}", text, value)
        verdict = GaugeMetricFamily("monitor_verdict", "1 for the last one.", labels=["verdict"])
        verdict.add_metric([str(report.get("verdict"))], 1)
        yield verdict
        yield GaugeMetricFamily("monitor_timestamp_seconds", "When it was reported.", age)
