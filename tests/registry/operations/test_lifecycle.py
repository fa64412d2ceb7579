"""From disable to remove: what is served follows the registry, and nothing is ever half done."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr
from sqlalchemy import select

from abair import Restorer
from abair.deployment import read_deployment
from abair.errors import RegistryError
from abair_registry.db import audit, queries
from abair_registry.db.audit import Actor
from abair_registry.db.models import OperationRow
from abair_registry.db.queries import NewAdapter, NewRelease
from abair_registry.maintenance import integrity, remote, status
from abair_registry.maintenance.repair import repair
from abair_registry.operations import lock
from abair_registry.operations.lifecycle import Disable, Enable, Remove
from abair_registry.operations.promotion import Rollback
from abair_registry.operations.requests import OperationOptions
from abair_registry.registry import SYSTEM, Registry, live_file_problem, open_registry, sync_live_file
from abair_registry.settings import Settings
from abair_registry.tracking.mlflow_client import Runs

pytestmark = pytest.mark.slow

Open = Callable[[], AbstractContextManager[Registry]]
ME = Actor("me", "a reason")


def labels(registry: Registry) -> tuple[int, list[str]]:
    with registry.database.read() as session:
        live = queries.live(session)
        assert live is not None
        return live.number, live.labels


def test_what_is_published_is_a_bundle_that_restores(registry: Registry, bundle: Path, photo: np.ndarray) -> None:
    assert sync_live_file(registry)
    assert not sync_live_file(registry)
    served, factory = Restorer.load(registry.settings.home), Restorer.load(bundle)
    assert served.deployment.name == "1"
    assert np.array_equal(served(photo).image, factory(photo).image)


def test_a_disabled_plugin_is_served_no_more_and_the_rest_shares_its_weight(
    registry: Registry, bundle: Path, photo: np.ndarray
) -> None:
    outcome = Disable("rain", ME).run(registry)
    assert (outcome.outcome, outcome.deployment) == ("live", 2)
    served = Restorer.load(registry.settings.home)
    assert served.labels == ("noise", "low-light", "clean")
    before, after = Restorer.load(bundle).estimate(photo), served.estimate(photo)
    left = {label: weight for label, weight in before.items() if label != "rain"}
    assert after == pytest.approx({label: weight / sum(left.values()) for label, weight in left.items()}, abs=1e-6)
    history = status.deployment_history(registry)
    assert [(row["deployment"], row["live"], row["actor"], row["reason"]) for row in history] == [
        (2, True, "me", "a reason"), (1, False, "abair", SYSTEM.reason),
    ]  # fmt: skip


def test_a_plugin_that_is_enabled_again_is_served_as_before(registry: Registry, photo: np.ndarray) -> None:
    sync_live_file(registry)
    before = Restorer.load(registry.settings.home)(photo).image
    Disable("rain", ME).run(registry)
    # an untrained network may do better without it, which is not what is looked at
    assert Enable("rain", ME, OperationOptions(route="features", force=True)).run(registry).deployment == 3
    assert labels(registry) == (3, ["noise", "rain", "low-light", "clean"])
    assert np.array_equal(Restorer.load(registry.settings.home)(photo).image, before)


def test_a_removed_plugin_leaves_the_list_but_not_the_history(registry: Registry) -> None:
    Remove("abair-rain", ME).run(registry)
    assert "rain" not in labels(registry)[1]
    with registry.database.read() as session:
        found = queries.plugin(session, "rain")
        assert found is not None
        assert found.state == "removed"
        assert [event.action for event in audit.events(session, "rain")] == [
            "record", "propose", "remove", "remove done",
        ]  # fmt: skip
    with pytest.raises(RegistryError, match="plugin rain: is removed; expected"):
        Disable("rain", ME).run(registry)


def test_the_last_plugin_stays(registry: Registry) -> None:
    Disable("rain", ME).run(registry)
    Disable("noise", ME).run(registry)
    with pytest.raises(RegistryError, match="plugin low-light: is the last one live"):
        Disable("low-light", ME).run(registry)
    assert labels(registry) == (3, ["low-light", "clean"])


def known(registry: Registry, name: str) -> tuple[str, str]:
    """A plugin's state and its reason."""
    with registry.database.read() as session:
        found = queries.plugin(session, name)
        assert found is not None
        return found.state, found.reason


