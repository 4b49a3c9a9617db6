"""The connections: how long a silent one is kept, and how many there are."""

import logging
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

try:
    import resource
except ImportError:  # Windows
    resource = None

log = logging.getLogger(__name__)

# Beyond the connections whose requests are answered: for probes, pages, refusals, and
# between requests. As many files are left to the process, where it may open few.
SPARE = 64


def most_sockets(connections: int) -> int:
    """Returns how many sockets may be open, of which so many await an answer."""
    most = connections + SPARE
    if resource is None:
        return most
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY or files >= most + SPARE:
        return most
    log.warning(
        "%d connections need ulimit -n %d, got %d", connections, most + SPARE, files
    )
    return max(files - SPARE, 1)


class BoundedProtocol(H11Protocol):
    """HTTP that bounds what clients hold: time until a request, sockets in all.

    Uvicorn bounds how long a connection may be idle between requests, but not the time
    that headers take. Above its `limit_concurrency` it answers 503 to probes as well,
    and keeps the sockets.

    Attributes:
      header_seconds: for a client to send its headers; then the connection is cut.
      sockets: open at once. One more, and the one is cut that was silent for longest of
        those that await no answer: a probe finds its place however many are held.
    """

    header_seconds = 5.0
    sockets = 4096

    def connection_made(self, transport):
        """Takes a connection, at the cost of another one where there are too many."""
        super().connection_made(transport)
        self._heard = self.loop.time()
        self._timer = self.loop.call_later(self.header_seconds, self._cut)
        if len(self.connections) > self.sockets:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Parses; the time for headers runs until a request is whole."""
        self._heard = self.loop.time()
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.header_seconds, self._cut)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def _make_room(self) -> None:
        everyone = cast("set[BoundedProtocol]", self.connections)
        spare = [one for one in everyone if not one._awaits_answer()]
        longest_silent = min(spare, key=lambda one: one._heard)
        everyone.discard(longest_silent)  # now: the loop tells us of the loss later
        longest_silent.transport.abort()

    def _awaits_answer(self) -> bool:
        return self.cycle is not None and not self.cycle.response_started

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()
