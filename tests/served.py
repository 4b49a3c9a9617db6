"""A service on a free port of this machine, with a reader that tests can hold up."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import httpx
import numpy as np
from exported import RULE
from helpers import CHARSET

from robustscanner_jax.reading import DecodedRows, Reader
from robustscanner_jax.serving.limits import Limits
from robustscanner_jax.serving.server import Server, listen
from robustscanner_jax.serving.service import Service
from robustscanner_jax.views import AS_IT_IS

POISON = 13  # grey value that makes a batch fail
PNG = {"Content-Type": "image/png"}


class FakeReader(Reader):
    """Reads the grey value of the upper left pixel: 10 is "a", 20 is "b".

    Attributes:
      gate: computation waits while it is cleared.
      sizes: of the batches computed so far.
    """

    def __init__(self, batch_size: int = 8, seconds: float = 0.0):
        self.charset, self.preprocessing = CHARSET, RULE
        self.batch_size = batch_size
        self.gate = threading.Event()
        self.gate.set()
        self.sizes = []
        self.seconds = seconds

    def decode(self, image, width):
        self.gate.wait(20)
        time.sleep(self.seconds)
        self.sizes.append(len(image))
        values = image[:, 0, 0, 0].astype(int)
        if POISON in values:
            raise RuntimeError("poisoned")
        ids = np.full((len(image), 6), CHARSET.pad_id, np.int32)
        ids[:, 0] = np.clip(np.round(values / 10).astype(int) - 1, 0, 7)
        ids[:, 1] = CHARSET.end_id
        probabilities = np.ones((len(image), 6), np.float32)
        probabilities[:, 0] = 0.75
        return DecodedRows(ids, probabilities)


class SureOfBright(FakeReader):
    """Is the surer the brighter the upper left pixel."""

    def decode(self, image, width):
        decoded = super().decode(image, width)
        decoded.probabilities[:, 0] = image[:, 0, 0, 0] / 100
        return decoded


def png(value: int, size: tuple[int, int] = (16, 32)) -> bytes:
    """Returns the file of an image of one grey value."""
    return cv2.imencode(".png", np.full((*size, 3), value, np.uint8))[1].tobytes()


@contextlib.contextmanager
def running(reader, *, token=None, views=AS_IT_IS, wait_ready=True, **limits):
    """Yields a client of a service in another thread, and the service."""
    limits = {"drain_seconds": 0.0} | limits
    service = Service(reader, limits=Limits(**limits), token=token, views=views)
    server = Server(service)
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread.start()
    try:
        with httpx.Client(base_url=url, timeout=20) as client:
            while wait_ready and client.get("/readyz").status_code != 200:
                time.sleep(0.01)
            yield client, service
    finally:
        reader.gate.set()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def read(client, data, **headers):
    """Returns the response to one image."""
    return client.post("/read", content=data, headers=PNG | headers)


def texts(response):
    """Returns the texts of an answer; None where an image could not be read."""
    return fields(response, "text")


def fields(response, name):
    """Returns a field of each reading; None where an image could not be read."""
    assert response.status_code == 200, response.text
    return [one.get(name) for one in response.json()["readings"]]


def together(client, count):
    """Returns the futures of `count` requests sent at once."""
    pool = ThreadPoolExecutor(count)
    return [pool.submit(read, client, png(10)) for _ in range(count)]


def wait_for(condition):
    """Returns when the condition holds; fails after ten seconds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
