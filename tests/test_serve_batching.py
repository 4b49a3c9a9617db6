"""The HTTP service: warm-up, batches, a full queue, deadlines."""

import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from exported import needs

needs("starlette", "uvicorn", "httpx", "python_multipart", "prometheus_client")

from served import FakeReader, png, read, running, texts, together, wait_for  # noqa: E402

from robustscanner_jax.serving.batching import Batcher  # noqa: E402
from robustscanner_jax.serving.measures import Measures  # noqa: E402


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


def test_requests_at_the_same_time_share_a_batch():
    reader = FakeReader(batch_size=8)
    with running(reader, batch_delay_seconds=0.3) as (client, _):
        reader.sizes.clear()
        answers = together(client, 8)
        assert [texts(answer.result()) for answer in answers] == [["a"]] * 8
        assert reader.sizes == [8]


@pytest.mark.parametrize("largest", [8, 6])
def test_batches_have_the_sizes_that_were_warmed_up(largest):
    reader = FakeReader(batch_size=largest)
    with running(reader, batch_delay_seconds=0.2) as (client, _):
        warm = set(reader.sizes)
        for count in (3, 5, 6):
            [texts(answer.result()) for answer in together(client, count)]
        assert set(reader.sizes) <= warm == {1, 2, 4, largest}


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


def test_a_request_takes_a_place_in_the_queue_for_each_of_its_images():
    reader = FakeReader(batch_size=8)
    with running(reader, queue_images=4, images=4) as (client, service):
        reader.gate.clear()
        form = [("image", png(value)) for value in (10, 20, 30)]
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.post, "/read", files=form)
            wait_for(lambda: service.batcher._admitted == 3)
            response = client.post("/read", files=form[:2])
            reader.gate.set()
            assert response.status_code == 503
            assert "3 of 4 images are waiting" in response.json()["error"]
            assert texts(waiting.result()) == ["a", "b", "c"]


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


@contextlib.asynccontextmanager
async def batching(read_rows, *, batch_size=4, delay=0.0):
    """Yields a batcher whose rows may be anything that `read_rows` takes."""
    batcher = Batcher(
        read_rows,
        batch_size=batch_size,
        capacity=100,
        delay=delay,
        measures=Measures(),
    )
    batcher.start()
    try:
        yield batcher
    finally:
        await batcher.close()


def test_a_batch_never_has_more_rows_than_its_size():
    sizes = []

    def read_rows(rows):
        sizes.append(len(rows))
        return rows

    async def act():
        async with batching(read_rows, delay=0.01) as batcher:
            return await batcher.read(list(range(10)))

    assert asyncio.run(act()) == list(range(10))
    assert sizes == [4, 4, 2]


def test_rows_that_come_later_do_not_put_off_a_batch():
    async def act():
        async with batching(list, batch_size=100, delay=0.1) as batcher:
            first = asyncio.create_task(batcher.read([0]))
            others = []
            while not first.done() and len(others) < 50:
                others.append(asyncio.create_task(batcher.read([0])))
                await asyncio.sleep(0.02)
            await asyncio.wait_for(asyncio.gather(first, *others), 10)
            return len(others)

    assert asyncio.run(act()) < 40


def test_the_end_waits_for_every_admitted_row():
    gate = threading.Event()

    def read_rows(rows):
        assert gate.wait(10)
        return rows

    async def act():
        async with batching(read_rows, batch_size=1) as batcher:

            async def answer(row):
                with batcher.admitted(1):
                    return await batcher.read([row])

            waiting = [asyncio.create_task(answer(row)) for row in range(3)]
            await asyncio.sleep(0.01)
            asyncio.get_running_loop().call_later(0.05, gate.set)
        return await asyncio.wait_for(asyncio.gather(*waiting), 5)

    assert asyncio.run(act()) == [[0], [1], [2]]


def test_nothing_else_runs_where_a_batch_is_computed():
    running_now, most = 0, 0

    def compute(rows):
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        time.sleep(0.02)
        running_now -= 1
        return rows

    async def act():
        async with batching(compute) as batcher:
            others = [batcher.in_thread(lambda: compute([])) for _ in range(3)]
            await asyncio.gather(batcher.read([0]), *others, batcher.read([0]))

    asyncio.run(act())
    assert most == 1
