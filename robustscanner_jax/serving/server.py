"""The process: sockets, slow clients, signals. `run_server` is the whole of it."""

import asyncio
import contextlib
import logging
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from robustscanner_jax.reading import Reader
from robustscanner_jax.serving.limits import Limits
from robustscanner_jax.serving.service import Service

log = logging.getLogger(__name__)

LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")
# After the listening socket is closed: open connections may still send a request, and
# those that sent none so far have longer.
IDLE_SECONDS = 0.3
LAST_REQUESTS_SECONDS = 2.0


class _Protocol(H11Protocol):
    """HTTP that cuts clients who do not finish the headers of a request in time.

    Uvicorn bounds only how long a connection may be idle between requests.
    """

    header_seconds = 5.0

    def connection_made(self, transport):
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.header_seconds, self._cut)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.header_seconds, self._cut)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """Uvicorn that drains: it stops taking work before it stops working.

    Args:
      service: what answers.
    """

    def __init__(self, service: Service):
        limits = service.limits
        timing = {"header_seconds": limits.header_seconds}
        super().__init__(
            uvicorn.Config(
                service.app(),
                loop="asyncio",
                http=type("_TimedProtocol", (_Protocol,), timing),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=limits.connections,
                timeout_graceful_shutdown=int(
                    limits.body_seconds + limits.deadline_seconds + 5
                ),
            )
        )
        self._service = service

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes SIGTERM and SIGINT as orders to drain; does not die of them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets=None) -> None:
        """Drains: every request that reached the process is answered."""
        log.info("draining")
        self._service.draining = True
        end = time.monotonic() + self._service.limits.drain_seconds
        while time.monotonic() < end and not self.force_exit:
            await asyncio.sleep(0.02)
        await self._close_listeners(sockets or [])
        start = time.monotonic()
        while not self.force_exit:
            passed = time.monotonic() - start
            if passed > (
                LAST_REQUESTS_SECONDS if self._awaits_first() else IDLE_SECONDS
            ):
                break
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)
        if self.force_exit:  # a person's second Ctrl-C needs no traceback
            logging.getLogger("uvicorn.error").disabled = True

    async def _close_listeners(self, sockets: list[socket.socket]) -> None:
        """Closes them when nobody waits to be accepted: closing would reset those."""
        end = time.monotonic() + 1.0
        while select.select(sockets, [], [], 0)[0] and time.monotonic() < end:
            await asyncio.sleep(0)  # the loop accepts
        for listener in (*self.servers, *sockets):
            listener.close()

    def _awaits_first(self) -> bool:
        """Returns whether a connection is open that has not sent a request yet."""
        connections = self.server_state.connections
        return any(getattr(one, "cycle", None) is None for one in connections)


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket; port 0 takes a free one.

    Raises:
      ValueError: the address is taken, or not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot listen on {host} port {port}: {reason}") from None
    # Accepted sockets inherit it. Without, an answer's second packet waits 40 ms:
    # asyncio sets it only for sockets of its own making.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def run_server(
    reader: Reader,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    limits: Limits | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then answers what it has taken and returns.

    Args:
      reader: a live `Recognizer`, or what `load_artefact` returns.
      host: address to listen on; only this machine reaches the default.
      port: 0 takes a free one, which the log names.
      token: what clients must send as `Authorization: Bearer TOKEN`; None or empty
        lets all in.
      limits: bounds on requests and times.

    Raises:
      ValueError: the address cannot be listened on.
    """
    service = Service(reader, limits=limits or Limits(), token=token or None)
    with listen(host, port) as listener:
        if host not in LOCAL_HOSTS and not token:
            log.warning("no token: whoever reaches %s may use the service", host)
        log.info("listening on http://%s:%d", host, listener.getsockname()[1])
        Server(service).run([listener])
