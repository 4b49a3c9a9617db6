"""The HTTP service under malformed bodies, slow clients, and a signal to stop."""

import base64
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from exported import needs

needs("starlette", "uvicorn", "httpx", "python_multipart", "prometheus_client")

from served import PNG, FakeReader, png, read, running, texts  # noqa: E402

from robustscanner_jax.serving import decoding  # noqa: E402

TESTS = Path(__file__).resolve().parent
KINDS = (
    "image/png",
    "application/octet-stream",
    "application/json",
    "multipart/form-data; boundary=x",
    "multipart/form-data; boundary=",
    "multipart/form-data; charset=utf-16; boundary=x",
    "text/plain",
    "\xff\xfe/;;=",
)


def test_the_end_does_not_wait_for_a_decoder_that_nobody_waits_for(monkeypatch):
    busy = threading.Event()

    def decode_slowly(data, *, max_pixels):
        busy.wait(60)
        raise ValueError("too late")

    try:
        with running(FakeReader(), deadline_seconds=0.2) as (client, _):
            assert texts(read(client, png(10))) == ["a"]
            monkeypatch.setattr(decoding, "decode_image", decode_slowly)
            assert read(client, png(10)).status_code == 504
            start = time.monotonic()
        assert time.monotonic() - start < 10
    finally:
        busy.set()


def form(data: bytes, disposition: bytes) -> bytes:
    return b"--x\r\n%s\r\n\r\n%s\r\n--x--\r\n" % (disposition, data)


def bodies(rng: random.Random) -> list[bytes]:
    """Returns well-formed bodies of every kind, to be damaged."""
    image = png(10, (8, 8))
    jpeg = b"\xff\xd8\xff\xe0" + rng.randbytes(60)
    text = base64.b64encode(image).decode()
    plain = b'Content-Disposition: form-data; name="image"; filename="a.png"'
    return [
        image,
        jpeg,
        json.dumps({"images": [text, text]}).encode(),
        json.dumps({"image": {"deep": [[[[]]]]}}).encode(),
        b'{"images": ' + b"[" * rng.randrange(2000) + b"1",
        b'{"image": 1e999999, "image": ' + b"9" * 5000 + b"}",
        form(image, plain),
        form(image, b"Content-Disposition: form-data"),
        form(image, b"Content-Disposition: form-data; name*=utf-8''%ff%fe"),
        form(image, b"X: " + rng.randbytes(9) + b"\r\n" + plain),
        b"",
    ]


def damaged(rng: random.Random, data: bytes) -> bytes:
    data = bytearray(data)
    for _ in range(rng.randrange(6)):
        place = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[place : place + rng.randrange(20)] = b""
            case 1:
                data[place:place] = rng.randbytes(rng.randrange(20))
            case 2:
                data[place : place + 1] = rng.randbytes(1)
            case 3:
                data = data[:place]
    return bytes(data)


def test_a_thousand_malformed_bodies_never_break_the_service():
    count, rng = 1000, random.Random(0)
    seen = {}
    with running(FakeReader()) as (client, _):
        for number in range(count):
            kind = rng.choice(KINDS)
            body = damaged(rng, rng.choice(bodies(rng)))
            headers = {b"Content-Type": kind.encode("latin-1")}
            response = client.post("/read", content=body, headers=headers)
            seen[response.status_code] = seen.get(response.status_code, 0) + 1
            assert response.status_code in (200, 400, 413, 415, 422), (number, kind)
            response.json()
        assert client.get("/livez").status_code == 200
        good = client.post("/read", content=png(10), headers=PNG)
        assert good.json()["readings"][0]["text"] == "a"
    assert min(seen[status] for status in (400, 415, 422)) > count / 20, seen
    assert seen[200] > 0, seen


def test_bytes_that_are_not_http_do_not_break_the_service():
    rng = random.Random(1)
    request = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    with running(FakeReader(), header_seconds=0.2) as (client, _):
        address = client.base_url.host, client.base_url.port
        for _ in range(100):
            with socket.create_connection(address) as raw:
                raw.sendall(damaged(rng, request))
                raw.shutdown(socket.SHUT_WR)
        post = client.post("/read", content=png(10), headers=PNG)
        assert post.json()["readings"][0]["text"] == "a"


