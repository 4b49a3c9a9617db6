"""What one request may ask for, and how long anything may take."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds of the service; each has its own answer.

    Attributes:
      queue_images: images admitted at once, waiting or computed; more get 503.
      images: of one request; more get 413.
      body_bytes: of one request; more get 413, before anything is decoded.
      memory_bytes: of all bodies held at once; more get 503.
      pixels: of one image; the file's header decides, before it is decoded.
      body_seconds: for a client to send its body; then 408 and the connection is cut.
      header_seconds: for a client to send its headers; then the connection is cut.
      deadline_seconds: from body to answer; then 504.
      batch_delay_seconds: how long a batch that is not full waits for more images.
      drain_seconds: after SIGTERM: connections are still taken, each for one request,
        while load balancers notice that /readyz says 503.
      connections: open at once; more get 503.
    """

    queue_images: int = 256
    images: int = 64
    body_bytes: int = 16 * 2**20
    memory_bytes: int = 512 * 2**20
    pixels: int = 20_000_000
    body_seconds: float = 10.0
    header_seconds: float = 5.0
    deadline_seconds: float = 10.0
    batch_delay_seconds: float = 0.002
    drain_seconds: float = 1.0
    connections: int = 2048

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            optional = field.name in ("batch_delay_seconds", "drain_seconds")
            smallest = 0 if optional else 0.001 if field.type is float else 1
            if not value >= smallest:
                raise ValueError(
                    f"limit {field.name}: expected at least {smallest}, got {value}"
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
