"""`add` to the end: a good plugin goes live in a tracked run, harmful and useless ones do not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.registry.conftest import FROST, Run
from tests.support.outcomes import aliases, client, live, refused, sqlite, state
from tests.support.plugin_package import Plugin, Tiny

from abair import Restorer
from abair.contract import WEIGHTS_FILE
from abair.deployment import read_deployment
from abair_registry.operations.report_page import PAGE
from abair_registry.settings import Settings
from abair_registry.tracking import sync

pytestmark = pytest.mark.slow


def zeroed(folder: Path) -> None:
    path = folder / "adapters" / "tiny" / WEIGHTS_FILE
    save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(path).items()}, path)


@pytest.mark.figures
def test_a_good_plugin_goes_live_and_everything_that_follows_agrees(
    run: Run, team: Path, settings: Settings, photo: np.ndarray
) -> None:
    before = {row["name"]: row["adapters"] for row in run("list")[1]}
    code, (result,), err = run("add", "frost", "--actor", "ada", "--reason", "asked for")
    assert code == 0, err
    assert set(result) == {
        "operation", "outcome", "deployment", "run_id", "route", "gates", "seconds", "unchanged", "lowered",
    }  # fmt: skip
    assert (result["outcome"], result["deployment"], result["route"], refused(result)) == ("live", 2, "features", [])
    assert all(set(gate) == {"name", "passed", "measured", "threshold"} for gate in result["gates"])
    assert state(run, "frost") == "live"
    # only the estimator is new
    after = {row["name"]: row["adapters"] for row in run("list")[1]}
    assert {name: after[name] for name in before if name != "frost"} == {
        name: adapters for name, adapters in before.items() if name != "frost"
    }
    served = read_deployment(settings.home)
    assert served.labels == ("noise", "rain", "low-light", "frost", "clean")

    # the run says it all
    found = client(settings).get_run(result["run_id"])
    assert (found.info.status, found.data.tags["abair.outcome"]) == ("FINISHED", "live")
    assert found.info.run_name == "add frost: live, 15 of 15 passed"
    assert found.data.tags["abair.actor"] == "ada"
    assert found.data.tags["mlflow.note.content"].startswith("## Deployment 2 is live. 15 of 15 gates passed.")
    assert found.data.params["labels"] == "noise, rain, low-light, frost, clean"
    assert len(found.data.params["SHA-256 of photos"]) == 64
    for way in ("input", "backbone", "OH", "SW", "Oracle"):
        assert {f"psnr/frost/{way}", f"ssim/frost/{way}"} <= found.data.metrics.keys()
    assert {"psnr/noise/champion", "psnr/noise_and_rain/SW", "psnr/clean/SW"} <= found.data.metrics.keys()
    assert len(client(settings).get_metric_history(result["run_id"], "train/loss")) >= 4
    assert "" not in found.data.tags.values()
    page = Path(client(settings).download_artifacts(result["run_id"], PAGE)).read_text()
    assert "15 of 15 gates passed" in page
    assert page.count("data:image/png;base64,") == 3 * 4
    figures = [file.path for file in client(settings).list_artifacts(result["run_id"], "figures")]
    assert len(figures) == 4

    # the version is the bundle, on any host
    assert aliases(settings) == {"champion": "2"}
    described = client(settings).get_model_version_by_alias("abair", "champion").description
    assert described.startswith(
        "Deployment 2: noise, rain, low-light, frost, clean. Reason: asked for. To make it live: "
    )
    assert "`abair-registry rollback --to 2`" in described
    fetched = Restorer.load("models:/abair@champion")
    assert np.array_equal(fetched(photo).image, Restorer.load(settings.home)(photo).image)
    files = {path.suffix for path in fetched.deployment.folder.rglob("*") if path.is_file()}
    assert files == {".json", ".safetensors"}

    # disable, enable, rollback, promote: the pointer, the file, the aliases and the states go together; what the gates
    # say of a network that was never trained is not asked here
    forced = ("--force", "--reason", "where the others go")
    for command, number, label_is_there in (
        (("disable", "rain", "--yes", *forced), 3, False),
        (("enable", "rain", "--route", "features", *forced), 4, True),
        (("rollback",), 3, False),
        (("rollback",), 2, True),
        (("promote", "4"), 4, True),
        (("rollback", "--to", "1"), 1, True),
    ):
        code, (result,), err = run(*command)
        assert (code, result["deployment"], result["outcome"]) == (0, number, "live"), err
        assert live(run) == number
        assert read_deployment(settings.home).name == str(number)
        assert aliases(settings)["champion"] == str(number)
        assert ("rain" in read_deployment(settings.home).labels) == label_is_there
        assert (state(run, "rain") == "live") == label_is_there
    assert state(run, "frost") == "disabled"
    code, (result,), _ = run("doctor")
    assert (code, result["mended"], result["problems"]) == (0, [], [])
    assert run("rollback")[2].startswith("abair-registry: rollback: deployment 1 is the first; expected")


@pytest.mark.rare
@pytest.mark.exhaustive
@sqlite
def test_a_useless_plugin_is_refused_and_forced_only_with_a_reason(
    run: Run, site: Path, trained: Tiny, settings: Settings
) -> None:
    Plugin(synthesis=FROST, change=zeroed).make(site, trained)
    code, (result,), err = run("add", "frost", "--gate", "mixed_loss=30", "--reason", "a tiny network")
    assert (code, result["outcome"], result["deployment"], result["route"]) == (1, "rejected", 1, "features")
    assert refused(result) == ["frost: gain of the adapter"]
    assert "refused by frost: gain of the adapter" in err
    assert (state(run, "frost"), live(run)) == ("rejected", 1)
    assert aliases(settings) == {"champion": "1"}
    page = client(settings).get_run(result["run_id"])
    assert page.data.tags["mlflow.note.content"].startswith("## Refused. Deployment 1 stays live. 14 of 15")
    assert (page.info.status, page.data.tags["abair.route.why"]) == (
        "FINISHED",
        "on kept features; fitted with mixtures; in full would not help, because no estimator mends an adapter",
    )

    code, _, err = run("add", "frost", "--force")
    assert (code, "needs a --reason" in err) == (2, True)
    code, (result,), _ = run("add", "frost", "--gate", "mixed_loss=30", "--force", "--reason", "the board wants it")
    assert (code, result["outcome"], refused(result)) == (0, "live", ["frost: gain of the adapter"])
    assert client(settings).get_run(result["run_id"]).data.tags["abair.forced"] == "true"
    (story,) = run("show", "frost")[1]
    assert ("add, forced", "the board wants it") in [(event["action"], event["reason"]) for event in story["events"]]


@pytest.mark.rare
@pytest.mark.exhaustive
@sqlite
def test_a_plugin_that_would_ruin_what_is_live_is_refused(
    run: Run, site: Path, bundle: Path, spare_adapter: Path, settings: Settings
) -> None:
    """Its samples look like another label's, and its adapter is made of random numbers."""
    config = json.loads((spare_adapter / "adapter_config.json").read_text())
    ruin = Tiny(bundle / "backbone.safetensors", config, spare_adapter / WEIGHTS_FILE)
    grain = FROST.split("veil =")[0] + (
        "much = 0.1 + 0.1 * torch.rand((), generator=generator)\n"
        "    return (clean + much * torch.randn(clean.shape, generator=generator)).clamp(0, 1)\n"
    )
    Plugin(synthesis=grain).make(site, ruin)
    code, (result,), _ = run("add", "frost")
    assert (code, result["outcome"], live(run)) == (1, "rejected", 1)
    assert "frost: gain of the adapter" in refused(result)


