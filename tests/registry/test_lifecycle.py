"""From disable to remove: what is served follows the registry, and nothing is ever half done."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from abair import Restorer
from abair.deployment import read_deployment
from abair.errors import RegistryError
from abair_registry import catalogue, inspection, lifecycle, operations, pointing, sharing, store
from abair_registry.catalogue import Catalogue
from abair_registry.orchestrator import Wishes
from abair_registry.settings import Settings
from abair_registry.store import NewAdapter, NewRelease, Who

Open = Callable[[], AbstractContextManager[Catalogue]]
ME = Who("me", "a reason")


def labels(registry: Catalogue) -> tuple[int, list[str]]:
    with registry.database.read() as session:
        live = store.live(session)
        assert live is not None
        return live.number, live.labels


def test_what_is_published_is_a_bundle_that_restores(registry: Catalogue, bundle: Path, photo: np.ndarray) -> None:
    assert catalogue.settle(registry)
    assert not catalogue.settle(registry)
    served, factory = Restorer.load(registry.settings.home), Restorer.load(bundle)
    assert served.deployment.name == "1"
    assert np.array_equal(served(photo).image, factory(photo).image)


def test_a_disabled_plugin_is_served_no_more_and_the_rest_shares_its_weight(
    registry: Catalogue, bundle: Path, photo: np.ndarray
) -> None:
    outcome = lifecycle.disable(registry, "rain", ME)
    assert (outcome.outcome, outcome.deployment) == ("live", 2)
    served = Restorer.load(registry.settings.home)
    assert served.labels == ("noise", "low-light", "clean")
    before, after = Restorer.load(bundle).estimate(photo), served.estimate(photo)
    left = {label: weight for label, weight in before.items() if label != "rain"}
    assert after == pytest.approx({label: weight / sum(left.values()) for label, weight in left.items()}, abs=1e-6)
    history = inspection.history_rows(registry)
    assert [(row["deployment"], row["live"], row["actor"], row["reason"]) for row in history] == [
        (2, True, "me", "a reason"), (1, False, "abair", catalogue.SYSTEM.reason),
    ]  # fmt: skip


def test_a_plugin_that_is_enabled_again_is_served_as_before(registry: Catalogue, photo: np.ndarray) -> None:
    catalogue.settle(registry)
    before = Restorer.load(registry.settings.home)(photo).image
    lifecycle.disable(registry, "rain", ME)
    # an untrained network may do better without it, which is not what is looked at
    assert lifecycle.enable(registry, "rain", ME, Wishes(route="features", force=True)).deployment == 3
    assert labels(registry) == (3, ["noise", "rain", "low-light", "clean"])
    assert np.array_equal(Restorer.load(registry.settings.home)(photo).image, before)


def test_a_removed_plugin_leaves_the_list_but_not_the_history(registry: Catalogue) -> None:
    lifecycle.remove(registry, "abair-rain", ME)
    assert "rain" not in labels(registry)[1]
    with registry.database.read() as session:
        found = store.plugin(session, "rain")
        assert found is not None
        assert found.state == "removed"
        assert [event.action for event in store.events(session, "rain")] == [
            "record", "propose", "remove", "remove done",
        ]  # fmt: skip
    with pytest.raises(RegistryError, match="plugin rain: is removed already"):
        lifecycle.remove(registry, "rain", ME)


def test_the_last_plugin_stays(registry: Catalogue) -> None:
    lifecycle.disable(registry, "rain", ME)
    lifecycle.disable(registry, "noise", ME)
    with pytest.raises(RegistryError, match="plugin low-light: is the last one live"):
        lifecycle.disable(registry, "low-light", ME)
    assert labels(registry) == (3, ["low-light", "clean"])


def known(registry: Catalogue, name: str) -> tuple[str, str]:
    """A plugin's state and its reason."""
    with registry.database.read() as session:
        found = store.plugin(session, name)
        assert found is not None
        return found.state, found.reason


