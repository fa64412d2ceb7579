"""What can happen to MLflow, for the campaign in benchmarks/campaigns/mlflow_away.py."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from tests.support.campaign import Host
from tests.support.kill import forked, start

Variables = Mapping[str, str]
Begin = Callable[[Host], AbstractContextManager[Variables]]
SERVER = "server"
"""The folder beside the home where a server of MLflow's keeps its store."""


@dataclass(frozen=True)
class Trouble:
    """Something that lasts while operations run.

    `begin` yields the variables that commands get meanwhile. `away`: MLflow cannot be told then.
    `back` are the variables with which it can be told afterwards.
    """

    begin: Begin
    away: bool = True
    back: Callable[[Host], AbstractContextManager[Variables]] | None = None


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _url(url: str) -> Begin:
    @contextmanager
    def begin(_: Host) -> Iterator[Variables]:
        yield {"MLFLOW_TRACKING_URI": url}

    return begin


@contextmanager
def _silent(_: Host) -> Iterator[Variables]:
    """Something listens and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{listening.getsockname()[1]}"}


def _answering(status: int, body: bytes, **headers: str) -> Begin:
    """Something answers, and it is not MLflow."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            if not status:
                return
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    @contextmanager
    def begin(_: Host) -> Iterator[Variables]:
        port = free_port()
        with _process(lambda: HTTPServer(("127.0.0.1", port), Handler).serve_forever(), port):
            yield {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}

    return begin


@contextmanager
def _process(work: Callable[[], None], port: int) -> Iterator[None]:
    """Run a server in a process of its own until the block ends."""
    child = start(work)
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _serve(home: Path, port: int, answers: int | None) -> None:
    """Be MLflow's server; end as if killed instead of answering once more than `answers` times."""
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = uri = f"sqlite:///{home / 'mlflow.db'}"
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = root = (home / "artifacts").as_uri()
    from mlflow.server import app
    from mlflow.server.handlers import initialize_backend_stores
    from werkzeug.serving import make_server

    initialize_backend_stores(uri, uri, root)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    left = answers

    def mortal(environ: Any, start_response: Any) -> Any:
        nonlocal left
        if left == 0:
            os._exit(1)
        left = None if left is None else left - 1
        return app(environ, start_response)

    make_server("127.0.0.1", port, mortal).serve_forever()


def _dying(answers: int) -> Trouble:
    """A server that is killed in the middle of what it is told, and comes back."""
    port = free_port()
    variables = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}

    @contextmanager
    def running(host: Host, answers: int | None) -> Iterator[Variables]:
        home = host.home.parent / SERVER
        with _process(lambda: _serve(home, port, answers), port):
            yield variables

    return Trouble(partial(running, answers=answers), back=partial(running, answers=None))


def _store(change: Callable[[Path], object]) -> Begin:
    """Change the home's own store, for good."""

    @contextmanager
    def begin(host: Host) -> Iterator[Variables]:
        change(host.home / "mlflow.db")
        yield {}

    return begin


def _sql(*statements: str) -> Callable[[Path], None]:
    def change(store: Path) -> None:
        with closing(sqlite3.connect(store)) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    return change


def _garbled(store: Path) -> None:
    data = bytearray(store.read_bytes())
    for place in range(4096, len(data), 4096):
        data[place : place + 64] = b"\xff" * 64
    store.write_bytes(data)


def _folder(store: Path) -> None:
    store.unlink()
    store.mkdir()


