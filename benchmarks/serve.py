"""The service on loopback against the same backend without a service.

Run: python -m benchmarks.serve --model=EXPORT --backend=openvino

Cores are split: the clients have the last one, and the reader without a service and the
service have all the others, in turns. Each pair of turns gives one share of the offline
rate; the median counts. Where other programs run as well, the share by CPU time counts:
images per second that the process computed, not per second that passed. Then the queue
is full, and then SIGTERM comes, both under the load of all clients.
"""

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import httpx
import numpy as np

from robustscanner_jax.data.images import decode_image
from robustscanner_jax.data.rendered import open_named
from robustscanner_jax.data.transforms import pixels_of
from robustscanner_jax.inference import load_artefact
from robustscanner_jax.preprocessing import resize_and_pad

IMAGES = "rendered:full?seed=9&count=128&split=heldout"
JPEG = {"Content-Type": "image/jpeg"}
WARM_UP_SECONDS = 1.0
READ_OFFLINE = "import sys, benchmarks.serve as b; b.read_offline(*sys.argv[1:])"


def read_offline(
    folder: str, model: str, backend: str, precision: str, batch: str
) -> None:
    """Answers each line on standard input, seconds, with count and seconds it took.

    From files in memory to texts, in full batches.
    """
    images = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    size = int(batch)
    reader = load_artefact(model, backend, precision=precision, batch_size=size)
    for line in sys.stdin:
        count, start = 0, time.perf_counter()
        while (passed := time.perf_counter() - start) < float(line):
            chunk = [images[(count + i) % len(images)] for i in range(size)]
            pixels = map(decode_image, chunk)
            reader.read_rows(
                [resize_and_pad(one, reader.preprocessing) for one in pixels]
            )
            count += size
        print(count, passed, flush=True)


class Rate(NamedTuple):
    """Images per second, and per second of the process's CPU time, all threads."""

    wall: float
    cpu: float


