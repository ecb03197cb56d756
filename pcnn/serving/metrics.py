"""Counts of what a server did, as Prometheus reads them (text format, version 0.0.4)."""

from __future__ import annotations

import bisect
import threading
from collections import Counter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Upper ends of the classes into which seconds are counted.
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counts of a server. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._classes: Counter[int] = Counter()
        self._seconds = 0.0
        self._pictures = self._faces = 0

    def add_request(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request. path: one that the server knows, or "other"."""
        with self._lock:
            self._requests[path, status] += 1
            self._classes[bisect.bisect_left(_SECONDS, seconds)] += 1
            self._seconds += seconds

    def add_pictures(self, pictures: int, faces: int) -> None:
        """Count pictures that were predicted, and the faces in them."""
        with self._lock:
            self._pictures += pictures
            self._faces += faces

    def text(self, *, batches: int, waiting: int, requests: int) -> str:
        """Everything, as Prometheus' text.

        batches: so far. waiting: pictures now. requests: at hand now.
        """
        with self._lock:
            lines = _header("requests_total", "counter", "Requests by path and status.")
            lines += [
                f'pcnn_requests_total{{path="{path}",status="{status}"}} {count}'
                for (path, status), count in sorted(self._requests.items())
            ]
            lines += self._histogram()
            for name, kind, value, text in (
                ("pictures_total", "counter", self._pictures, "Pictures predicted."),
                ("faces_total", "counter", self._faces, "Faces found in them."),
                ("batches_total", "counter", batches, "Batches in which they were predicted."),
                ("waiting_pictures", "gauge", waiting, "Pictures that wait for their turn."),
                ("requests", "gauge", requests, "Requests at hand."),
            ):
                lines += [*_header(name, kind, text), f"pcnn_{name} {value}"]
        return "\n".join([*lines, ""])

    def _histogram(self) -> list[str]:
        name = "request_seconds"
        lines, below = _header(name, "histogram", "Seconds from a request to its answer."), 0
        for place, most in enumerate((*_SECONDS, "+Inf")):
            below += self._classes[place]
            lines.append(f'pcnn_{name}_bucket{{le="{most}"}} {below}')
        return [*lines, f"pcnn_{name}_sum {self._seconds:.6f}", f"pcnn_{name}_count {below}"]


def _header(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP pcnn_{name} {text}", f"# TYPE pcnn_{name} {kind}"]
