"""What one request may ask for, and how long anything may take."""

import dataclasses
from typing import Any

# Of any limit: two of them can still be added, waited for and written as integers.
LARGEST = 10**15


def _limit(default: float, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds of the service; each has its own answer, which its help names."""

    queue_images: int = _limit(
        256, "images admitted at once, waiting or computed; more get 503"
    )
    images: int = _limit(64, "images or regions of one request; more get 413")
    body_bytes: int = _limit(
        16 * 2**20, "bytes of one request; more get 413, before anything is decoded"
    )
    memory_bytes: int = _limit(
        512 * 2**20, "bytes of all bodies held at once; more get 503"
    )
    pixels: int = _limit(
        20_000_000, "pixels of one image; one with more fails alone, undecoded"
    )
    body_seconds: float = _limit(
        10.0, "for a client to send its body; then 408, and the connection is cut"
    )
    header_seconds: float = _limit(
        5.0, "for a client to send its headers; then the connection is cut"
    )
    deadline_seconds: float = _limit(10.0, "from body to answer; then 504")
    batch_delay_seconds: float = _limit(
        0.002, "how long a batch that is not full waits for more images"
    )
    drain_seconds: float = _limit(
        1.0,
        "after SIGTERM: connections are still taken, each for one request, while load "
        "balancers notice that /readyz says 503",
    )
    connections: int = _limit(
        2048,
        "connections whose requests to /read and /explain are answered at once; more "
        "get 503. Some more may be open, for probes and between requests; beyond, the "
        "longest silent of those is cut",
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            optional = field.name in ("batch_delay_seconds", "drain_seconds")
            smallest = 0 if optional else 0.001 if field.type is float else 1
            if not value >= smallest:
                raise ValueError(
                    f"limit {field.name}: expected at least {smallest}, got {value}"
                )
            if value > LARGEST:
                raise ValueError(
                    f"limit {field.name}: expected at most {LARGEST:,}, got {value}"
                )
        if self.images > self.queue_images:
            raise ValueError(
                f"a request of {self.images} images can never enter a queue of "
                f"{self.queue_images}"
            )
        if self.body_bytes > self.memory_bytes:
            raise ValueError(
                f"a body of {self.body_bytes:,} bytes can never fit in memory_bytes "
                f"{self.memory_bytes:,}"
            )
