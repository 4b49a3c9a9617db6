"""The HTTP service: how many clients it answers, and that they hear why it does not."""

import http.client
import logging
import resource
import socket
import time
from types import SimpleNamespace

import pytest
from exported import needs

needs("starlette", "uvicorn", "httpx", "python_multipart", "prometheus_client")

import httpx  # noqa: E402
from served import (  # noqa: E402
    PNG,
    FakeReader,
    png,
    read,
    running,
    texts,
    together,
    wait_for,
)

from robustscanner_jax.serving import protocol, requests  # noqa: E402

PROBES = ("/livez", "/readyz", "/metrics")
MEGABYTE = 2**20
HEADERS = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


def address(client: httpx.Client) -> tuple[str, int]:
    return client.base_url.host, client.base_url.port


def statuses(client: httpx.Client, paths: tuple[str, ...]) -> set[int]:
    """Returns the status of each path, each asked over a connection of its own."""
    return {httpx.get(client.base_url.join(path)).status_code for path in paths}


@pytest.mark.parametrize("connections", [1, 3])
def test_as_many_requests_are_answered_at_once_as_allowed(connections):
    reader = FakeReader()
    with running(reader, connections=connections) as (client, service):
        reader.gate.clear()
        waiting = together(client, connections)
        wait_for(lambda: service.batcher._admitted == connections)
        response = read(client, png(10))
        assert response.status_code == 503
        message = f"{connections} requests are being answered already"
        assert response.json() == {"error": message}
        assert response.headers["Retry-After"] == "1"
        assert statuses(client, PROBES) == {200}
        counted = client.get("/metrics").text
        assert 'robustscanner_requests_total{status="503"} 1.0' in counted
        reader.gate.set()
        assert [texts(one.result()) for one in waiting] == [["a"]] * connections
        assert texts(read(client, png(20))) == ["b"]


def test_probes_find_a_place_however_many_sockets_are_held():
    with running(FakeReader(), connections=2, header_seconds=30.0) as (client, _):
        held = [socket.create_connection(address(client)) for _ in range(100)]
        held[-1].sendall(HEADERS)  # in the middle of its headers
        assert statuses(client, (*PROBES, "/")) == {200}
        assert texts(read(client, png(10))) == ["a"]
        for one in held:
            one.setblocking(False)
        assert sum(map(is_open, held)) <= protocol.most_sockets(2) == 66
        assert is_open(held[-1])  # those silent for longest went first
        for one in held:
            one.close()


