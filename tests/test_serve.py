"""The HTTP service: what it answers, and what it refuses."""

import base64
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from exported import needs, some_rows, some_weights

needs("starlette", "uvicorn", "httpx", "python_multipart", "prometheus_client")

from served import POISON, FakeReader, png, running  # noqa: E402

from robustscanner_jax.serving.limits import Limits  # noqa: E402
from robustscanner_jax.serving.server import listen  # noqa: E402

PNG = {"Content-Type": "image/png"}


def read(client, data, **headers):
    return client.post("/read", content=data, headers=PNG | headers)


def texts(response):
    assert response.status_code == 200, response.text
    return [one.get("text") for one in response.json()["readings"]]


@pytest.fixture(scope="module")
def service():
    with running(FakeReader(), images=4, body_bytes=20_000, pixels=10_000) as served:
        yield served


@pytest.fixture(scope="module")
def client(service):
    return service[0]


def test_one_image_gives_text_and_confidences(client):
    response = read(client, png(20))
    (reading,) = response.json()["readings"]
    assert reading == {
        "text": "b",
        "confidence": 0.75,
        "character_confidences": [0.75],
    }
    assert response.json()["milliseconds"] > 0


def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_first_packet(client):
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        read(client, png(20))
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.03  # 40 ms and more where TCP_NODELAY is missing


def test_images_come_in_forms_and_in_json_and_keep_their_order(client):
    images = [png(value) for value in (30, 10, 20)]
    form = [("image", (f"{i}.png", data)) for i, data in enumerate(images)]
    assert texts(client.post("/read", files=form)) == ["c", "a", "b"]
    encoded = [base64.b64encode(data).decode() for data in images]
    assert texts(client.post("/read", json={"images": encoded})) == ["c", "a", "b"]
    assert texts(client.post("/read", json={"image": encoded[0]})) == ["c"]


def test_an_unreadable_image_fails_alone(client):
    form = [("image", png(10)), ("image", b"junk"), ("image", png(20))]
    first, bad, last = client.post("/read", files=form).json()["readings"]
    assert (first["text"], last["text"]) == ("a", "b")
    assert bad == {"error": "not an image (4 bytes)"}


def test_an_image_that_breaks_the_network_fails_alone(service):
    client, _ = service
    form = [("image", png(value)) for value in (10, POISON, 20)]
    first, bad, last = client.post("/read", files=form).json()["readings"]
    assert (first["text"], last["text"]) == ("a", "b")
    assert bad == {"error": "the network failed on this image"}


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"junk", PNG, 422, "not an image"),
        (b"", PNG, 422, "zero bytes"),
        (png(10, (200, 200)), PNG, 422, "200 x 200 pixels, expected at most 10,000"),
        (b"x", {"Content-Type": "text/plain"}, 415, "expected multipart/form-data"),
        (b"x", {}, 415, "Content-Type ''"),
        (b"{", {"Content-Type": "application/json"}, 400, "not JSON"),
        (b"[" * 19_000, {"Content-Type": "application/json"}, 400, "not JSON"),
        (b'{"image": 5}', {"Content-Type": "application/json"}, 400, "not base64"),
        (b'{"image": "*"}', {"Content-Type": "application/json"}, 400, "not base64"),
        (b'{"path": "/etc"}', {"Content-Type": "application/json"}, 400, "expected {"),
        (b'{"images": []}', {"Content-Type": "application/json"}, 400, "no image"),
        (b"x", {"Content-Type": "multipart/form-data"}, 400, "boundary"),
        (b"x" * 20_001, PNG, 413, "longer than 20,000 bytes"),
    ],
)
def test_a_bad_request_gets_one_sentence(client, body, headers, status, message):
    response = client.post("/read", content=body, headers=headers)
    assert response.status_code == status
    fields = response.json()
    assert message in fields.get("error", fields.get("readings", [{}])[0].get("error"))


def test_too_many_images_are_refused(client):
    form = [("image", png(10))] * 5
    assert client.post("/read", files=form).status_code == 413
    encoded = [base64.b64encode(png(10)).decode()] * 5
    response = client.post("/read", json={"images": encoded})
    assert response.json() == {"error": "5 images, expected at most 4 a request"}