def test_a_deployment_whose_files_are_gone_is_not_moved_to(registry: Catalogue) -> None:
    with registry.database.read() as session:
        live = store.live(session)
        assert live is not None
        first = live.estimator.sha256
    lifecycle.disable(registry, "rain", ME)
    registry.blobs.path(first).unlink()
    with pytest.raises(RegistryError, match=r"deployment 1: estimator: .*nothing was changed"):
        pointing.rollback(registry, None, ME)
    assert labels(registry)[0] == 2
    assert read_deployment(registry.settings.home).name == "2"
    assert inspection.verify(registry)[1] == []


def test_a_plugin_that_never_served_is_disabled_and_removed_without_a_new_deployment(registry: Catalogue) -> None:
    with registry.database.write() as session:
        live = store.live(session)
        assert live is not None
        adapter = live.members[0].adapter
        same = NewAdapter(
            degradation="sleet", title="Sleet", backbone_id=live.backbone_id, rank=4, parameters=8,
            config_sha256=adapter.config_sha256, weights_sha256=adapter.weights_sha256,
        )  # fmt: skip
        new = NewRelease(name="sleet", distribution="abair-sleet", version="1", module="m", adapters=[same])
        store.record(session, new, ME)
        assert store.taken(session, besides="rain")["sleet"] == "abair-sleet"
    for does, state in ((lifecycle.disable, "disabled"), (lifecycle.remove, "removed")):
        outcome = does(registry, "sleet", ME)
        assert (outcome.deployment, outcome.run_id, known(registry, "sleet")) == (1, None, (state, "a reason"))
    with registry.database.read() as session:
        assert "sleet" not in store.taken(session, besides="rain")
    assert len(inspection.history_rows(registry)) == 1


def test_a_name_is_taken_while_its_plugin_is_disabled(registry: Catalogue) -> None:
    lifecycle.disable(registry, "rain", ME)
    with registry.database.read() as session:
        assert store.taken(session, besides="frost")["rain"] == "abair-rain"
        assert "rain" not in store.taken(session, besides="rain")


def test_a_plugin_whose_operation_was_stopped_is_again_what_it_was(registry: Catalogue) -> None:
    lifecycle.disable(registry, "rain", ME)

    def stopped() -> None:
        with operations.working(registry.database, "add", "rain", ME) as work:
            work.step("record", before=["disabled", "smears"])
            with work.session() as (session, _):
                found = store.plugin(session, "rain")
                assert found is not None
                found.state, found.reason = "candidate", ""
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert known(registry, "rain") == ("disabled", "smears")


@pytest.mark.parametrize("action", [lifecycle.disable, lifecycle.enable, lifecycle.remove])
def test_a_name_that_was_never_added_is_told_with_near_misses(
    registry: Catalogue, action: Callable[[Catalogue, str, Who], object]
) -> None:
    with pytest.raises(RegistryError, match="plugin rian: never added; did you mean rain"):
        action(registry, "rian", ME)
    assert labels(registry)[0] == 1


def test_enabling_what_is_live_is_refused(registry: Catalogue) -> None:
    with pytest.raises(RegistryError, match="plugin rain: found state live, expected disabled"):
        lifecycle.enable(registry, "rain", ME)


def test_a_file_that_a_kill_left_stale_is_written_by_the_next_opening(open_registry: Open) -> None:
    with open_registry() as registry:
        catalogue.settle(registry)
        stale = (registry.settings.home / "deployment.json").read_bytes()
        lifecycle.disable(registry, "rain", ME)
        # as if killed between the commit and the file
        (registry.settings.home / "deployment.json").write_bytes(stale)
    assert read_deployment(registry.settings.home).name == "1"
    with open_registry() as registry:
        assert catalogue.changed(registry)
        assert catalogue.settle(registry)
        assert read_deployment(registry.settings.home).name == "2"