def test_a_deployment_whose_files_are_gone_is_not_moved_to(registry: Registry) -> None:
    with registry.database.read() as session:
        live = queries.live(session)
        assert live is not None
        first = live.estimator.sha256
    Disable("rain", ME).run(registry)
    registry.blobs.path(first).unlink()
    with pytest.raises(RegistryError, match=r"deployment 1: estimator: .*nothing was changed"):
        Rollback(None, ME).run(registry)
    assert labels(registry)[0] == 2
    assert read_deployment(registry.settings.home).name == "2"
    (told,) = integrity.verify(registry)[1]
    assert told.startswith("deployment 1, which could not be gone back to: estimator: ")


def test_a_plugin_that_never_served_is_disabled_and_removed_without_a_new_deployment(registry: Registry) -> None:
    with registry.database.write() as session:
        live = queries.live(session)
        assert live is not None
        adapter = live.members[0].adapter
        same = NewAdapter(
            degradation="sleet", title="Sleet", backbone_id=live.backbone_id, rank=4, parameters=8,
            config_sha256=adapter.config_sha256, weights_sha256=adapter.weights_sha256,
        )  # fmt: skip
        new = NewRelease(name="sleet", distribution="abair-sleet", version="1", module="m", adapters=[same])
        queries.record_release(session, new, ME)
        assert queries.degradation_owners(session, besides="rain")["sleet"] == "abair-sleet"
    for operation, state in ((Disable, "disabled"), (Remove, "removed")):
        outcome = operation("sleet", ME).run(registry)
        assert (outcome.deployment, outcome.run_id, known(registry, "sleet")) == (1, None, (state, "a reason"))
    with registry.database.read() as session:
        assert "sleet" not in queries.degradation_owners(session, besides="rain")
    assert len(status.deployment_history(registry)) == 1


def test_a_name_is_taken_while_its_plugin_is_disabled(registry: Registry) -> None:
    Disable("rain", ME).run(registry)
    with registry.database.read() as session:
        assert queries.degradation_owners(session, besides="frost")["rain"] == "abair-rain"
        assert "rain" not in queries.degradation_owners(session, besides="rain")


def test_a_plugin_whose_operation_was_stopped_is_again_what_it_was(registry: Registry) -> None:
    Disable("rain", ME).run(registry)

    def stopped() -> None:
        with lock.working(registry.database, "add", "rain", ME) as work:
            work.step("record", before=["disabled", "smears"])
            with work.session() as (session, _):
                found = queries.plugin(session, "rain")
                assert found is not None
                found.state, found.reason = "candidate", ""
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert known(registry, "rain") == ("disabled", "smears")


@pytest.mark.parametrize("operation", [Disable, Enable, Remove])
def test_a_name_that_was_never_added_is_told_with_near_misses(
    registry: Registry, operation: type[Disable | Enable]
) -> None:
    with pytest.raises(RegistryError, match="plugin rian: never added; did you mean rain"):
        operation("rian", ME).run(registry)
    assert labels(registry)[0] == 1


def test_enabling_what_was_removed_is_refused_and_leaves_no_operation(registry: Registry) -> None:
    Remove("rain", ME).run(registry)
    with pytest.raises(RegistryError, match="found state removed, expected disabled; to have it again, install"):
        Enable("rain", ME).run(registry)
    with registry.database.read() as session:
        assert [row.kind for row in session.scalars(select(OperationRow))] == ["remove"]


def test_enabling_what_is_live_changes_nothing(registry: Registry) -> None:
    result = Enable("rain", ME).run(registry)
    assert (result.operation, result.outcome, result.unchanged) == (None, "live", "plugin rain: is live already")
    assert labels(registry)[0] == 1


def test_a_file_that_a_kill_left_stale_is_written_by_the_next_opening(open_registry: Open) -> None:
    with open_registry() as registry:
        sync_live_file(registry)
        stale = (registry.settings.home / "deployment.json").read_bytes()
        Disable("rain", ME).run(registry)
        # as if killed between the commit and the file
        (registry.settings.home / "deployment.json").write_bytes(stale)
    assert read_deployment(registry.settings.home).name == "1"
    with open_registry() as registry:
        assert live_file_problem(registry) == "is deployment 1, and 2 is live"
        assert sync_live_file(registry)
        assert read_deployment(registry.settings.home).name == "2"