def cpu_seconds(process: subprocess.Popen) -> float:
    """Returns the CPU time of a running process so far, user and system."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


class Offline:
    """The backend without a service, in a process that waits between its turns."""

    def __init__(self, arguments: argparse.Namespace, folder: str, pin: Callable):
        given = (arguments.model, arguments.backend, arguments.precision)
        self.process = subprocess.Popen(
            [sys.executable, "-c", READ_OFFLINE, folder, *given, str(arguments.batch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=pin,
        )

    def rate(self, seconds: float) -> Rate:
        """Returns the rate over so many seconds."""
        assert self.process.stdout is not None
        before = cpu_seconds(self.process)
        print(seconds, file=self.process.stdin, flush=True)
        count, passed = map(float, self.process.stdout.readline().split())
        return Rate(count / passed, count / (cpu_seconds(self.process) - before))


@contextlib.contextmanager
def served(arguments: argparse.Namespace, pin: Callable) -> Iterator[tuple]:
    """Yields the process of a service that is ready, and its address."""
    command = [sys.executable, "-m", "robustscanner_jax.serving", "--port=0"]
    command += [f"--model={arguments.model}", f"--backend={arguments.backend}"]
    command += [f"--precision={arguments.precision}", f"--batch-size={arguments.batch}"]
    # As long as there are clients: one more finds it full.
    command += [f"--queue-images={arguments.clients}", f"--images={arguments.batch}"]
    command += ["--deadline-seconds=60"]  # other programs may take most of a core
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=pin
    )
    try:
        assert process.stderr is not None
        url = next(line.split()[-1] for line in process.stderr if "listening" in line)
        threading.Thread(target=process.stderr.read, daemon=True).start()
        while httpx.get(f"{url}/readyz").status_code != 200:
            time.sleep(0.1)
        yield process, url
    finally:
        process.terminate()
        process.wait(60)


class Load:
    """Clients that send single images one after the other until they are stopped.

    Attributes:
      answers: (when it came, seconds that it took) of each answer.
      lost: what went wrong, but for a service that does not listen any more.
    """

    def __init__(self, url: str, images: list[bytes], clients: int):
        self._url, self._images = url, images
        self._stopping = threading.Event()
        self.answers: list[tuple[float, float]] = []
        self.lost: list[str] = []
        self._threads = [
            threading.Thread(target=self._send, args=(7 * n,)) for n in range(clients)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        self.join()

    def join(self) -> None:
        """Waits until every client has left."""
        for thread in self._threads:
            thread.join()

    def _send(self, number: int) -> None:
        connection = "new"
        with httpx.Client(base_url=self._url, timeout=60, headers=JPEG) as client:
            while not self._stopping.is_set():
                number += 1
                sent = time.perf_counter()
                image = self._images[number % len(self._images)]
                try:
                    answer = client.post("/read", content=image)
                except httpx.ConnectError:
                    return
                except httpx.HTTPError as error:
                    self.lost.append(f"{error!r} on a {connection} connection")
                    return
                came = time.perf_counter()
                closed = answer.headers.get("Connection") == "close"
                connection = "new" if closed else "reused"
                if answer.status_code == 200:
                    self.answers.append((came, came - sent))
                elif answer.status_code == 503:  # said at once: not lost, come again
                    time.sleep(0.1)
                else:
                    self.lost.append(f"status {answer.status_code}")


def served_rate(
    process: subprocess.Popen, load: Load, seconds: float
) -> tuple[Rate, list[float]]:
    """Returns the rate and all latencies in seconds, after a warm-up."""
    time.sleep(WARM_UP_SECONDS)
    begin, before = time.perf_counter(), cpu_seconds(process)
    time.sleep(seconds)
    end, after = time.perf_counter(), cpu_seconds(process)
    found = [took for came, took in list(load.answers) if begin < came <= end]
    rate = Rate(len(found) / (end - begin), len(found) / (after - before))
    return rate, found


def refusals(url: str, image: bytes, seconds: float) -> list[float]:
    """Returns the seconds that a client more waits for each 503."""
    found = []
    end = time.perf_counter() + seconds
    with httpx.Client(base_url=url, timeout=60, headers=JPEG) as client:
        while (sent := time.perf_counter()) < end:
            if client.post("/read", content=image).status_code == 503:
                found.append(time.perf_counter() - sent)
            time.sleep(0.02)
    return found


def stop(process: subprocess.Popen, load: Load) -> float:
    """Sends SIGTERM under load; returns the seconds until the service has left."""
    start = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    load.join()
    if status := process.wait(60):
        raise RuntimeError(f"the service ended with {status}")
    return time.perf_counter() - start


def print_row(
    arguments: argparse.Namespace,
    pairs: list[tuple[Rate, Rate]],
    latencies: list[float],
) -> None:
    """Prints rates, shares and latencies as a table."""

    def share(kind: str) -> str:
        found = [getattr(on, kind) / getattr(off, kind) for off, on in pairs]
        return f"{statistics.median(found):.0%} ({min(found):.0%}-{max(found):.0%})"

    p50, p99 = 1000 * np.quantile(latencies, (0.5, 0.99))
    cells = {
        "backend": f"{arguments.backend} {arguments.precision}",
        "offline images/s": f"{statistics.median(off.wall for off, _ in pairs):.1f}",
        "served images/s": f"{statistics.median(on.wall for _, on in pairs):.1f}",
        "share": share("wall"),
        "share by CPU time": share("cpu"),
        "p50 ms": f"{p50:.0f}",
        "p99 ms": f"{p99:.0f}",
    }
    for row in (cells, ["---"] + ["---:"] * (len(cells) - 1), cells.values()):
        print(f"| {' | '.join(row)} |")


def measure(arguments: argparse.Namespace, folder: str, pin: Callable) -> None:
    """Measures and prints everything."""
    images = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    offline = Offline(arguments, folder, pin)
    pairs: list[tuple[Rate, Rate]] = []
    latencies: list[float] = []
    try:
        offline.rate(WARM_UP_SECONDS)
        with served(arguments, pin) as (process, url):
            for _ in range(arguments.pairs):
                alone = offline.rate(arguments.seconds)
                with Load(url, images, arguments.clients) as load:
                    rate, found = served_rate(process, load, arguments.seconds)
                if load.lost:
                    raise RuntimeError(f"{len(load.lost)} lost, {load.lost[0]}")
                pairs.append((alone, rate))
                latencies += found
            with Load(url, images, arguments.clients) as load:
                time.sleep(WARM_UP_SECONDS)
                refused = 1000 * np.array(refusals(url, images[0], arguments.seconds))
                leave = stop(process, load)
    finally:
        offline.process.kill()
        offline.process.wait()
    print_row(arguments, pairs, latencies)
    p50, p99 = np.quantile(refused, (0.5, 0.99))
    print(f"queue full: {len(refused)} answers 503, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    print(f"SIGTERM under load: left after {leave:.1f} s, {len(load.lost)} lost")
    print(*load.lost, sep="\n", end="\n" * bool(load.lost))


def main() -> None:
    """Splits the cores and measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder of an export")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0, help="of one turn")
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    *cores, last = sorted(os.sched_getaffinity(0))
    if not cores:
        parser.error("needs two cores: one for the clients")
    print(f"service on cores {cores}, {arguments.clients} clients on core {last}")
    os.sched_setaffinity(0, {last})
    with tempfile.TemporaryDirectory() as folder:
        words = open_named(IMAGES)
        for number in range(len(words)):
            path = Path(folder, f"{number:03d}.jpg")
            cv2.imwrite(str(path), pixels_of(words[number]))
        measure(arguments, folder, pin=lambda: os.sched_setaffinity(0, cores))


if __name__ == "__main__":
    main()
