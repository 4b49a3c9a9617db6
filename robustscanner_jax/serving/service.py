"""The routes of the service and what stands behind them."""

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from robustscanner_jax.reading import Reader, Reading
from robustscanner_jax.rounds import Rounds
from robustscanner_jax.serving import openapi, page
from robustscanner_jax.serving.access import check_token, clean_token
from robustscanner_jax.serving.batching import Batcher, QueueFull
from robustscanner_jax.serving.decoding import Crop, Decoders, Rule
from robustscanner_jax.serving.limits import Limits
from robustscanner_jax.serving.measures import Measures
from robustscanner_jax.serving.requests import (
    CLOSE,
    RETRY,
    Order,
    Refusal,
    Refused,
    order_of,
    read_body,
)
from robustscanner_jax.views import AS_IT_IS, View, Views

log = logging.getLogger(__name__)

# A longer body is parsed beside the event loop, which it would hold up.
LONG_BODY = 2**20


class Service:
    """Answers requests with one reader.

    Args:
      reader: a live `Recognizer`, or what `load_artefact` returns.
      limits: bounds on requests and times.
      token: what clients must send as `Authorization: Bearer TOKEN`, white space around
        it left off; None or empty lets all in.
      views: of a crop that may be read.

    Attributes:
      ready: warmed up; until then images are refused.
      broken: the warm-up failed; /livez says so.
      draining: stopping; /readyz says so, and connections close after their answer.

    Raises:
      ValueError: no client could send the token.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        limits: Limits,
        token: str | None = None,
        views: Views = AS_IT_IS,
    ):
        self.limits = limits
        self.ready = self.broken = False
        self.draining = False
        self.measures = Measures()
        self.batcher = Batcher(
            reader.read_rows,
            batch_size=reader.batch_size,
            capacity=limits.queue_images,
            delay=limits.batch_delay_seconds,
            measures=self.measures,
        )
        self._reader = reader
        self._token = clean_token(token)
        self._held_bytes = self._answering = 0
        rule = Rule(reader.preprocessing, limits.pixels, views)
        self._decoders = Decoders(rule)
        # Only a live network can show where it looked.
        self._explain = getattr(reader, "explain_view", None)

    def app(self) -> Starlette:
        """Returns the ASGI application; it warms up when its lifespan starts."""
        document = openapi.document(self.limits, token=self._token is not None)
        html = page.as_html(explains=self._explain is not None)

        async def show_page(request: Request) -> Response:
            return HTMLResponse(html, headers=page.HEADERS)

        async def show_docs(request: Request) -> Response:
            return HTMLResponse(openapi.as_html(document), headers=page.HEADERS)

        async def show_document(request: Request) -> Response:
            return JSONResponse(document)

        routes = [
            Route("/", show_page),
            Route("/docs", show_docs),
            Route("/openapi.json", show_document),
            Route("/read", self._guarded(self._read), methods=["POST"]),
            Route("/explain", self._guarded(self._explained), methods=["POST"]),
            Route("/livez", self._livez),
            Route("/readyz", self._readyz),
            Route("/metrics", self._metrics),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.batcher.start()
        warm_up = asyncio.create_task(self._warm_up())
        warm_up.add_done_callback(self._warmed_up)
        yield
        warm_up.cancel()
        await asyncio.gather(warm_up, return_exceptions=True)
        await self.batcher.close()
        self._decoders.close()

    async def _warm_up(self) -> None:
        """Computes every size of batch once: no request waits for a compiler."""
        rule, reader = self._reader.preprocessing, self._reader
        row = np.zeros((rule.height, rule.max_width, 3), np.uint8), rule.max_width
        largest = reader.batch_size
        asked = {n for n in range(1, largest) if n & (n - 1) == 0} | {largest}
        for size in sorted(set(map(reader.padded_size, asked))):
            start = time.perf_counter()
            await self.batcher.in_thread(lambda n=size: reader.read_rows([row] * n))
            seconds = time.perf_counter() - start
            log.info("warmed up: batch of %d in %.2f s", size, seconds)
        explain = self._explain
        if explain is not None:
            await self.batcher.in_thread(lambda: explain(View(row)))

    def _warmed_up(self, task: asyncio.Task) -> None:
        if task.cancelled():
            return
        if error := task.exception():
            log.error("the network does not run", exc_info=error)
        self.broken = error is not None
        self.ready = not self.broken

    async def _livez(self, request: Request) -> Response:
        if self.broken:  # a restart is the only help
            return PlainTextResponse("the network does not run\n", 500)
        return PlainTextResponse("alive\n")

    async def _readyz(self, request: Request) -> Response:
        if self.draining:
            return PlainTextResponse("draining\n", 503, headers=CLOSE)
        if not self.ready:
            return PlainTextResponse("warming up\n", 503)
        return PlainTextResponse("ready\n")

    async def _metrics(self, request: Request) -> Response:
        return Response(self.measures.text(), media_type="text/plain; version=0.0.4")

    def _guarded(
        self, answer: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Returns the endpoint: whatever happens becomes an answer, and is counted."""

        async def endpoint(request: Request) -> Response:
            start = time.perf_counter()
            try:
                if self._token is not None:
                    given = request.headers.get("authorization", "")
                    check_token(self._token, given)
                with self._answered():
                    response = await answer(request)
            except Refused as refused:
                # Of a body that is too long, as much again as is allowed.
                rest_bytes = 2 * self.limits.body_bytes
                response = Refusal(refused, request, rest_bytes=rest_bytes)
            except Exception:
                log.exception("a request to %s failed", request.url.path)
                response = JSONResponse({"error": "the service failed"}, 500)
            if self.draining:
                response.headers["Connection"] = "close"
            self.measures.requests.labels(response.status_code).inc()
            self.measures.request_seconds.observe(time.perf_counter() - start)
            return response

        return endpoint

    @contextlib.contextmanager
    def _answered(self) -> Iterator[None]:
        """Holds one of the connections whose requests are answered."""
        if self._answering >= self.limits.connections:
            message = f"{self._answering} requests are being answered already"
            raise Refused(503, message, **RETRY, **CLOSE)
        self._answering += 1
        try:
            yield
        finally:
            self._answering -= 1

    @contextlib.contextmanager
    def _held(self, request: Request) -> Iterator[None]:
        """Holds memory for a body, as long as it says or as it may become."""
        declared = request.headers.get("content-length", "")
        size = int(declared[:20]) if declared.isdecimal() else self.limits.body_bytes
        size = min(size, self.limits.body_bytes)
        if self._held_bytes + size > self.limits.memory_bytes:
            raise Refused(503, "too many bodies at once", **RETRY, **CLOSE)
        self._held_bytes += size
        try:
            yield
        finally:
            self._held_bytes -= size

    async def _body(self, request: Request) -> bytes:
        if not self.ready:
            raise Refused(503, "warming up", **RETRY, **CLOSE)
        with self.batcher.admitted(1):  # full? Then the body need not even come.
            pass
        seconds = self.limits.body_seconds
        try:
            async with asyncio.timeout(seconds):
                return await read_body(request, self.limits.body_bytes)
        except TimeoutError:
            message = f"the body took longer than {seconds:g} seconds"
            raise Refused(408, message, **CLOSE) from None

    async def _handle(
        self, request: Request, answer: Callable[[Order], Awaitable[Response]]
    ) -> Response:
        """Returns `answer(order)`, with places in the queue, within the deadline."""
        seconds = self.limits.deadline_seconds
        try:
            with self._held(request):
                body = await self._body(request)
                async with asyncio.timeout(seconds):
                    order = await self._order(request, body)
                    with self.batcher.admitted(len(order)):
                        return await answer(order)
        except QueueFull as error:
            raise Refused(503, str(error), **RETRY, **CLOSE) from None
        except TimeoutError:
            raise Refused(504, f"no answer within {seconds:g} seconds") from None

    async def _order(self, request: Request, body: bytes) -> Order:
        kind = request.headers.get("content-type", "")
        parse = functools.partial(order_of, kind, body, self.limits)
        return parse() if len(body) < LONG_BODY else await self._decoders.run(parse)

    async def _read(self, request: Request) -> Response:
        start = time.perf_counter()

        async def answer(order: Order) -> Response:
            readings = await self._readings(await self._decoders.crops(order))
            fields = [_as_fields(reading) for reading in readings]
            unreadable = sum("error" in one for one in fields)
            self.measures.count_images(
                read=len(fields) - unreadable, unreadable=unreadable
            )
            status = 200
            if unreadable == len(fields):
                broken = any(isinstance(one, Exception) for one in readings)
                status = 500 if broken else 422
            milliseconds = round(1000 * (time.perf_counter() - start), 2)
            return JSONResponse(
                {"readings": fields, "milliseconds": milliseconds}, status
            )

        return await self._handle(request, answer)

    async def _readings(self, crops: Sequence[Crop]) -> list[Reading | Exception | str]:
        """Returns a reading for each crop, or why there is none."""
        good = [crop for crop in crops if not isinstance(crop, str)]
        found = iter(await self._surest(good))
        return [crop if isinstance(crop, str) else next(found)[0] for crop in crops]

    async def _surest(
        self, crops: Sequence[Sequence[View]]
    ) -> list[tuple[Reading | Exception, View]]:
        """Returns for each crop the reading that counts, and the view it is of."""
        rounds = Rounds[Reading | Exception](crops)
        while rows := rounds.rows():
            rounds.add(await self.batcher.read(rows))
        return [
            (found.in_view(view) if isinstance(found, Reading) else found, view)
            for found, view in rounds.surest()
        ]

    async def _explained(self, request: Request) -> Response:
        explain = self._explain
        if explain is None:
            raise Refused(
                404, "an exported network cannot show where it looked", **CLOSE
            )

        async def answer(order: Order) -> Response:
            if len(order) > 1:
                raise Refused(400, f"expected one image or region, got {len(order)}")
            (crop,) = await self._decoders.crops(order)
            if isinstance(crop, str):
                self.measures.count_images(read=0, unreadable=1)
                return JSONResponse({"error": crop}, 422)
            view = crop[0]
            if len(crop) > 1:
                ((_, view),) = await self._surest([crop])
            reading, shown = await self.batcher.in_thread(lambda: explain(view))
            self.measures.count_images(read=1, unreadable=0)
            maps = {
                name: np.asarray(getattr(shown, name), np.float64).round(4).tolist()
                for name in ("hybrid_attention", "position_attention", "position_share")
            }
            return JSONResponse(_as_fields(reading) | maps)

        return await self._handle(request, answer)


def _as_fields(reading: Reading | Exception | str) -> dict[str, Any]:
    if isinstance(reading, str):
        return {"error": reading}
    if isinstance(reading, Exception):
        return {"error": "the network failed on this image"}
    return reading.as_fields()