def seconds_until_cut(address, *, first: bytes, every: float) -> tuple[float, bytes]:
    """Returns how long a client that sends a byte now and then is listened to."""
    start = time.monotonic()
    with socket.create_connection(address) as raw:
        raw.settimeout(every)
        raw.sendall(first)
        while time.monotonic() - start < 10:
            try:
                return time.monotonic() - start, raw.recv(1000)
            except TimeoutError:
                raw.sendall(b"x")
            except ConnectionError:
                return time.monotonic() - start, b""
    raise AssertionError("never cut")


def test_slow_clients_are_cut():
    limits = {"header_seconds": 0.4, "body_seconds": 0.4}
    with running(FakeReader(), **limits) as (client, _):
        address = client.base_url.host, client.base_url.port
        headers = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        seconds, answer = seconds_until_cut(address, first=headers + b"X: ", every=0.1)
        assert 0.3 < seconds < 3 and answer == b""
        # The second request of a connection is no better than the first.
        livez = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
        with socket.create_connection(address) as raw:
            raw.settimeout(3)
            raw.sendall(livez)
            answer = b""
            while b"alive" not in answer:
                answer += raw.recv(1000)
            raw.sendall(headers)
            assert raw.recv(1000) == b""
        whole = headers + b"Content-Length: 100\r\n\r\n"
        seconds, answer = seconds_until_cut(address, first=whole, every=0.1)
        assert 0.3 < seconds < 3 and answer.startswith(b"HTTP/1.1 408")
        post = client.post("/read", content=png(10), headers=PNG)
        assert post.json()["readings"][0]["text"] == "a"


SERVER = """
import sys, threading
sys.path[:0] = sys.argv[1:]
from served import FakeReader
from robustscanner_jax.serving.limits import Limits
from robustscanner_jax.serving.server import Server, listen
from robustscanner_jax.serving.service import Service

service = Service(FakeReader(seconds=0.05), limits=Limits(drain_seconds=1.5))
with listen("127.0.0.1", 0) as listener:
    print(listener.getsockname()[1], flush=True)
    Server(service).run([listener])
print("left in peace", flush=True)
"""


@pytest.fixture
def process():
    started = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(TESTS.parent), str(TESTS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    yield started
    if started.poll() is None:
        started.kill()
    started.communicate()


def test_a_signal_to_stop_loses_no_request_under_full_load(process):
    url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
    while httpx.get(f"{url}/readyz").status_code != 200:
        time.sleep(0.02)
    answered, lost = [0] * 16, []

    def send_until_refused(number: int) -> None:
        with httpx.Client(base_url=url, timeout=20) as client:
            while True:
                try:
                    response = client.post("/read", content=png(10), headers=PNG)
                except httpx.ConnectError:
                    return  # nobody listens: a load balancer asks the next one
                except httpx.HTTPError as error:
                    lost.append(repr(error))
                    return
                if response.status_code != 200:
                    lost.append(response.text)
                    return
                answered[number] += 1

    threads = [
        threading.Thread(target=send_until_refused, args=(i,)) for i in range(16)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.7)
    before = sum(answered)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(30)
    out, _ = process.communicate(timeout=30)
    assert lost == []
    assert sum(answered) > before > 16
    assert process.returncode == 0 and "left in peace" in out


def test_the_service_says_that_it_drains(process):
    port = int(process.stdout.readline())
    url = f"http://127.0.0.1:{port}"
    while httpx.get(f"{url}/readyz").status_code != 200:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    while (response := httpx.get(f"{url}/readyz")).status_code == 200:
        time.sleep(0.02)
    assert (response.status_code, response.text) == (503, "draining\n")
    answer = httpx.post(f"{url}/read", content=png(10), headers=PNG)
    assert answer.status_code == 200 and answer.headers["Connection"] == "close"
    assert process.wait(20) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/readyz")


def test_a_second_ctrl_c_leaves_at_once_and_without_a_traceback(process):
    url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
    while httpx.get(f"{url}/readyz").status_code != 200:
        time.sleep(0.02)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert time.monotonic() - start < 1.5  # of drain_seconds alone
    assert out == "left in peace\n" and process.returncode == 0