def test_a_path_is_not_an_image(client):
    for field in ("image", "path", "url"):
        response = client.post(
            "/read",
            content=f'--x\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n'
            "/etc/passwd\r\n--x--\r\n",
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )
        assert response.status_code == 400


def test_a_body_without_a_length_is_bounded_as_well(client):
    def chunks():
        for _ in range(30):
            yield b"x" * 1000

    assert read(client, chunks()).status_code == 413


def test_the_refusal_of_a_long_body_does_not_wait_for_it(client):
    with socket.create_connection((client.base_url.host, client.base_url.port)) as raw:
        raw.sendall(
            b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n"
        )
        raw.settimeout(5)
        assert raw.recv(100).startswith(b"HTTP/1.1 413")


def test_pages_and_probes_answer(client):
    assert client.get("/livez").text == "alive\n"
    assert client.get("/readyz").text == "ready\n"
    page = client.get("/")
    assert "Drop the image" in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert {"/read", "/livez", "/readyz", "/metrics"} <= set(document["paths"])
    assert "POST /read" in client.get("/docs").text
    for text in (page.text, client.get("/docs").text):
        assert "http://" not in text and "https://" not in text
    assert read(client, b"", **{"Content-Type": "x"}).headers.get("server") is None
    assert client.get("/read").status_code == 405
    assert client.get("/nothing").status_code == 404


def test_an_exported_network_says_that_it_cannot_explain(client):
    response = client.post("/explain", content=png(10), headers=PNG)
    assert response.status_code == 404 and "exported" in response.json()["error"]


def test_metrics_count_requests_images_and_batches(client):
    def value(line):
        lines = client.get("/metrics").text.splitlines()
        found = [text for text in lines if text.startswith(line)]
        return float(found[0].split()[-1]) if found else 0.0

    names = (
        'robustscanner_requests_total{status="200"}',
        'robustscanner_images_total{result="read"}',
        'robustscanner_images_total{result="unreadable"}',
        "robustscanner_batch_images_sum",
    )
    before = [value(name) for name in names]
    client.post("/read", files=[("image", png(10)), ("image", b"junk")])
    assert [value(name) - b for name, b in zip(names, before, strict=True)] == [1] * 4
    assert value("robustscanner_queue_images ") == 0
    assert value("robustscanner_queue_capacity_images") == 256


def test_a_token_is_asked_for_and_probes_stay_open():
    with running(FakeReader(), token="secret") as (client, _):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "é"}):
            response = client.post(
                "/read",
                content=png(10),
                headers=[(k, v.encode()) for k, v in (PNG | headers).items()],
            )
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"
        assert texts(read(client, png(10), Authorization="Bearer secret")) == ["a"]
        assert client.get("/livez").status_code == 200
        assert "security" in client.get("/openapi.json").json()


def test_nothing_is_read_before_the_warm_up():
    reader = FakeReader(batch_size=4)
    reader.gate.clear()
    with running(reader, wait_ready=False) as (client, _):
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503
        response = read(client, png(10))
        assert response.status_code == 503 and response.headers["Retry-After"] == "1"
        reader.gate.set()
        while client.get("/readyz").status_code != 200:
            time.sleep(0.01)
        assert reader.sizes == [1, 2, 4]
        assert texts(read(client, png(10))) == ["a"]


def test_a_network_that_does_not_run_asks_for_a_restart():
    class Broken(FakeReader):
        def decode(self, image, width):
            raise RuntimeError("no memory")

    with running(Broken(), wait_ready=False) as (client, _):
        while client.get("/livez").status_code == 200:
            time.sleep(0.01)
        assert client.get("/livez").status_code == 500
        assert client.get("/readyz").status_code == 503


def together(client, count, data=None):
    """Returns a future of each of `count` requests at once, and how to end them."""
    pool = ThreadPoolExecutor(count)
    send = lambda: read(client, data or png(10))  # noqa: E731
    return [pool.submit(send) for _ in range(count)]


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_requests_at_the_same_time_share_a_batch():
    reader = FakeReader(batch_size=8)
    with running(reader, batch_delay_seconds=0.3) as (client, _):
        reader.sizes.clear()
        answers = together(client, 8)
        assert [texts(answer.result()) for answer in answers] == [["a"]] * 8
        assert reader.sizes == [8]