def test_verify_tells_a_changed_and_a_missing_blob_and_the_factory_mends_them(
    registry: Catalogue, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue.settle(registry)
    assert inspection.verify(registry) == (8, [])
    named = dict(inspection.live_files(registry)[1])
    changed, missing = named["adapter noise, weights"], named["estimator"]
    registry.blobs.path(changed).chmod(0o644)
    registry.blobs.path(changed).write_bytes(b"something else")
    registry.blobs.path(missing).unlink()
    count, problems = inspection.verify(registry)
    assert count == 8
    assert len(problems) == 2
    assert f"estimator: {registry.blobs.path(missing)} is missing; expected SHA-256 {missing}" in problems[0]
    assert f"adapter noise, weights: {registry.blobs.path(changed)} was changed" in problems[1]
    monkeypatch.setattr("abair.deployment.FACTORY", bundle)
    assert inspection.mend(registry) == [
        "estimator: put back from the package", "adapter noise, weights: put back from the package",
    ]  # fmt: skip
    assert inspection.verify(registry) == (8, [])


def test_a_deployment_file_that_somebody_edited_is_told(registry: Catalogue) -> None:
    catalogue.settle(registry)
    path = registry.settings.home / "deployment.json"
    path.write_text(path.read_text().replace('"title": "rain"', '"title": "sun"'))
    assert inspection.verify(registry)[1] == [
        f"{path}: is not deployment 1; expected the live one; run: abair-registry doctor"
    ]


@pytest.mark.parametrize("settings", ["postgresql"], indirect=True)
def test_another_host_pulls_what_is_live(registry: Catalogue, bundle: Path, tmp_path: Path, photo: np.ndarray) -> None:
    lifecycle.disable(registry, "rain", ME)
    (tmp_path / "shared").mkdir()
    url = f"file://{tmp_path / 'shared'}"
    assert sharing.push(registry, url) == (7, 2)
    assert sharing.push(registry, url) == (0, 2)
    elsewhere = Settings(home=tmp_path / "elsewhere", registry_url=registry.settings.registry_url)
    with catalogue.opened(elsewhere, bundle) as other:
        with pytest.raises(RegistryError, match="expected file:///path/to/folder; set ABAIR_SHARED_URL"):
            sharing.pull(other)
        assert sharing.pull(other, url) == (7, 2)
        assert sharing.pull(other, url) == (0, 2)
    here, there = Restorer.load(registry.settings.home), Restorer.load(elsewhere.home)
    assert np.array_equal(here(photo).image, there(photo).image)


def test_without_a_shared_folder_the_champions_bundle_in_mlflow_is_pulled(
    registry: Catalogue, bundle: Path, tmp_path: Path, photo: np.ndarray
) -> None:
    lifecycle.disable(registry, "rain", ME)
    settings = registry.settings
    store_uri = f"sqlite:///{settings.home / 'mlflow.db'}"
    there = settings.model_copy(update={"home": tmp_path / "there", "tracking_uri": store_uri})
    # another host of the same registry: its database, none of its files
    if settings.registry_url is None:
        there = there.model_copy(update={"registry_url": SecretStr(f"sqlite:///{settings.home / 'registry.db'}")})
    with catalogue.opened(there, bundle) as other:
        fetched, number = sharing.pull(other)
        assert (fetched, number) == (6, 2)  # the replay stays where it is
        assert sharing.pull(other) == (0, 2)
    assert np.array_equal(Restorer.load(settings.home)(photo).image, Restorer.load(there.home)(photo).image)


def test_a_blob_that_is_damaged_in_the_shared_folder_is_not_taken(
    registry: Catalogue, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    url = f"file://{tmp_path / 'shared'}"
    sharing.push(registry, url)
    _, named = inspection.live_files(registry)
    damaged = tmp_path / "shared" / "blobs" / named[1][1][:2] / named[1][1]
    damaged.write_bytes(b"no estimator")
    registry.blobs.path(named[1][1]).unlink()
    with pytest.raises(RegistryError, match=r"estimator: .* was changed: found SHA-256 .*; run on the host that made"):
        sharing.pull(registry, url)
    assert not registry.blobs.path(named[1][1]).exists()


WRITERS = """
import sys
from pathlib import Path
from abair_registry import catalogue, store
from abair_registry.settings import Settings
writer, count, bundle = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
with catalogue.opened(Settings(), bundle) as registry:
    for number in range(count):
        with registry.database.write() as session:
            store.tell(session, store.Who(writer), "write", f"{writer}-{number}")
"""


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
    with catalogue.opened(settings, bundle) as registry, registry.database.read() as session:
        written = [event.subject for event in store.events(session, limit=10_000) if event.action == "write"]
        assert sorted(written) == sorted(f"writer{w}-{n}" for w in range(8) for n in range(200))
        assert len(store.history(session)) == 1