@contextmanager
def _locked(host: Host) -> Iterator[Variables]:
    """Another program holds the store."""
    with closing(sqlite3.connect(host.home / "mlflow.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield {}
        database.execute("ROLLBACK")


def _kept(change: Callable[[MlflowClient, Path], object]) -> Trouble:
    """Somebody keeps house in MLflow, on its page or with its tools."""

    @contextmanager
    def begin(host: Host) -> Iterator[Variables]:
        def work() -> None:
            uri = f"sqlite:///{host.home / 'mlflow.db'}"
            os.environ["MLFLOW_TRACKING_URI"] = uri
            change(MlflowClient(uri, uri), host.home)

        assert forked(work) == 0
        yield {}

    return Trouble(begin, away=False)


def _champion(client: MlflowClient) -> Any:
    return client.get_model_version_by_alias("abair", "champion")


def _delete_run(client: MlflowClient, _: Path) -> None:
    client.delete_run(_champion(client).run_id)


def _collect(client: MlflowClient, home: Path) -> None:
    from click.testing import CliRunner
    from mlflow.cli import gc

    _delete_run(client, home)
    uri = f"sqlite:///{home / 'mlflow.db'}"
    CliRunner().invoke(gc, ["--backend-store-uri", uri], catch_exceptions=False)


def _delete_version(client: MlflowClient, _: Path) -> None:
    client.delete_model_version("abair", _champion(client).version)


def _rename_experiment(client: MlflowClient, _: Path) -> None:
    found = client.get_experiment_by_name("abair")
    assert found is not None
    client.rename_experiment(found.experiment_id, "ours")


def _delete_experiment(client: MlflowClient, _: Path) -> None:
    found = client.get_experiment_by_name("abair")
    assert found is not None
    client.delete_experiment(found.experiment_id)


def _delete_all_runs(client: MlflowClient, _: Path) -> None:
    found = client.get_experiment_by_name("abair")
    assert found is not None
    for run in client.search_runs([found.experiment_id]):
        client.delete_run(run.info.run_id)


def _lose_file(name: str) -> Callable[[MlflowClient, Path], None]:
    def change(client: MlflowClient, home: Path) -> None:
        for path in sorted((home / "artifacts" / _champion(client).run_id).rglob(name), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()  # what is in a folder comes before it

    return change


def _delete_tags(client: MlflowClient, _: Path) -> None:
    found = _champion(client)
    for key in found.tags:
        client.delete_model_version_tag("abair", found.version, key)


def _wrong_alias(client: MlflowClient, _: Path) -> None:
    others = [v.version for v in client.search_model_versions("name='abair'") if v.version != _champion(client).version]
    client.set_registered_model_alias("abair", "champion", others[0])


URLS: dict[str, Begin] = {
    "nobody listens": _url("http://127.0.0.1:9"),
    "no such host": _url("http://no-such-host.invalid:5000"),
    "a server that never answers": _silent,
    "a server that closes": _answering(0, b""),
    "a server with an error": _answering(500, b"<h1>\x1b[2Joops</h1>"),
    "another server's page": _answering(200, b"<html>hello</html>"),
    "a server that knows nothing": _answering(404, b"not here"),
    "a server that asks for a password": _answering(401, b"{}"),
    "a server that answers nothing": _answering(200, b"{}"),
    "a server that sends one around": _answering(302, b"", Location="/again"),
    "no database server": _url("postgresql://ada:secret@127.0.0.1:9/runs"),
    "a database in no folder": _url("sqlite:////nowhere/at/all/mlflow.db"),
    "no such kind of address": _url("htp://127.0.0.1:9"),
}
STORES: dict[str, Callable[[Path], object]] = {
    "no database": lambda store: store.write_bytes(b"no database at all" * 100),
    "an emptied store": lambda store: store.write_bytes(b""),
    "half a store": lambda store: store.write_bytes(store.read_bytes()[: store.stat().st_size // 2]),
    "a garbled store": _garbled,
    "a folder as store": _folder,
    "an older store": _sql("UPDATE alembic_version SET version_num = '451aebb31d03'"),
    "a newer store": _sql("UPDATE alembic_version SET version_num = 'ffffffffffff'"),
    "a store without a revision": _sql("DROP TABLE alembic_version"),
    "a store without runs": _sql("PRAGMA foreign_keys=OFF", "DROP TABLE runs"),
    "a store without models": _sql("PRAGMA foreign_keys=OFF", "DROP TABLE model_versions"),
}
HOUSEKEEPING: dict[str, Callable[[MlflowClient, Path], object]] = {
    "a deleted run": _delete_run,
    "a collected run": _collect,
    "a deleted version": _delete_version,
    "a deleted model": lambda client, _: client.delete_registered_model("abair"),
    "a deleted alias": lambda client, _: client.delete_registered_model_alias("abair", "champion"),
    "an alias elsewhere": _wrong_alias,
    "deleted tags": _delete_tags,
    "a renamed experiment": _rename_experiment,
    "a deleted experiment": _delete_experiment,
    "all runs deleted": _delete_all_runs,
    "a lost estimator": _lose_file("estimator.safetensors"),
    "a lost bundle": _lose_file("*"),
    "lost artifacts": lambda _, home: shutil.rmtree(home / "artifacts"),
    "a lost store": lambda _, home: (home / "mlflow.db").unlink(),
}
ANSWERS = (0, 1, 2, 5, 10, 20, 40)
"""After so many answers a server is killed; an operation asks some dozens of times."""
TROUBLES: dict[str, Trouble] = {
    **{name: Trouble(begin) for name, begin in URLS.items()},
    **{name: Trouble(_store(change)) for name, change in STORES.items()},
    "a store that another holds": Trouble(_locked),
    **{name: _kept(change) for name, change in HOUSEKEEPING.items()},
    **{f"a server killed after {answers} answers": _dying(answers) for answers in ANSWERS},
}