def test_batches_have_the_sizes_that_were_warmed_up():
    reader = FakeReader(batch_size=8)
    with running(reader, batch_delay_seconds=0.2) as (client, _):
        warm = set(reader.sizes)
        for count in (3, 5, 7):
            [texts(answer.result()) for answer in together(client, count)]
        assert set(reader.sizes) <= warm == {1, 2, 4, 8}


def test_a_full_queue_refuses_at_once():
    reader = FakeReader(batch_size=2)
    with running(reader, queue_images=6, images=2) as (client, service):
        reader.gate.clear()
        waiting = together(client, 6)
        wait_for(lambda: service.batcher._admitted == 6)
        for _ in range(5):
            start = time.perf_counter()
            response = read(client, png(10))
            assert time.perf_counter() - start < 0.05
            assert response.status_code == 503
            assert response.headers["Retry-After"] == "1"
            assert "6 of 6 images are waiting" in response.json()["error"]
        reader.gate.set()
        assert [texts(answer.result()) for answer in waiting] == [["a"]] * 6
        assert texts(read(client, png(20))) == ["b"]


def test_a_request_that_takes_too_long_gets_504_and_leaves_the_queue():
    reader = FakeReader(batch_size=1)
    with running(reader, deadline_seconds=0.3) as (client, service):
        reader.gate.clear()
        reader.sizes.clear()
        responses = [answer.result() for answer in together(client, 4)]
        assert {response.status_code for response in responses} == {504}
        assert "no answer within 0.3 seconds" in responses[0].json()["error"]
        assert service.batcher._admitted == 0
        reader.gate.set()
        assert texts(read(client, png(20))) == ["b"]
        assert len(reader.sizes) == 2  # the one that had begun, and the last


def test_bodies_take_no_more_memory_than_allowed():
    reader = FakeReader()
    size = len(png(10)) + 10
    limits = {"memory_bytes": 2 * size, "body_bytes": size}
    with running(reader, **limits) as (client, service):
        reader.gate.clear()
        waiting = together(client, 2)
        wait_for(lambda: service.batcher._admitted == 2)
        response = read(client, png(10))
        assert response.status_code == 503
        assert "too many bodies" in response.json()["error"]
        reader.gate.set()
        assert [texts(answer.result()) for answer in waiting] == [["a"]] * 2


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"queue_images": 0}, "limit queue_images: expected at least 1, got 0"),
        ({"images": 300}, "a request of 300 images can never enter a queue of 256"),
        ({"body_bytes": 10**12}, "can never fit in memory_bytes"),
        ({"deadline_seconds": 0.0}, "limit deadline_seconds: expected at least 0.001"),
        ({"drain_seconds": float("nan")}, "limit drain_seconds"),
    ],
)
def test_limits_that_cannot_work_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        Limits(**limits)


def test_an_address_in_use_gives_one_sentence():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1 port {port}"):
            listen("127.0.0.1", port)


def test_a_live_network_is_served_as_it_reads(tmp_path):
    import cv2

    from robustscanner_jax.recognizer import Recognizer

    recognizer = Recognizer(some_weights(), batch_size=8, dtype="float32")
    recognizer.gate = threading.Event()
    images = [
        cv2.imencode(".png", pixels)[1].tobytes() for pixels in some_rows(5, 8)[0]
    ]
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for path, data in zip(paths, images, strict=True):
        path.write_bytes(data)
    expected = recognizer.read(paths)
    with running(recognizer) as (client, _):
        found = client.post("/read", files=[("image", data) for data in images])
        assert texts(found) == [reading.text for reading in expected]
        shown = client.post("/explain", content=images[0], headers=PNG).json()
        assert shown["text"] == expected[0].text
        steps = len(shown["hybrid_attention"])
        assert len(shown["position_share"]) == steps >= len(expected[0].text)
        assert httpx.Response(200, json=json.loads(json.dumps(shown))).json() == shown