def is_open(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_a_connection_that_awaits_its_answer_is_not_cut_for_another():
    reader = FakeReader()
    with running(reader, connections=2, header_seconds=30.0) as (client, service):
        reader.gate.clear()
        waiting = together(client, 2)
        wait_for(lambda: service.batcher._admitted == 2)
        held = [socket.create_connection(address(client)) for _ in range(100)]
        assert statuses(client, PROBES) == {200}
        reader.gate.set()
        assert [texts(one.result()) for one in waiting] == [["a"]] * 2
        for one in held:
            one.close()


@pytest.mark.parametrize(
    ("files", "expected"),
    [(resource.RLIM_INFINITY, 2112), (4096, 2112), (1024, 960), (10, 1)],
)
def test_sockets_leave_some_of_the_files_that_a_process_may_open(
    monkeypatch, caplog, files, expected
):
    fields = {"RLIMIT_NOFILE": 7, "RLIM_INFINITY": resource.RLIM_INFINITY}
    fake = SimpleNamespace(getrlimit=lambda _: (files, files), **fields)
    monkeypatch.setattr(protocol, "resource", fake)
    with caplog.at_level(logging.WARNING):
        assert protocol.most_sockets(2048) == expected
    assert ("ulimit -n 2176" in caplog.text) == (expected < 2112)


def post(client: httpx.Client, size: int, **headers: str) -> tuple[int, str | None]:
    """Returns status and Retry-After, as a client that sends its whole body first."""
    connection = http.client.HTTPConnection(*address(client), timeout=20)
    try:
        connection.request("POST", "/read", body=b"x" * size, headers=PNG | headers)
        response = connection.getresponse()
        assert b"error" in response.read()
        return response.status, response.getheader("Retry-After")
    finally:
        connection.close()


def test_who_sends_a_whole_body_first_still_gets_the_refusal():
    reader = FakeReader()
    with running(
        reader, token="t", body_bytes=4 * MEGABYTE, queue_images=1, images=1
    ) as (client, service):
        allowed = {"Authorization": "Bearer t"}
        client.headers.update(allowed)
        for _ in range(5):  # who closes a connection too early is not always found out
            assert post(client, 3 * MEGABYTE) == (401, None)
            assert post(client, 6 * MEGABYTE, **allowed) == (413, None)
        reader.gate.clear()
        (waiting,) = together(client, 1)
        wait_for(lambda: service.batcher._admitted == 1)
        for _ in range(5):
            assert post(client, 3 * MEGABYTE, **allowed) == (503, "1")
        reader.gate.set()
        assert texts(waiting.result()) == ["a"]


def refused(raw: socket.socket, headers: bytes) -> bytes:
    """Sends headers without a token; returns what is answered before a body comes."""
    raw.settimeout(5)
    raw.sendall(HEADERS + headers + b"\r\n\r\n")
    answer = b""
    while b"}" not in answer:
        answer += raw.recv(1000)
    return answer


def test_the_rest_of_a_refused_body_is_read_for_a_limited_time(monkeypatch):
    monkeypatch.setattr(requests, "REST_SECONDS", 0.5)
    with running(FakeReader(), token="t") as (client, _):
        with socket.create_connection(address(client)) as raw:
            start = time.monotonic()
            answer = refused(raw, b"Content-Length: 1000")
            assert answer.startswith(b"HTTP/1.1 401")
            raw.sendall(b"x")
            assert raw.recv(1) == b""
            assert 0.4 < time.monotonic() - start < 3


def test_the_rest_of_a_refused_body_is_read_up_to_a_limited_length(monkeypatch):
    monkeypatch.setattr(requests, "REST_SECONDS", 30.0)
    with running(FakeReader(), token="t", body_bytes=1000) as (client, _):
        with socket.create_connection(address(client)) as raw:
            refused(raw, b"Content-Length: 9999")
            raw.sendall(b"x" * 2000)  # as much again as is allowed
            with pytest.raises(TimeoutError):  # still open
                raw.settimeout(0.3)
                raw.recv(1)
            raw.sendall(b"x")
            raw.settimeout(5)
            assert raw.recv(1) == b""


def test_a_full_queue_refuses_a_body_before_it_comes():
    reader = FakeReader()
    with running(reader, queue_images=1, images=1) as (client, service):
        reader.gate.clear()
        (waiting,) = together(client, 1)
        wait_for(lambda: service.batcher._admitted == 1)
        with socket.create_connection(address(client)) as raw:
            answer = refused(raw, b"Content-Length: 1000")
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"1 of 1 images are waiting" in answer
        reader.gate.set()
        assert texts(waiting.result()) == ["a"]


def test_half_a_body_is_not_read_where_the_client_went_away():
    with running(FakeReader()) as (client, _):
        with socket.create_connection(address(client)) as raw:
            raw.sendall(HEADERS + b"Content-Length: 100\r\n\r\nhalf")
        counted = 'robustscanner_requests_total{status="400"} 1.0'
        wait_for(lambda: counted in client.get("/metrics").text)
        assert 'images_total{result="unreadable"}' not in client.get("/metrics").text


def test_who_leaves_after_a_refusal_leaves_no_traceback(caplog):
    with running(FakeReader(), token="t") as (client, _):
        with socket.create_connection(address(client)) as raw:
            refused(raw, b"Content-Length: 1000")
        assert texts(read(client, png(10), Authorization="Bearer t")) == ["a"]
    assert "Traceback" not in caplog.text


def test_a_client_that_asks_first_is_not_told_to_send_a_refused_body(monkeypatch):
    monkeypatch.setattr(requests, "REST_SECONDS", 0.1)
    with running(FakeReader(), token="t") as (client, _):
        with socket.create_connection(address(client)) as raw:
            answer = refused(raw, b"Content-Length: 9\r\nExpect: 100-continue")
            assert answer.startswith(b"HTTP/1.1 401")