@sqlite
def test_a_challenger_waits_for_review_and_is_promoted_only_against_its_champion(
    run: Run, team: Path, settings: Settings
) -> None:
    assert "found no challenger" in run("promote")[2]
    code, (result,), _ = run("add", "frost", "--review")
    assert (code, result["outcome"], result["deployment"], live(run)) == (0, "challenger", 2, 1)
    assert (state(run, "frost"), aliases(settings)) == ("candidate", {"champion": "1", "challenger": "2"})
    assert run("disable", "rain", "--yes")[0] == 0
    assert aliases(settings) == {"champion": "3"}  # nothing was compared with this one
    assert "was judged against deployment 1, but 3 is live now" in run("promote", "2")[2]
    assert run("rollback")[1][0]["deployment"] == 1
    assert aliases(settings) == {"champion": "1", "challenger": "2"}
    code, (result,), _ = run("promote")
    assert (code, result["deployment"], state(run, "frost"), aliases(settings)) == (0, 2, "live", {"champion": "2"})


@pytest.mark.rare
@pytest.mark.exhaustive
@sqlite
@pytest.mark.new_replays
def test_the_same_seeds_make_the_same_bundle(
    run: Run, team: Path, settings: Settings, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = []
    for home in ("one", "two"):
        (tmp_path / home).mkdir()
        shutil.copyfile(empty_store, tmp_path / home / "mlflow.db")
        monkeypatch.setenv("ABAIR_HOME", str(tmp_path / home))
        assert run("add", "frost", "--seed", "3")[0] == 0
        marks.append(sync.bundle_digest(read_deployment(tmp_path / home)))
    assert marks[0] == marks[1]


@sqlite
def test_wrong_options_are_refused_before_anything_is_done(run: Run, team: Path) -> None:
    assert run("add", "frost", "--gate", "lose=1", "--reason", "a try")[0] == 2
    code, _, err = run("add", "frost", "--gate", "loss=much", "--reason", "a try")
    assert (code, "loss" in err, len(err.splitlines())) == (2, True, 1)
    code, _, err = run("promote", "7")
    assert (code, "deployment 7: there is none; expected 1 to 1" in err) == (1, True)
