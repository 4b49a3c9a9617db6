"""The HTTP service: what it answers."""

import base64
import json
import threading
import time

import httpx
import pytest
from exported import needs, some_rows, some_weights

needs("starlette", "uvicorn", "httpx", "python_multipart", "prometheus_client")

from served import PNG, POISON, FakeReader, png, read, running, texts  # noqa: E402


@pytest.fixture(scope="module")
def service():
    with running(FakeReader()) as served:
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


def test_pages_and_probes_answer(client):
    assert client.get("/livez").text == "alive\n"
    assert client.get("/readyz").text == "ready\n"
    page = client.get("/")
    assert "Drop images" in page.text
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
