"""Images per second and latency of the service on loopback, against no service at all.

Run: python -m benchmarks.serve --model=EXPORT --backend=openvino --clients=32

Starts the service in a process of its own, sends single images from that many clients
for some seconds, and reads the same images offline before and after. Both share the
same cores; the clients take a part of them.
"""

import argparse
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np

from robustscanner_jax.data.images import decode_image
from robustscanner_jax.inference import load_artefact
from robustscanner_jax.preprocessing import resize_and_pad

SERVER = """
import logging, sys
from robustscanner_jax.inference import load_artefact
from robustscanner_jax.serving.server import run_server
logging.basicConfig(level=logging.INFO)
folder, backend, precision, batch = sys.argv[1:]
run_server(
    load_artefact(folder, backend, precision=precision, batch_size=int(batch)), port=0
)
"""


def offline_rate(arguments: argparse.Namespace, images: list[bytes]) -> float:
    """Returns images per second of the backend alone, from files to texts."""
    reader = load_artefact(
        arguments.model,
        arguments.backend,
        precision=arguments.precision,
        batch_size=arguments.batch,
    )
    batch = arguments.batch
    seconds = 0.0
    for turn in range(3):
        start = time.perf_counter()
        for i in range(0, len(images), batch):
            rows = [
                resize_and_pad(decode_image(data), reader.preprocessing)
                for data in images[i : i + batch]
            ]
            reader.read_rows(rows)
        if turn:  # the first one warms up
            seconds += time.perf_counter() - start
    return 2 * len(images) / seconds


def served_rate(
    arguments: argparse.Namespace, images: list[bytes]
) -> tuple[float, np.ndarray, float]:
    """Returns images per second, all latencies in seconds, and SIGTERM to exit."""
    command = [sys.executable, "-c", SERVER, arguments.model, arguments.backend]
    command += [arguments.precision, str(arguments.batch)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    url = next(line.split()[-1] for line in process.stderr if "listening on" in line)
    threading.Thread(target=process.stderr.read, daemon=True).start()
    while httpx.get(f"{url}/readyz").status_code != 200:
        time.sleep(0.1)
    start = time.perf_counter()
    begin, end = start + 1.0, start + 1.0 + arguments.seconds
    latencies: list[float] = []

    def send(number: int) -> None:
        headers = {"Content-Type": "image/jpeg"}
        with httpx.Client(base_url=url, timeout=60, headers=headers) as client:
            while time.perf_counter() < end:
                number += 1
                sent = time.perf_counter()
                answer = client.post("/read", content=images[number % len(images)])
                answer.raise_for_status()
                if begin < time.perf_counter() < end:
                    latencies.append(time.perf_counter() - sent)

    threads = [
        threading.Thread(target=send, args=(7 * n,)) for n in range(arguments.clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stopped = time.perf_counter()
    process.terminate()
    if process.wait(60):
        raise RuntimeError(f"the service ended with {process.returncode}")
    rate = len(latencies) / arguments.seconds
    return rate, np.array(latencies), time.perf_counter() - stopped


def main() -> None:
    """Prints one row of a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", required=True, help="folder of .jpg files")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    paths = sorted(Path(arguments.images).rglob("*.jpg"))[:128]
    images = [path.read_bytes() for path in paths]
    offline = offline_rate(arguments, images)
    rate, latencies, leave = served_rate(arguments, images)
    # Before and after: other programs may have come or gone.
    offline = (offline + offline_rate(arguments, images)) / 2
    p50, p99 = 1000 * np.quantile(latencies, (0.5, 0.99))
    columns = ("backend", "clients", "offline images/s", "served images/s", "share")
    columns += ("p50 ms", "p99 ms", "SIGTERM to exit s")
    values = (f"{arguments.backend} {arguments.precision}", str(arguments.clients))
    values += (f"{offline:.1f}", f"{rate:.1f}", f"{rate / offline:.0%}")
    values += (f"{p50:.0f}", f"{p99:.0f}", f"{leave:.1f}")
    for cells in (columns, ("---",) + ("---:",) * (len(columns) - 1), values):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
