"""What the service counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Measures:
    """The metrics of one service; names begin with `robustscanner_`."""

    def __init__(self):
        self.registry = CollectorRegistry()

        def make(kind, name, text, **keywords):
            return kind(
                f"robustscanner_{name}", text, registry=self.registry, **keywords
            )

        self.requests = make(
            Counter,
            "requests",
            "Answers of /read and /explain, by status.",
            labelnames=["status"],
        )
        self.images = make(
            Counter, "images", "Images of requests, by result.", labelnames=["result"]
        )
        self.request_seconds = make(
            Histogram, "request_seconds", "Headers to answer.", buckets=SECONDS
        )
        self.compute_seconds = make(
            Histogram, "compute_seconds", "Computation of a batch.", buckets=SECONDS
        )
        self.batch_images = make(
            Histogram, "batch_images", "Images computed together.", buckets=IMAGES
        )
        self.queue = make(
            Gauge, "queue_images", "Images admitted and not yet answered."
        )
        self.capacity = make(
            Gauge, "queue_capacity_images", "Images that may be admitted."
        )

    def count_images(self, *, read: int, unreadable: int) -> None:
        """Counts the images of one answer."""
        self.images.labels("read").inc(read)
        self.images.labels("unreadable").inc(unreadable)

    def text(self) -> bytes:
        """Returns everything in Prometheus' text format."""
        return generate_latest(self.registry)
