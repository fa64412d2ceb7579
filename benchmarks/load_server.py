"""Ask servers on this machine from many clients at once; print how long they waited.

    abair serve
    python benchmarks/load_server.py http://127.0.0.1:8000 photo.jpg --clients 32 --requests 200
    python benchmarks/load_server.py http://127.0.0.1:8000 --side 64 128 --requests 2000

Several addresses, with commas between them, are asked in turn, as by a proxy. Without a photo,
`--side` makes noisy ones; two numbers are the least and the greatest side, in steps of 16.

Prints the 50th and 95th percentile of the seconds from a request to its answer, waiting after 429
included, the requests in a second, and the servers' memory before, after each tenth and at the end.
"""

import argparse
import io
import re
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
from PIL import Image

from abair.client import Client
from abair.labels import parse_weights


def memory(url: str) -> float:
    """Return a server's resident memory in MB, by its metrics; NaN where it tells none."""
    found = re.search(r"^process_resident_memory_bytes (\S+)", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    return float(found[1]) / 1e6 if found else float("nan")


def noise(number: int, sides: Sequence[int]) -> bytes:
    """Return a PNG file of a noisy photo; its sides lie between the least and the greatest."""
    random = np.random.default_rng(number)
    height, width = random.choice(range(min(sides), max(sides) + 1, 16), 2)
    pixels = random.normal(128, 30, (height, width, 3)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def main() -> None:
    """Run the load and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", help="one, or several with commas between them")
    parser.add_argument("photo", type=Path, nargs="?")
    parser.add_argument("--side", type=int, nargs="+", default=[256], help="of made photos, in pixels; or two limits")
    parser.add_argument("--weights", help="such as noise=1, so that nothing is estimated")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=200, help="of all clients together")
    given = parser.parse_args()
    urls = given.urls.split(",")
    for url in urls:
        if urlsplit(url).hostname not in {"127.0.0.1", "::1", "localhost"}:
            parser.error(f"found {url}, expected a server on this machine")
    photo = given.photo.read_bytes() if given.photo else None
    weights = parse_weights(given.weights) if given.weights else None
    clients = [Client(url, patience=600) for url in urls]
    used = [[memory(url)] for url in urls]

    def ask(number: int) -> float:
        sent = noise(number, given.side) if photo is None else photo
        started = time.perf_counter()
        clients[number % len(clients)].restore(sent, weights=weights)
        taken = time.perf_counter() - started
        if (number + 1) % max(1, given.requests // 10) == 0:
            for url, told in zip(urls, used, strict=True):
                told.append(memory(url))
        return taken

    started = time.perf_counter()
    with ThreadPoolExecutor(given.clients) as pool:
        seconds = list(pool.map(ask, range(given.requests)))
    spent = time.perf_counter() - started
    percentiles = statistics.quantiles(seconds, n=100, method="inclusive")
    print(f"{given.requests} requests by {given.clients} clients: {given.requests / spent:.2f} a second")
    print(f"seconds: 50th percentile {percentiles[49]:.2f}, 95th {percentiles[94]:.2f}, longest {max(seconds):.2f}")
    for url, told in zip(urls, used, strict=True):
        print(f"memory of {url} in MB: {', '.join(f'{one:.0f}' for one in [*told, memory(url)])}")


if __name__ == "__main__":
    main()
