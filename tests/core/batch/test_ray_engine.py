"""Ray's workers: same pixels, no photo lost with a worker or a node, one row for a photo that kills."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from abair.batch.photo import Choices
from abair.batch.ray_engine import Bundle, restore
from abair.batch.worker import Orders, Task
from abair.cli.console import explain

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.xdist_group("ray")]
ray = pytest.importorskip("ray", reason="get it with: pip install '.[ray]'")

ORDERS = Orders(Choices(), "/", False, explain)


class SlowStub:
    """Stands in for a restorer: inverts after a while, and tells of each photo by a file in a folder."""

    def __init__(self, log: Path, *, deadly: int | None = None, seconds: float = 0.2) -> None:
        self.log, self.deadly, self.seconds = log, deadly, seconds

    def load(self) -> SlowStub:
        return self

    def __call__(self, image: np.ndarray, **options: Any) -> Any:
        number = int(image[0, 0, 0])
        with (self.log / str(number)).open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(self.seconds)
        if number == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return SimpleNamespace(
            image=255 - image, weights={"clean": 1.0}, policy="soft", quality="standard", deployment="stub",
            seconds=self.seconds, megapixels=0.0, confidence=None, unknown=None, warnings=(), further_looks=(),
        )  # fmt: skip


@pytest.fixture(autouse=True)
def _stub_goes_to_workers() -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # they cannot import this file


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


@pytest.fixture
def one_node() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # "local": not the cluster of another program on this machine
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
    yield
    ray.shutdown()


def tasks(folder: Path, count: int) -> list[Task]:
    from PIL import Image

    (folder / "in").mkdir()
    made = []
    for number in range(count):
        source = folder / "in" / f"{number:03}.png"
        Image.new("RGB", (8, 8), (number, 0, 0)).save(source)
        made.append(Task(number, str(source), str(folder / "out" / source.name), True))
    return made


def check(done: list[dict[str, Any]], planned: list[Task], *, without: tuple[int, ...] = ()) -> None:
    from PIL import Image

    assert [record["input"] for record in done] == [task.source for task in planned]
    for number, (record, task) in enumerate(zip(done, planned, strict=True)):
        if number not in without:
            assert "error" not in record, record
            with Image.open(task.target) as image:
                assert image.getpixel((0, 0)) == (255 - number, 255, 255)
    # who is killed while it writes leaves a hidden file, which is nobody's input
    left = [path.name for path in Path(planned[0].target).parent.iterdir() if not path.name.startswith(".abair-")]
    assert sorted(left) == [Path(task.target).name for number, task in enumerate(planned) if number not in without]


@pytest.mark.usefixtures("one_node")
def test_a_worker_that_dies_loses_no_photo_and_repeats_none_that_was_done(tmp_path: Path, log: Path) -> None:
    planned = tasks(tmp_path, 24)
    done = []
    for record in restore(planned, SlowStub(log), ORDERS, workers=2):
        done.append(record)
        if len(done) == 4:
            os.kill(_last_worker(log), signal.SIGKILL)
    check(done, planned)
    repeated = [path.name for path in log.iterdir() if len(path.read_text().splitlines()) > 1]
    assert len(repeated) <= 1  # the one that was under way


@pytest.mark.usefixtures("one_node")
def test_a_photo_that_kills_its_worker_costs_one_row(tmp_path: Path, log: Path) -> None:
    planned = tasks(tmp_path, 8)
    done = list(restore(planned, SlowStub(log, deadly=5, seconds=0.0), ORDERS, workers=2))
    assert "ended the process that read it 3 times" in done[5]["error"]
    assert (log / "5").read_text().count("\n") == 3
    check(done, planned, without=(5,))


@pytest.mark.usefixtures("one_node")
def test_pixels_are_those_without_ray(tmp_path: Path) -> None:
    from PIL import Image

    import abair
    from abair.deployment import read_deployment

    Image.effect_noise((80, 72), 60).convert("RGB").save(tmp_path / "a.png")
    task = Task(0, str(tmp_path / "a.png"), str(tmp_path / "out/a.png"), True)
    (record,) = restore([task], Bundle.read(read_deployment("factory"), "cpu", "float32"), ORDERS, workers=1)
    assert "error" not in record, record
    with Image.open(task.source) as image, Image.open(task.target) as restored:
        expected = abair.Restorer.load("factory")(image)
        assert np.array_equal(np.asarray(expected.image), np.asarray(restored))
        assert not np.array_equal(np.asarray(image), np.asarray(restored))
    assert record["weights"] == {label: round(weight, 6) for label, weight in expected.weights.items()}


def test_a_node_that_dies_loses_no_photo(tmp_path: Path, log: Path) -> None:
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    store = {"object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **store})
    try:
        other = cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        planned = tasks(tmp_path, 40)

        def kill_when_both_work() -> None:
            while len({line for path in log.iterdir() for line in path.read_text().split()}) < 2:
                time.sleep(0.05)
            cluster.remove_node(other, allow_graceful=False)

        killer = threading.Thread(target=kill_when_both_work, daemon=True)
        killer.start()
        done = list(restore(planned, SlowStub(log), ORDERS, workers=2))
        killer.join(60)
        assert not killer.is_alive()
        check(done, planned)
        assert len({line for path in log.iterdir() for line in path.read_text().split()}) >= 2
    finally:
        ray.shutdown()
        cluster.shutdown()


def _last_worker(log: Path) -> int:
    newest = max(log.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return int(newest.read_text().split()[-1])
