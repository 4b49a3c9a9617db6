"""The body of a request becomes what to read; every refusal has a status."""

import asyncio
import base64
import binascii
import dataclasses
import json
import logging
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from robustscanner_jax.serving.limits import Limits

# It logs a line for every malformed form: whoever sends them would fill the disk.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


class Refused(Exception):
    """An answer other than 200: `status` and one sentence."""

    def __init__(self, status: int, message: str, **headers: str):
        super().__init__(message)
        self.status = status
        self.headers = headers


# The rest of a body that is not read must not hold the connection.
CLOSE = {"Connection": "close"}
RETRY = {"Retry-After": "1"}
# How long the rest of the body of a refused request is read.
REST_SECONDS = 2.0


class Refusal(JSONResponse):
    """The answer to a refused request: sent at once, then the body's rest is read.

    A connection that is closed with bytes unread is reset, and a client that still
    sends its body would see the reset and not the answer.

    Args:
      refused: status and sentence.
      request: whose body may not have been read to its end.
      rest_bytes: most of it that are read; then, and after `REST_SECONDS`, the client
        is cut.
    """

    def __init__(self, refused: Refused, request: Request, *, rest_bytes: int):
        fields = {"error": str(refused)}
        super().__init__(fields, refused.status, headers=refused.headers)
        self._request = request
        self._rest_bytes = rest_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends; the last message, an empty one, waits for the rest of the body."""

        async def send_unfinished(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "more_body": True}
            await send(message)

        await super().__call__(scope, receive, send_unfinished)
        await self._discard_rest()
        await send({"type": "http.response.body"})

    async def _discard_rest(self) -> None:
        left = self._rest_bytes
        try:
            async with asyncio.timeout(REST_SECONDS):
                async for chunk in self._request.stream():
                    left -= len(chunk)
                    if left < 0:
                        return
        # RuntimeError: the stream was read to its end before.
        except (TimeoutError, ClientDisconnect, RuntimeError):
            return


async def read_body(request: Request, limit: int) -> bytes:
    """Returns the whole body, of at most `limit` bytes.

    Raises:
      Refused: 413 for a longer one, as soon as its declared length or what came says
        so; 400 where the client went away.
    """
    too_long = f"the body is longer than {limit:,} bytes"
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise Refused(413, too_long, **CLOSE)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise Refused(413, too_long, **CLOSE)
    except ClientDisconnect:
        raise Refused(400, "the client closed the connection") from None
    return bytes(body)


@dataclasses.dataclass(frozen=True)
class Order:
    """What a request asks to read.

    Attributes:
      images: encoded files.
      regions: of the only image, each one word, see `regions`; None reads images whole.
    """

    images: list[bytes]
    regions: list[Any] | None = None

    def __len__(self) -> int:
        """Returns how many readings are asked for."""
        return len(self.images if self.regions is None else self.regions)


def order_of(content_type: str, body: bytes, limits: Limits) -> Order:
    """Returns what a body asks to read.

    A body is one image (`image/...` or `application/octet-stream`), a form with files
    (`multipart/form-data`), or JSON: `{"image": TEXT}` or `{"images": [TEXT, ...]}`,
    where TEXT is base64. Of one image of a form or in JSON, `regions` may list the
    words to read, the field of a form as JSON.

    Raises:
      Refused: 400 for a malformed body, 413 for too many images or regions, 415 for
        another type.
    """
    kind = content_type.partition(";")[0].strip().lower()
    regions = None
    if kind == "application/json":
        images, regions = _from_json(body, limits)
    elif kind == "multipart/form-data":
        images, regions = _from_form(content_type, body, limits)
    elif kind == "application/octet-stream" or kind.startswith("image/"):
        images = [body]
    else:
        raise Refused(
            415,
            f"Content-Type {kind!r}: expected multipart/form-data, application/json, "
            "image/... or application/octet-stream",
        )
    if not images:
        raise Refused(400, "the request holds no image")
    if regions is not None:
        _check_regions(regions, len(images), limits)
    return Order(images, regions)


def _check_regions(regions: Any, images: int, limits: Limits) -> None:
    if not isinstance(regions, list) or not regions:
        raise Refused(400, "expected regions as a list of at least one list of points")
    if images != 1:
        raise Refused(400, f"regions need one image, got {images}")
    if len(regions) > limits.images:
        raise Refused(
            413, f"{len(regions)} regions, expected at most {limits.images} a request"
        )


def _from_json(body: bytes, limits: Limits) -> tuple[list[bytes], Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON") from None
    known = ({"image"}, {"image", "regions"}, {"images"})
    if not isinstance(fields, dict) or set(fields) not in known:
        fields = {}
    images = [fields["image"]] if "image" in fields else fields.get("images")
    if not isinstance(images, list):
        raise Refused(
            400,
            'expected {"image": BASE64}, {"image": BASE64, "regions": [POINTS, ...]} '
            'or {"images": [BASE64, ...]}',
        )
    if len(images) > limits.images:
        raise Refused(
            413, f"{len(images)} images, expected at most {limits.images} a request"
        )
    files = [_from_base64(number, text) for number, text in enumerate(images)]
    # None is for regions that are not there; null is refused as an empty list is.
    return files, (fields["regions"] or []) if "regions" in fields else None


def _from_base64(number: int, text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise Refused(400, f"image {number} is not base64") from None


def _from_form(
    content_type: str, body: bytes, limits: Limits
) -> tuple[list[bytes], Any]:
    _, options = parse_options_header(content_type)
    form = _Form(limits.images)
    try:
        parser = MultipartParser(options[b"boundary"], form.callbacks())
        parser.write(body)
        parser.finalize()
    except KeyError:
        raise Refused(400, "multipart/form-data without a boundary") from None
    except FormParserError as error:
        raise Refused(400, f"malformed form: {error}") from None
    if not form.complete:
        raise Refused(400, "the form is cut short")
    regions = None
    if form.regions is not None:
        try:
            regions = json.loads(form.regions) or []
        except (ValueError, RecursionError):
            regions = []
    return [bytes(image) for image in form.images], regions


class _Form:
    """The parts of a form, kept in memory: the body is bounded already."""

    def __init__(self, limit: int):
        self.images: list[bytearray] = []
        self.regions: bytearray | None = None
        self.complete = False
        self._limit = limit
        self._name = self._value = b""
        self._disposition = b""
        self._part = bytearray()

    def callbacks(self) -> Any:
        """Returns what the parser calls."""
        names = "part_begin header_field header_value header_end headers_finished"
        names += " part_data end"
        return {f"on_{name}": getattr(self, f"_{name}") for name in names.split()}

    def _part_begin(self) -> None:
        self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        options = parse_options_header(self._disposition)[1]
        if options.get(b"name") == b"regions" and self.regions is None:
            self._part = self.regions = bytearray()
            return
        if b"filename" not in options:
            raise Refused(
                400, "expected files and regions in the form, got another field"
            )
        if len(self.images) == self._limit:
            raise Refused(413, f"expected at most {self._limit} images a request")
        self._part = bytearray()
        self.images.append(self._part)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._part += data[start:end]

    def _end(self) -> None:
        self.complete = True
