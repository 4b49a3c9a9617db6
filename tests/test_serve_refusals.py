"""The HTTP service: what it refuses, and with which words."""

import base64
import io
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from exported import needs
from PIL import Image

needs("starlette", "uvicorn", "httpx", "python_multipart", "prometheus_client")

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

from robustscanner_jax.serving import decoding  # noqa: E402
from robustscanner_jax.serving import service as service_module  # noqa: E402
from robustscanner_jax.serving.decoding import (  # noqa: E402
    Rule,
    check_scans,
    crops_of,
)
from robustscanner_jax.serving.limits import Limits  # noqa: E402
from robustscanner_jax.serving.requests import order_of  # noqa: E402
from robustscanner_jax.serving.server import listen  # noqa: E402


@pytest.fixture(scope="module")
def service():
    with running(FakeReader(), images=4, body_bytes=20_000, pixels=10_000) as served:
        yield served


@pytest.fixture(scope="module")
def client(service):
    return service[0]


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


def test_as_many_images_as_allowed_are_read(client):
    images = [png(value) for value in (10, 20, 30, 40)]
    form = [("image", data) for data in images]
    encoded = [base64.b64encode(data).decode() for data in images]
    for answer in (
        client.post("/read", files=form),
        client.post("/read", json={"images": encoded}),
    ):
        assert texts(answer) == ["a", "b", "c", "d"]


def test_the_type_of_a_body_is_read_in_any_case(client):
    assert texts(read(client, png(10), **{"Content-Type": "IMAGE/PNG"})) == ["a"]


@pytest.mark.parametrize("left_out", [1, 2, 3, 40])
def test_a_form_that_is_cut_short_is_refused(client, left_out):
    body = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
    body += png(10) + b"\r\n--x--"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert texts(client.post("/read", content=body, headers=headers)) == ["a"]
    answer = client.post("/read", content=body[:-left_out], headers=headers)
    assert answer.status_code == 400
    assert answer.json() == {"error": "the form is cut short"}


def test_a_part_of_a_form_without_headers_is_no_file(client):
    part = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
    body = part + png(10) + b"\r\n--x\r\n\r\nrest\r\n--x--"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/read", content=body, headers=headers)
    assert answer.status_code == 400
    assert "expected files and regions" in answer.json()["error"]


def test_every_region_of_an_unreadable_page_says_why(client):
    regions = ("regions", (None, json.dumps([[0, 0, 9, 9]] * 3)))
    answer = client.post("/read", files=[("image", b"junk"), regions])
    assert answer.status_code == 422
    assert answer.json()["readings"] == [{"error": "not an image (4 bytes)"}] * 3


def test_a_bug_of_a_decoder_costs_one_image_and_is_logged(client, monkeypatch, caplog):
    def decode(data, *, max_pixels):
        if data == b"odd":
            raise RuntimeError("a bug")
        return decode_image(data, max_pixels=max_pixels)

    decode_image = decoding.decode_image
    monkeypatch.setattr(decoding, "decode_image", decode)
    form = [("image", png(10)), ("image", b"odd")]
    good, bad = client.post("/read", files=form).json()["readings"]
    assert good["text"] == "a" and bad == {"error": "the image cannot be decoded"}
    assert "a bug" in caplog.text


@pytest.mark.parametrize(
    ("regions", "images", "status", "message"),
    [
        ([[0, 0, 9, 9]], 2, 400, "regions need one image, got 2"),
        ([[0, 0, 9, 9]] * 5, 1, 413, "5 regions, expected at most 4 a request"),
        ([], 1, 400, "expected regions as a list of at least one list of points"),
        (None, 1, 400, "expected regions as a list"),
        ({"points": [0, 0, 9, 9]}, 1, 400, "expected regions as a list"),
        ("[[0", 1, 400, "expected regions as a list"),
        ([[0, 0, 9]], 1, 422, "region: expected two corners"),
        ([None], 1, 422, "region: expected two corners"),
        ([[90, 90, 99, 99]], 1, 422, "outside of the page of 80 x 48 pixels"),
        ([[[0, 0], [1e5, 1], [1e5, 1e5], [0, 1e5]]], 1, 422, "far larger than the"),
    ],
)
def test_regions_that_cannot_be_read_get_one_sentence(
    client, regions, images, status, message
):
    text = regions if isinstance(regions, str) else json.dumps(regions)
    form = [("image", png(10, (48, 80)))] * images + [("regions", (None, text))]
    answers = [client.post("/read", files=form)]
    if images == 1:
        image = base64.b64encode(png(10, (48, 80))).decode()
        body = {"image": image, "regions": regions}
        answers.append(client.post("/read", json=body))
    for answer in answers:
        assert answer.status_code == status
        fields = answer.json()
        found = fields.get("error", fields.get("readings", [{}])[0].get("error"))
        assert message in found


@pytest.mark.parametrize("name", ["rotate", "regions"])
def test_another_field_of_a_form_is_refused(client, name):
    regions = ("regions", (None, "[[0, 0, 9, 9]]"))
    form = [("image", png(10, (48, 80))), regions, (name, (None, "90"))]
    answer = client.post("/read", files=form)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("expected files and regions in the form")


def test_regions_that_cover_a_page_many_times_are_not_all_cut_out(client):
    data = png(10, (48, 80))
    form = [("image", data), ("regions", (None, json.dumps([[0, 0, 80, 48]] * 4)))]
    assert texts(client.post("/read", files=form)) == ["a"] * 4
    rule = Rule(FakeReader().preprocessing, max_pixels=10_000)
    crops = crops_of(data, [[0, 0, 80, 48]] * 7, rule)
    assert [isinstance(crop, str) for crop in crops] == [False] * 5 + [True] * 2
    assert crops[-1] == "the regions before cover 4 times the page"


