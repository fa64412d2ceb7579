"""Ask a server on this machine from many clients at once; print how long they waited.

    abair serve
    python benchmarks/load_server.py http://127.0.0.1:8000 photo.jpg --clients 32 --requests 200

Prints the 50th and 95th percentile of the seconds from a request to its answer, waiting after 429
included, the requests in a second, and the server's memory before and after.
"""

import argparse
import re
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from abair.client import Client


def memory(url: str) -> float:
    """Return the server's resident memory in MB, by its metrics; NaN where it tells none."""
    found = re.search(r"^process_resident_memory_bytes (\S+)", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    return float(found[1]) / 1e6 if found else float("nan")


def main() -> None:
    """Run the load and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("photo", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=200, help="of all clients together")
    given = parser.parse_args()
    if urlsplit(given.url).hostname not in {"127.0.0.1", "::1", "localhost"}:
        parser.error(f"found {given.url}, expected a server on this machine")
    photo = given.photo.read_bytes()
    local = threading.local()

    def ask(_: int) -> float:
        if not hasattr(local, "client"):
            local.client = Client(given.url, patience=600)
        started = time.perf_counter()
        local.client.restore(photo)
        return time.perf_counter() - started

    before, started = memory(given.url), time.perf_counter()
    with ThreadPoolExecutor(given.clients) as pool:
        seconds = list(pool.map(ask, range(given.requests)))
    spent = time.perf_counter() - started
    percentiles = statistics.quantiles(seconds, n=100, method="inclusive")
    print(f"{given.requests} requests by {given.clients} clients: {given.requests / spent:.2f} a second")
    print(f"seconds: 50th percentile {percentiles[49]:.2f}, 95th {percentiles[94]:.2f}, longest {max(seconds):.2f}")
    print(f"the server's memory: {before:.0f} MB before, {memory(given.url):.0f} MB after")


if __name__ == "__main__":
    main()
