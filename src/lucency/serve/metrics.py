"""What a server counts, for Prometheus. Nothing here knows a scan or a user."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)
SLOW = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = to = CollectorRegistry()
        self._requests = Counter("lucency_requests", "Requests answered", ("route", "method", "status"), registry=to)
        self._seconds = Histogram(
            "lucency_request_seconds", "Seconds until a request was answered", ("route",), buckets=QUICK, registry=to
        )
        self._cache = Counter("lucency_cache", "Questions asked of the cache", ("what", "found"), registry=to)
        self._explained = Histogram(
            "lucency_explanation_seconds", "Seconds of work for a map", ("method",), buckets=SLOW, registry=to
        )
        self._asked = Histogram("lucency_ask_seconds", "Seconds of work for an ask", buckets=QUICK, registry=to)
        self._together = Counter("lucency_ask_batches", "Times that asks were answered together", registry=to)
        self._refused = Counter("lucency_uploads_refused", "Uploads that were no scan", registry=to)
        self.waiting = Gauge("lucency_waiting", "Questions waiting for the device", registry=to)
        self.live = Gauge("lucency_live", "Live maps being watched", registry=to)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def cache(self, what: str, found: bool) -> None:
        """A question was looked up."""
        self._cache.labels(what, str(found).lower()).inc()

    def explained(self, method: str, seconds: float) -> None:
        """An explanation was made."""
        self._explained.labels(method).observe(seconds)

    def asked(self, count: int, seconds: float) -> None:
        """So many small questions were answered together."""
        self._together.inc()
        for _ in range(count):
            self._asked.observe(seconds)

    def refused(self) -> None:
        """An upload was no scan."""
        self._refused.inc()

    def text(self) -> bytes:
        """All of it in Prometheus' format."""
        return generate_latest(self.registry)