def test_regions_nested_as_deep_as_json_goes_are_refused_in_one_sentence(client):
    image = base64.b64encode(png(10)).decode()
    for depth in (900, 980, 985, 990, 995, 5_000):
        nested = "[" * depth + "]" * depth
        body = f'{{"image": "{image}", "regions": {nested}}}'.encode()
        headers = {"Content-Type": "application/json"}
        answer = client.post("/read", content=body, headers=headers)
        assert answer.status_code in (400, 422)


def test_images_in_json_are_counted_before_they_are_decoded(client):
    response = client.post("/read", json={"images": ["*"] * 5})
    assert response.json() == {"error": "5 images, expected at most 4 a request"}


def test_a_long_body_is_parsed_beside_the_event_loop(monkeypatch):
    parsing, gate = threading.Event(), threading.Event()

    def slowly(*given):
        parsing.set()
        assert gate.wait(10)
        return order_of(*given)

    monkeypatch.setattr(service_module, "order_of", slowly)
    text = base64.b64encode(png(10)).decode()
    with running(FakeReader()) as (client, _):
        with ThreadPoolExecutor(1) as pool:
            body = json.dumps({"image": text}).encode() + b" " * 2**20
            headers = {"Content-Type": "application/json"}
            answer = pool.submit(client.post, "/read", content=body, headers=headers)
            assert parsing.wait(10)
            assert client.get("/livez", timeout=5).text == "alive\n"
            gate.set()
            assert texts(answer.result()) == ["a"]


def progressive(scans: int) -> bytes:
    """Returns a JPEG of grey value 10 whose last scan is repeated."""
    file = io.BytesIO()
    Image.new("RGB", (32, 16), (10, 10, 10)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + data[-2:]


def test_a_jpeg_of_very_many_scans_fails_alone_and_undecoded(client):
    usual, most = progressive(10), progressive(100)
    form = [("image", data) for data in (usual, most, progressive(101))]
    *good, bad = client.post("/read", files=form).json()["readings"]
    assert [one["text"] for one in good] == ["a", "a"]
    assert bad == {"error": "a JPEG of over 100 scans"}


def test_the_marker_of_a_scan_means_nothing_where_no_decoder_looks(client):
    """In another format, in a JPEG's metadata, and behind its end: a phone's film."""
    marks = b"\xff\xda" * 200
    jpeg = progressive(10)
    metadata = b"\xff\xe1" + (len(marks) + 2).to_bytes(2) + marks
    for data in (png(10) + marks, jpeg + marks, jpeg[:2] + metadata + jpeg[2:]):
        assert texts(read(client, data)) == ["a"]


def test_a_jpeg_of_markers_alone_is_refused_at_once():
    with pytest.raises(ValueError, match="over 10,000 markers"):
        check_scans(b"\xff\xd8" + b"\xff\x01" * 8_000_000)


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


def test_the_line_feed_that_ends_a_token_is_not_asked_for():
    with running(FakeReader(), token=" t\r\n") as (client, _):
        assert texts(read(client, png(10), Authorization="Bearer t")) == ["a"]


@pytest.mark.parametrize("token", [" \n", "geheim-ß", "two\nlines", "\x00"])
def test_a_token_that_no_client_can_send_is_refused(token):
    with pytest.raises(ValueError, match="token: expected printable ASCII") as caught:
        service_module.Service(FakeReader(), limits=Limits(), token=token)
    assert token not in str(caught.value)


def test_an_empty_token_lets_all_in():
    with running(FakeReader(), token="") as (client, _):
        assert texts(read(client, png(10))) == ["a"]


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
        ({"drain_seconds": -1.0}, "limit drain_seconds: expected at least 0, got -1"),
        ({"deadline_seconds": float("inf")}, "deadline_seconds: expected at most"),
        ({"body_seconds": 1e308}, "limit body_seconds: expected at most"),
    ],
)
def test_limits_that_cannot_work_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        Limits(**limits)


def test_a_refused_request_leaves_its_place_and_its_memory_to_the_next():
    good = png(10)
    limits = {"connections": 1, "memory_bytes": len(good), "body_bytes": len(good)}
    with running(FakeReader(), **limits) as (client, _):
        for body, kind, status in (
            (b"x", "text/plain", 415),
            (good + b"x", "image/png", 413),
            (b"junk", "image/png", 422),
        ):
            refused = read(client, body, **{"Content-Type": kind})
            assert refused.status_code == status
            assert texts(read(client, good)) == ["a"]


def in_pieces(data: bytes):
    """Yields a body whose length the client does not say."""
    yield data[:9]
    yield data[9:]


@pytest.mark.parametrize("as_sent", [bytes, in_pieces])
def test_a_body_exactly_as_long_as_allowed_is_read(as_sent):
    data = png(10)
    limits = {"memory_bytes": len(data), "body_bytes": len(data)}
    with running(FakeReader(), **limits) as (client, _):
        assert texts(read(client, as_sent(data))) == ["a"]
        longer = read(client, as_sent(data + b"x"))
        assert longer.status_code == 413


def test_a_body_without_a_length_holds_the_memory_of_the_longest():
    reader, data = FakeReader(), png(10)
    limits = {"memory_bytes": 10 * len(data), "body_bytes": 6 * len(data)}
    with running(reader, **limits) as (client, service):
        reader.gate.clear()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(read, client, in_pieces(data))
            wait_for(lambda: service.batcher._admitted == 1)
            response = read(client, in_pieces(data))
            reader.gate.set()
            assert response.status_code == 503
            assert "too many bodies" in response.json()["error"]
            assert texts(waiting.result()) == ["a"]


def test_an_address_in_use_gives_one_sentence():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1 port {port}"):
            listen("127.0.0.1", port)
