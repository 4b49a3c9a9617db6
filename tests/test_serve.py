"""The HTTP service: what it answers."""

import base64
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import cv2
import httpx
import numpy as np
import pytest
from exported import needs, some_rows, some_weights

needs("starlette", "uvicorn", "httpx", "python_multipart", "prometheus_client")

from served import (  # noqa: E402
    PNG,
    POISON,
    FakeReader,
    SureOfBright,
    fields,
    png,
    read,
    running,
    texts,
    wait_for,
)

from robustscanner_jax.serving import openapi  # noqa: E402
from robustscanner_jax.serving.limits import Limits  # noqa: E402
from robustscanner_jax.views import AS_IT_IS, Views  # noqa: E402


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
        "characters": ["b"],
        "character_confidences": [0.75],
        "angle": 0,
        "closer": False,
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


def test_regions_of_a_page_are_read_in_their_order_and_a_bad_one_fails_alone(client):
    page = np.zeros((60, 90, 3), np.uint8)
    page[5:25, 10:50], page[30:50, 30:80] = 30, 10
    data = cv2.imencode(".png", page)[1].tobytes()
    quads = [
        [[30, 30], [80, 30], [80, 50], [30, 50]],
        [[10, 5], [50, 5]],
        [10, 5, 50, 25],
        [[48, 24], [12, 24], [11, 6], [48, 6]],
    ]
    form = [("regions", (None, json.dumps(quads))), ("image", ("page.png", data))]
    encoded = base64.b64encode(data).decode()
    as_json = client.post("/read", json={"image": encoded, "regions": quads})
    for response in (client.post("/read", files=form), as_json):
        assert response.status_code == 200
        first, bad, third, last = response.json()["readings"]
        assert [one["text"] for one in (first, third, last)] == ["a", "c", "c"]
        assert bad["error"].startswith("region: expected a box from top left")


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


@pytest.mark.parametrize("others", [[], [b"junk"]])
def test_the_service_is_to_blame_where_nothing_is_read_as_the_network_fails(
    client, others
):
    form = [("image", data) for data in (png(POISON), *others)]
    assert client.post("/read", files=form).status_code == 500


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


PROBES = {"/livez", "/readyz", "/metrics"}


@pytest.mark.parametrize("token", [True, False])
def test_the_document_asks_for_a_token_where_the_service_does(token):
    document = openapi.document(Limits(images=5), token=token)
    everywhere = document.get("security", [])
    for path, methods in document["paths"].items():
        for operation in methods.values():
            asked = operation.get("security", everywhere)
            assert asked == ([{"token": []}] if token and path not in PROBES else [])


def test_the_document_says_how_many_images_may_be_sent():
    document = openapi.document(Limits(images=5), token=False)
    for path, most in (("/read", 5), ("/explain", 1)):
        operation = document["paths"][path]["post"]
        content = operation["requestBody"]["content"]
        form = content["multipart/form-data"]["schema"]["properties"]["image"]
        assert form["maxItems"] == most
        one, several = content["application/json"]["schema"]["oneOf"]
        assert several["properties"]["images"]["maxItems"] == most
        assert one["properties"]["regions"]["maxItems"] == most
    assert "more than one image" in operation["responses"]["400"]["description"]


def test_an_exported_network_says_that_it_cannot_explain(client):
    response = client.post("/explain", content=png(10), headers=PNG)
    assert response.status_code == 404 and "exported" in response.json()["error"]


ANSWERED = 'requests_total{status="200"}'
FAILED = 'requests_total{status="500"}'
READ = 'images_total{result="read"}'
UNREADABLE = 'images_total{result="unreadable"}'


def values(client: httpx.Client, *names: str) -> list[float]:
    """Returns what /metrics says of each; 0 where nothing was counted yet."""
    lines = client.get("/metrics").text.splitlines()
    pairs = (line.rpartition(" ") for line in lines if line[0] != "#")
    found = {name.removeprefix("robustscanner_"): value for name, _, value in pairs}
    return [float(found.get(name, 0)) for name in names]


def test_metrics_count_requests_images_and_batches(client):
    names = (ANSWERED, READ, UNREADABLE, "batch_images_sum")
    before = values(client, *names)
    client.post("/read", files=[("image", png(10)), ("image", b"junk")])
    assert values(client, *names) == [one + 1 for one in before]
    before = values(client, "request_seconds_count")
    read(client, png(10))
    assert values(client, "request_seconds_count") == [before[0] + 1]
    assert values(client, "queue_images", "queue_capacity_images") == [0, 256]


class Explaining(FakeReader):
    """Breaks where an image is of grey value 20."""

    def explain_view(self, view):
        if view.row[0][0, 0, 0] == 20:
            raise KeyError("a bug")
        names = ("hybrid_attention", "position_attention", "position_share")
        maps = SimpleNamespace(**{name: [[0.5]] for name in names})
        return self.read_rows([view.row])[0].in_view(view), maps


