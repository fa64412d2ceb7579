"""Upgrade: what is live moves to the backbone of a newer package, all labels together, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import Open, write_adapter
from tests.registry.conftest import FROST, Run, complaints
from tests.support.plugin_package import Plugin, Tiny

from abair import Restorer
from abair.contract import WEIGHTS_FILE
from abair.model.backbone import load_backbone
from abair_registry.settings import Settings

pytestmark = pytest.mark.slow


@pytest.fixture
def begun(run: Run) -> Run:
    """The command, with a registry of the older factory; its `--json` objects and stderr."""
    assert run("doctor")[0] == 0
    return run


@pytest.fixture
def newer(next_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs the newer package, which brings another factory."""
    return lambda: monkeypatch.setenv("ABAIR_FACTORY", str(next_bundle))


def force(run: Run, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Upgrade whatever the gates say: the networks of these tests are not trained."""
    return run("upgrade", *arguments, "--route", "features", "--force", "--reason", "a new backbone")


def served(settings: Settings) -> Restorer:
    return Restorer.load(settings.home)


def test_all_labels_of_the_factory_move_together_and_its_new_ones_come_along(
    begun: Run, newer: Any, settings: Settings, next_bundle: Path, photo: np.ndarray
) -> None:
    newer()
    code, (told,), err = force(begun)

    assert (code, told["outcome"], told["deployment"], complaints(err)[1:]) == (0, "live", 2, [])
    live, shipped = served(settings), Restorer.load(next_bundle)
    assert live.labels == shipped.labels == ("noise", "rain", "low-light", "haze", "clean")
    assert live.deployment.backbone == shipped.deployment.backbone.model_copy(
        update={"file": live.deployment.backbone.file}
    )
    assert np.array_equal(live(photo).image, shipped(photo).image)
    judged = {gate["name"] for gate in told["gates"]}
    assert {"noise: loss against the champion", "haze: recall"} <= judged
    (event, *_) = [e for e in begun("show", "haze")[1][0]["events"] if e["action"] == "record"]
    assert event["reason"] == "a new backbone"


def test_rollback_goes_back_across_the_upgrade_and_forth_again(
    begun: Run, newer: Any, settings: Settings, bundle: Path, next_bundle: Path, photo: np.ndarray
) -> None:
    newer()
    force(begun)

    assert begun("rollback")[1][0]["deployment"] == 1
    assert np.array_equal(served(settings)(photo).image, Restorer.load(bundle)(photo).image)
    assert begun("rollback", "--to", "2")[1][0]["deployment"] == 2
    assert np.array_equal(served(settings)(photo).image, Restorer.load(next_bundle)(photo).image)


def test_gates_refuse_an_upgrade_that_would_make_photos_worse(begun: Run, newer: Any, settings: Settings) -> None:
    newer()
    before = (settings.home / "deployment.json").read_bytes()

    code, (told,), err = begun("upgrade", "--route", "features")

    assert (code, told["outcome"], told["deployment"]) == (1, "rejected", 1)
    assert any("refused by" in line for line in complaints(err))
    assert (settings.home / "deployment.json").read_bytes() == before


def test_an_upgrade_for_review_waits_for_promote(begun: Run, newer: Any, settings: Settings) -> None:
    newer()
    _, (told,), _ = force(begun, "--review")
    assert (told["outcome"], served(settings).labels) == ("challenger", ("noise", "rain", "low-light", "clean"))

    assert begun("promote")[1][0]["deployment"] == told["deployment"]
    assert served(settings).deployment.backbone.size == "tiny-2"


def test_what_an_administrator_disabled_stays_out_of_use(begun: Run, newer: Any, settings: Settings) -> None:
    begun("disable", "rain", "--yes", "--force", "--reason", "smears")
    newer()

    code, (told,), _ = force(begun)

    assert (code, told["outcome"]) == (0, "live")
    assert served(settings).labels == ("noise", "low-light", "haze", "clean")
    rain = next(row for row in begun("list")[1] if row["name"] == "rain")
    assert (rain["state"], rain["live"]) == ("disabled", False)


def test_what_a_rollback_took_out_of_use_comes_along_again(begun: Run, newer: Any, settings: Settings) -> None:
    newer()
    force(begun)
    begun("rollback")
    haze = next(row for row in begun("list")[1] if row["name"] == "haze")
    assert (haze["state"], haze["problem"]) == ("disabled", "not in deployment 1")

    assert force(begun)[1][0]["outcome"] == "live"
    assert served(settings).labels == ("noise", "rain", "low-light", "haze", "clean")


def test_the_factorys_own_backbone_is_no_upgrade(begun: Run, settings: Settings) -> None:
    before = (settings.home / "deployment.json").read_bytes()
    code, (told,), err = begun("upgrade")
    assert (code, told["outcome"], told["deployment"], told["run_id"]) == (0, "live", 1, None)
    assert "nothing was to be done" in err
    assert (settings.home / "deployment.json").read_bytes() == before


def test_leaving_a_plugin_behind_where_there_is_no_upgrade_is_told_to_do_nothing(begun: Run) -> None:
    reason = ("--reason", "smears")
    code, (told,), err = begun("upgrade", "--without", "rain", *reason)
    assert (code, told["outcome"], told["run_id"]) == (0, "live", None)
    said = (
        "--without rain left nothing behind: rain stays live; to take it out: abair-registry disable rain; nothing was"
    )
    assert said in err
    assert told["unchanged"].endswith("abair-registry disable rain")

    code, _, err = begun("upgrade", "--without", "no-such", *reason)
    assert (code, "; --without no-such left nothing behind; nothing was" in err) == (0, True)


def make_frost(site: Path, trained: Tiny, next_bundle: Path, *, for_next: bool) -> None:
    """Install `frost` with an adapter for the older backbone, and one for the newer if asked."""

    def add_adapter(folder: Path) -> None:
        if for_next:
            write_adapter(folder / "adapters" / "tiny-2", load_backbone(next_bundle / "backbone.safetensors"), seed=7)

    Plugin(synthesis=FROST, change=add_adapter).make(site, trained)


@pytest.mark.rare
@pytest.mark.exhaustive
@pytest.mark.new_replays
def test_a_teams_plugin_moves_with_its_adapter_for_the_new_backbone(
    begun: Run, newer: Any, site: Path, trained: Tiny, settings: Settings, next_bundle: Path
) -> None:
    make_frost(site, trained, next_bundle, for_next=True)
    assert begun("add", "frost", "--route", "features", "--force", "--reason", "ours")[1][0]["outcome"] == "live"
    newer()

    code, (told,), _ = force(begun)

    assert (code, told["outcome"]) == (0, "live")
    live = served(settings)
    assert live.labels == ("noise", "rain", "low-light", "haze", "frost", "clean")
    moved = next(ref for ref in live.deployment.adapters if ref.degradation == "frost")
    assert (moved.distribution, moved.version) == ("abair-frost", "1.0")
    shipped = site / "abair_frost" / "adapters" / "tiny-2" / WEIGHTS_FILE
    assert live.deployment.find(moved.weights).read_bytes() == shipped.read_bytes()
    assert "frost: loss against the champion" in {gate["name"] for gate in told["gates"]}
    frost = next(row for row in begun("list")[1] if row["name"] == "frost")
    assert [adapter["backbone"] for adapter in frost["adapters"]] == ["tiny-2"]


@pytest.mark.rare
@pytest.mark.exhaustive
@pytest.mark.parametrize("installed", [True, False], ids=["without an adapter for it", "not installed any more"])
def test_a_plugin_that_cannot_move_is_named_and_left_behind_only_on_request(
    installed: bool, begun: Run, newer: Any, site: Path, trained: Tiny, settings: Settings, next_bundle: Path
) -> None:
    make_frost(site, trained, next_bundle, for_next=False)
    begun("add", "frost", "--route", "features", "--force", "--reason", "ours")
    if not installed:
        shutil.rmtree(next(site.glob("*.dist-info")))
    newer()
    before = (settings.home / "deployment.json").read_bytes()

    code, told, err = force(begun)
    assert (code, told) == (1, [])
    (line,) = complaints(err)
    assert line.startswith("abair-registry: upgrade: plugin frost: ")
    assert "--without frost --reason WHY" in line
    assert (settings.home / "deployment.json").read_bytes() == before

    code, told, err = begun("upgrade", "--without", "noise", "--reason", "no")
    assert (code, told) == (1, [])
    assert "--without noise: has its adapter from the factory; expected one of frost" in err

    code, (told,), _ = force(begun, "--without", "frost")
    assert (code, told["outcome"]) == (0, "live")
    assert served(settings).labels == ("noise", "rain", "low-light", "haze", "clean")
    frost = begun("show", "frost")[1][0]
    assert (frost["state"], frost["live"]) == ("disabled", False)
    assert frost["events"][0]["action"] == "leave out" or "leave out" in {e["action"] for e in frost["events"]}

    code, told, err = begun("enable", "frost")
    assert (code, told) == (1, [])
    assert "plugin frost: was never live with the backbone tiny-2" in err


def test_leaving_a_plugin_behind_needs_a_reason(begun: Run, newer: Any) -> None:
    newer()
    code, told, err = begun("upgrade", "--without", "frost")
    assert (code, told) == (2, [])
    assert "--without" in err
    assert "needs a --reason" in err


def test_an_interrupted_upgrade_is_resumed_with_what_it_was_asked_for(
    begun: Run, newer: Any, settings: Settings, open_registry: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    from abair_registry.operations.routes import ChallengerChoice

    newer()

    def stop(_: ChallengerChoice) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ChallengerChoice, "choose", stop)
        assert force(begun)[0] == 130
    assert served(settings).deployment.backbone.size == "tiny"

    code, (told,), _ = begun("resume")
    assert (code, told["outcome"]) == (0, "live")
    assert served(settings).deployment.backbone.size == "tiny-2"


def test_list_and_doctor_say_that_the_package_brings_another_factory(
    begun: Run, newer: Any, site: Path, trained: Tiny, next_bundle: Path
) -> None:
    assert "another factory" not in begun("list")[2]
    newer()
    before = begun("history")

    _, _, err = begun("list")
    _, (told,), _ = begun("doctor", "--dry-run")

    offer = (
        "the package brings another factory: backbone tiny-2, live is tiny; adapter for tiny-2: yes: low-light, noise, "
        "rain; no: none; to move, run: abair-registry upgrade"
    )
    assert complaints(err) == [f"abair-registry: note: {offer}"]
    assert offer in told["notes"]
    assert begun("history") == before


def test_a_plugin_for_the_new_backbone_alone_is_told_to_upgrade_first(
    begun: Run, newer: Any, site: Path, trained: Tiny, next_bundle: Path
) -> None:
    def only_for_next(folder: Path) -> None:
        shutil.rmtree(folder / "adapters" / "tiny")
        write_adapter(folder / "adapters" / "tiny-2", load_backbone(next_bundle / "backbone.safetensors"), seed=7)

    Plugin(synthesis=FROST, change=only_for_next).make(site, trained)
    newer()

    code, told, err = begun("add", "frost")

    assert (code, told) == (1, [])
    assert complaints(err)[-1].endswith("it has one for tiny-2, which the package brings: abair-registry upgrade")