@pytest.mark.parametrize("settings", ["postgresql"], indirect=True)
def test_another_host_pulls_what_is_live(registry: Registry, bundle: Path, tmp_path: Path, photo: np.ndarray) -> None:
    Disable("rain", ME).run(registry)
    (tmp_path / "shared").mkdir()
    url = f"file://{tmp_path / 'shared'}"
    with registry.database.read() as session:
        every = {file.sha256 for file in integrity.needed_files(session)}
    assert remote.push(registry, url) == (len(every), 2)
    assert remote.push(registry, url) == (0, 2)
    elsewhere = Settings(home=tmp_path / "elsewhere", registry_url=registry.settings.registry_url)
    with open_registry(elsewhere, bundle) as other:
        with pytest.raises(
            RegistryError, match=r"expected file:///path/to/folder; set ABAIR_SHARED_URL or give the URL"
        ):
            remote.pull(other)
        assert remote.pull(other, url) == (6, 2)
        assert remote.pull(other, url) == (0, 2)
        sharing = replace(other, settings=elsewhere.model_copy(update={"shared_url": url}))
        assert all("deployment 1, " in line and line.endswith("doctor") for line in integrity.verify(sharing)[1])
        assert repair(sharing, Runs(elsewhere))[1] == []  # what one can go back to is there, too
        Rollback(1, ME).run(sharing)
        Rollback(2, ME).run(sharing)
    here, there = Restorer.load(registry.settings.home), Restorer.load(elsewhere.home)
    assert np.array_equal(here(photo).image, there(photo).image)


def test_without_a_shared_folder_the_champions_bundle_in_mlflow_is_pulled(
    registry: Registry, bundle: Path, tmp_path: Path, photo: np.ndarray
) -> None:
    Disable("rain", ME).run(registry)
    settings = registry.settings
    store_uri = f"sqlite:///{settings.home / 'mlflow.db'}"
    there = settings.model_copy(update={"home": tmp_path / "there", "tracking_uri": store_uri})
    # another host of the same registry: its database, none of its files
    if settings.registry_url is None:
        there = there.model_copy(update={"registry_url": SecretStr(f"sqlite:///{settings.home / 'registry.db'}")})
    with open_registry(there, bundle) as other:
        fetched, number = remote.pull(other)
        assert (fetched, number) == (5, 2)  # the replay stays where it is
        assert remote.pull(other) == (0, 2)
    assert np.array_equal(Restorer.load(settings.home)(photo).image, Restorer.load(there.home)(photo).image)


def test_a_blob_that_is_damaged_in_the_shared_folder_is_not_taken(
    registry: Registry, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    url = f"file://{tmp_path / 'shared'}"
    remote.push(registry, url)
    _, named = integrity.live_files(registry)
    damaged = tmp_path / "shared" / "blobs" / named[1].sha256[:2] / named[1].sha256
    damaged.write_bytes(b"no estimator")
    registry.blobs.path(named[1].sha256).unlink()
    with pytest.raises(RegistryError, match=r"estimator: .* was changed: found SHA-256 .*; run on the host that made"):
        remote.pull(registry, url)
    assert not registry.blobs.path(named[1].sha256).exists()


WRITERS = """
import sys
from pathlib import Path
from abair_registry.db import audit
from abair_registry.registry import SYSTEM, open_registry
from abair_registry.settings import Settings
writer, count, bundle = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
with open_registry(Settings(), bundle) as registry:
    for number in range(count):
        with registry.database.write() as session:
            audit.record_event(session, audit.Actor(writer), "write", f"{writer}-{number}")
"""


@pytest.mark.rare
@pytest.mark.exhaustive
def test_eight_processes_write_two_hundred_times_each_and_nothing_is_lost(
    settings: Settings, bundle: Path, environment: dict[str, str]
) -> None:
    """From an empty home, so that all eight begin by making the schema and importing the factory."""
    command = [sys.executable, "-c", WRITERS]
    writers = [
        subprocess.Popen(
            [*command, f"writer{index}", "200", str(bundle)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for index in range(8)
    ]
    said = [writer.communicate(timeout=300)[1] for writer in writers]
    assert said == [""] * 8
    assert [writer.returncode for writer in writers] == [0] * 8
    with open_registry(settings, bundle) as registry, registry.database.read() as session:
        written = [event.subject for event in audit.events(session, limit=10_000) if event.action == "write"]
        assert sorted(written) == sorted(f"writer{w}-{n}" for w in range(8) for n in range(200))
        assert len(queries.history(session)) == 1
