"""The process: its socket, its signals, its end. `run_server` is the whole of it."""

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

from robustscanner_jax.reading import Reader
from robustscanner_jax.serving.limits import Limits
from robustscanner_jax.serving.protocol import BoundedProtocol, most_sockets
from robustscanner_jax.serving.service import Service
from robustscanner_jax.views import AS_IT_IS, Views

log = logging.getLogger(__name__)

LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")
# After the listening socket is closed: open connections may still send a request (a
# busy client takes its time for the next), and those that sent none so far have longer.
IDLE_SECONDS = 1.0
LAST_REQUESTS_SECONDS = 2.0


class Server(uvicorn.Server):
    """Uvicorn that drains: it stops taking work before it stops working.

    Args:
      service: what answers.
    """

    def __init__(self, service: Service):
        limits = service.limits
        bounds = {
            "header_seconds": limits.header_seconds,
            "sockets": most_sockets(limits.connections),
        }
        super().__init__(
            uvicorn.Config(
                service.app(),
                loop="asyncio",
                http=type("_Protocol", (BoundedProtocol,), bounds),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
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
        while self.server_state.connections and not self.force_exit:
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
    views: Views = AS_IT_IS,
) -> None:
    """Serves until SIGTERM or SIGINT, then answers what it has taken and returns.

    Args:
      reader: a live `Recognizer`, or what `load_artefact` returns.
      host: address to listen on; only this machine reaches the default.
      port: 0 takes a free one, which the log names.
      token, views: see `Service`.
      limits: bounds on requests and times.

    Raises:
      ValueError: the address cannot be listened on, or no client could send the token.
    """
    service = Service(reader, limits=limits or Limits(), token=token, views=views)
    with listen(host, port) as listener:
        if host not in LOCAL_HOSTS and not token:
            log.warning("no token: whoever reaches %s may use the service", host)
        log.info("listening on http://%s:%d", host, listener.getsockname()[1])
        Server(service).run([listener])