def test_a_failure_of_the_service_is_answered_in_json_logged_and_counted(
    monkeypatch, caplog
):
    with running(Explaining()) as (client, service):
        broken = client.post("/explain", content=png(20), headers=PNG)
        assert broken.status_code == 500
        assert broken.json() == {"error": "the service failed"}
        assert "KeyError: 'a bug'" in caplog.text and "Traceback" in caplog.text
        assert values(client, FAILED) == [1]
        monkeypatch.setattr(service.batcher, "read", lambda rows: 1 / 0)
        assert read(client, png(10)).json() == {"error": "the service failed"}
        assert values(client, FAILED) == [2]
        assert client.get("/livez").status_code == 200


def test_one_image_is_explained_and_more_are_refused():
    with running(Explaining()) as (client, _):
        form = [("image", (f"{value}.png", png(value))) for value in (10, 30)]
        assert client.post("/explain", files=form[:1]).json()["text"] == "a"
        both = client.post("/explain", files=form)
        assert both.status_code == 400
        assert both.json() == {"error": "expected one image or region, got 2"}
        assert values(client, READ) == [1]
        of_region = [*form[:1], ("regions", (None, "[[0, 0, 9, 9]]"))]
        assert client.post("/explain", files=of_region).json()["text"] == "a"


class SureOfBrightThatExplains(SureOfBright, Explaining):
    """Both."""


def test_tall_crops_are_read_turned_where_the_service_was_told_so():
    wide, tall = np.full((20, 60, 3), 30, np.uint8), np.full((60, 20, 3), 10, np.uint8)
    tall[:, 10:] = 80  # what is on top once it is turned to the left
    files = [cv2.imencode(".png", pixels)[1].tobytes() for pixels in (wide, tall, wide)]
    form = [("image", data) for data in [*files, b"junk"]]
    expected = {None: ("a", 0), 2.9: ("h", 90), 3.0: ("a", 0)}
    for rotate_tall, (text, angle) in expected.items():
        views = Views(rotate_tall=rotate_tall)
        with running(SureOfBrightThatExplains(), views=views) as (client, _):
            answer = client.post("/read", files=form)
            assert texts(answer) == ["c", text, "c", None]
            assert fields(answer, "angle") == [0, angle, 0, None]
            shown = client.post("/explain", content=files[1], headers=PNG)
            assert (shown.json()["text"], shown.json()["angle"]) == (text, angle)
            assert values(client, READ) == [4]


def test_unsure_crops_are_read_closer_where_the_service_was_told_so():
    pixels = np.full((40, 80, 3), 30, np.uint8)
    pixels[4:36, 4:76] = 70
    image = cv2.imencode(".png", pixels)[1].tobytes()
    sure = cv2.imencode(".png", np.full((40, 80, 3), 95, np.uint8))[1].tobytes()
    form = [("image", data) for data in (image, sure, b"junk", image)]
    for views, text, rows in ((AS_IT_IS, "c", 3), (Views(look_closer=True), "g", 7)):
        reader = SureOfBrightThatExplains()
        with running(reader, views=views) as (client, _):
            answer = client.post("/read", files=form)
            assert texts(answer) == [text, "h", None, text]
            closer = views.look_closer
            assert fields(answer, "closer") == [closer, False, None, closer]
            assert values(client, READ) == [3]
            assert values(client, "batch_images_sum") == [rows]
            shown = client.post("/explain", content=image, headers=PNG)
            assert (shown.json()["text"], shown.json()["closer"]) == (text, closer)


def test_what_explains_is_warmed_up_as_well():
    class Counting(Explaining):
        explained = 0

        def explain_view(self, view):
            self.explained += 1
            return super().explain_view(view)

    reader = Counting()
    with running(reader):
        assert reader.explained == 1


def test_the_service_answers_others_while_it_explains():
    reader = Explaining()
    with running(reader) as (client, _), ThreadPoolExecutor(1) as pool:
        reader.gate.clear()
        shown = pool.submit(client.post, "/explain", content=png(10), headers=PNG)
        wait_for(lambda: values(client, "queue_images") == [1])
        time.sleep(0.05)
        assert client.get("/livez", timeout=5).text == "alive\n"
        reader.gate.set()
        assert shown.result().json()["text"] == "a"


def test_images_that_are_explained_are_counted_as_well():
    with running(Explaining()) as (client, _):
        assert client.post("/explain", content=png(10), headers=PNG).json()["text"]
        bad = client.post("/explain", content=b"junk", headers=PNG)
        assert bad.status_code == 422
        assert values(client, ANSWERED, READ, UNREADABLE) == [1, 1, 1]


def test_a_live_network_is_served_as_it_reads(tmp_path):
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
