"""`abair train adapter` on the `tiny` backbone: it trains the adapter and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.support.phases import DEGRADATIONS, QUICK, train_named_adapter

from abair.contract import WEIGHTS_FILE
from abair.discovery import discover
from abair.errors import AdapterError, PluginError, TrainingError
from abair.model.backbone import fingerprint, load_backbone
from abair.model.lora import read_adapter
from abair.model.safetensors_io import read_header
from abair.training.adapter import AdapterTask
from abair.training.run import train_backbone

pytestmark = pytest.mark.slow


def test_phase_two_trains_the_adapter_and_touches_nothing_of_the_backbone(
    photos: Path, backbone: Path, adapters: Path
) -> None:
    network = load_backbone(backbone)
    mark = fingerprint(network)
    for name in DEGRADATIONS:
        adapter = read_adapter(adapters / name / "tiny", network, mark, name)
        assert adapter.rank == 3
        assert set(read_header(adapters / name / "tiny" / WEIGHTS_FILE).dtypes.values()) == {"F16"}
        # B starts at zero: what is not zero was trained
        assert any(bool(up.any()) for _, up in adapter.layers.values())
    assert sorted(path.name for path in (adapters / "noise" / "tiny").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "training.toml",
    ]


def test_phase_two_goes_on_from_an_adapter(photos: Path, backbone: Path, adapters: Path, tmp_path: Path) -> None:
    start = adapters / "noise" / "tiny"
    given = {"name": "noise", "data": photos, "backbone": backbone, "start": start, "run": tmp_path / "run"} | QUICK
    more = train_named_adapter(out=tmp_path / "out", steps=1, rank=3, learning_rate=1e-12, **given)
    before, after = (load_file(folder / WEIGHTS_FILE) for folder in (start, more))
    assert all(torch.equal(before[name], after[name]) for name in before)
    network = load_backbone(backbone)
    digest = read_adapter(start, network, fingerprint(network), "noise").digest
    assert tomllib.loads((more / "training.toml").read_text())["run"]["start"] == digest
    for change, told in (
        ({"rank": 4}, r"noise/tiny, to start from: found rank 3, expected 4; give --rank 3"),
        ({"rank": 3, "start": None}, "found a checkpoint of another run"),
        ({"rank": 3, "start": start.parent}, r"noise: found no adapter_config.json, expected an adapter's folder"),
    ):
        with pytest.raises(TrainingError, match=told):
            train_named_adapter(out=tmp_path / "other", steps=1, learning_rate=1e-12, **given | change)
    assert not (tmp_path / "other").exists()


def test_training_begins_from_a_part_of_an_adapter_for_an_earlier_backbone(
    photos: Path, backbone: Path, adapters: Path, tmp_path: Path
) -> None:
    start = tmp_path / "earlier"
    shutil.copytree(adapters / "noise" / "tiny", start)
    config = start / "adapter_config.json"
    mark = fingerprint(load_backbone(backbone))
    config.write_text(config.read_text().replace(mark, "0" * 64))
    settings = tmp_path / "settings.toml"
    settings.write_text("[settings]\nstart_scale = 0.25\n")
    given = {
        "name": "noise",
        "data": photos,
        "backbone": backbone,
        "rank": 3,
        "steps": 1,
        "learning_rate": 1e-12,
    } | QUICK
    out, run = tmp_path / "out", tmp_path / "run"
    trained = train_named_adapter(start=start, settings_file=settings, out=out, run=run, **given)
    before, after = (load_file(folder / WEIGHTS_FILE) for folder in (start, trained))
    for name in before:
        torch.testing.assert_close(after[name], before[name] / 2)  # A and B alike, so a quarter in all
    with pytest.raises(AdapterError, match=r"made for backbone 'abair/tiny@0{64}', expected "):
        train_named_adapter(average_with=start, out=tmp_path / "no", run=tmp_path / "other", **given)
    config.write_text(config.read_text().replace("abair/tiny@", "abair/other@"))
    with pytest.raises(AdapterError, match=r"made for backbone 'abair/other@0{64}', expected 'abair/tiny@'"):
        train_named_adapter(start=start, out=tmp_path / "no", run=tmp_path / "other", **given)


def test_what_is_written_can_be_a_average_with_another_adapter(
    photos: Path, backbone: Path, adapters: Path, tmp_path: Path
) -> None:
    other = adapters / "noise" / "tiny"
    file = tmp_path / "settings.toml"
    file.write_text("[settings]\naverage_weight = 0.25\n")
    given = {"name": "noise", "data": photos, "backbone": backbone, "run": tmp_path / "run", "rank": 3} | QUICK
    trained = train_named_adapter(out=tmp_path / "trained", steps=2, start=adapters / "rain" / "tiny", **given)
    # the run is over, its checkpoint the same: nothing is trained again, whatever part is taken
    mean = train_named_adapter(
        out=tmp_path / "mean",
        steps=2,
        start=adapters / "rain" / "tiny",
        average_with=other,
        settings_file=file,
        **given,
    )
    one, two, both = (load_file(folder / WEIGHTS_FILE) for folder in (trained, other, mean))
    for name in both:
        torch.testing.assert_close(
            both[name].float(), 0.25 * one[name] + 0.75 * two[name].float(), atol=1e-4, rtol=1e-3
        )
    assert any(not torch.equal(both[name], one[name]) for name in both)
    record = tomllib.loads((mean / "training.toml").read_text())
    network = load_backbone(backbone)
    assert record["run"]["average_with"] == read_adapter(other, network, fingerprint(network), "noise").digest
    assert record["settings"]["average_weight"] == 0.25
    figures = tomllib.loads((trained / "training.toml").read_text())["run"]
    assert figures["psnr"] != record["run"]["psnr"]  # those of what was written
    for change, told in (
        ({"rank": 4}, r"noise/tiny, to average with: found rank 3, expected 4; give --rank 3"),
        ({"average_with": other.parent}, r"noise: found no adapter_config.json, expected an adapter's folder"),
        ({"out": other.parent}, r"--average-with .*: found what this command writes to, expected another"),
    ):
        with pytest.raises(TrainingError, match=told):  # before the training, not after it
            train_named_adapter(
                **given | {"out": tmp_path / "not", "steps": 1, "average_with": other, "run": tmp_path / "new"} | change
            )
    assert not (tmp_path / "new").exists()


def test_a_degradation_beside_must_be_installed(photos: Path, backbone: Path, tmp_path: Path) -> None:
    given = {"name": "noise", "data": photos, "backbone": backbone, "run": tmp_path / "run", "steps": 1} | QUICK
    with pytest.raises(PluginError, match="frost"):
        train_named_adapter(out=tmp_path / "out", mix_with=("frost",), **given)
    for wrong in (("noise",), ("rain", "rain")):
        with pytest.raises(
            TrainingError, match=r"mix_with: found .*, expected other degradations than noise, each once"
        ):
            train_named_adapter(out=tmp_path / "out", mix_with=wrong, **given)
    with pytest.raises(TrainingError, match=r"scene_size: found 63, expected 0, or at least twice the crop"):
        train_named_adapter(out=tmp_path / "out", scene_size=63, **given)


def test_a_degradation_beside_without_an_adapter_is_done_without_and_told(
    photos: Path, backbone: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    given = {"name": "noise", "data": photos, "backbone": backbone, "run": tmp_path / "run", "steps": 1} | QUICK
    folder = train_named_adapter(out=tmp_path / "out", mix_with=("rain",), rank=2, log=told.append, **given)
    record = tomllib.loads((folder / "training.toml").read_text())
    assert record["settings"]["mix_with"] == ["rain"]
    assert record["run"]["mixed_input"] < record["run"]["input"]
    assert "blended_with" not in record["run"]
    assert len(told) == 1
    assert told[0].startswith("rain has no adapter for this backbone: what carries it, too, is restored without (")


def test_an_adapter_is_blended_with_those_that_are_named(
    photos: Path, backbone: Path, adapters: Path, tmp_path: Path
) -> None:
    given = {"name": "noise", "data": photos, "backbone": backbone, "run": tmp_path / "run", "steps": 1} | QUICK
    given |= {"out": tmp_path / "out", "rank": 2}
    for wrong, error, told in (
        ({"adapters": adapters}, TrainingError, "found nothing to blend with; expected --mix-with"),
        ({"adapters": adapters, "mix_with": ("rain",), "blended": False}, TrainingError, "no `blended = false`"),
        ({"adapters": adapters / "rain", "mix_with": ("rain",)}, AdapterError, "rain/rain/tiny"),
        ({"adapters": tmp_path / "none", "mix_with": ("rain",)}, AdapterError, "none/rain/tiny"),
    ):
        with pytest.raises(error, match=told):
            train_named_adapter(**given, **wrong)
        assert not (tmp_path / "out").exists()
    folder = train_named_adapter(**given, adapters=adapters, mix_with=("rain",))
    record = tomllib.loads((folder / "training.toml").read_text())
    network = load_backbone(backbone)
    partner = read_adapter(adapters / "rain" / "tiny", network, fingerprint(network), "whatever it is called")
    assert record["run"]["blended_with"] == {"rain": partner.digest}
    # with other partners it is another run; so it is without
    for other in ({"mix_with": ("haze",), "adapters": adapters}, {"mix_with": ("rain",), "blended": False}):
        with pytest.raises(TrainingError, match="found a checkpoint of another run"):
            train_named_adapter(**given, **other)


def test_a_checkpoint_of_mixed_samples_from_before_they_were_blended_is_another_run(
    photos: Path, backbone: Path, tmp_path: Path
) -> None:
    given = {"name": "noise", "data": photos, "backbone": backbone, "run": tmp_path / "run", "steps": 1, "rank": 2}
    given |= {"out": tmp_path / "out", "mix_with": ("rain",), "blended": False} | QUICK
    train_named_adapter(**given)
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    facts = json.loads(read_header(checkpoint).metadata["abair.checkpoint"])
    for name in ("mix_probability", "blended", "blended_with"):
        del facts["of"][name]
    save_file(load_file(checkpoint), checkpoint, {"abair.checkpoint": json.dumps(facts)})
    with pytest.raises(TrainingError, match=r"mix_probability: found 0.3 by chance, expected 0.25"):
        train_named_adapter(**given | {"steps": 2})


def test_a_backbone_that_changed_in_phase_two_is_noticed(
    photos: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = AdapterTask.loss

    def meddling(self: AdapterTask, batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, dict[str, float]]:
        with torch.no_grad():
            self.module.get_base_model().stem.base_layer.weight[0, 0, 0, 0] += 0.01
        return original(self, batch)

    monkeypatch.setattr(AdapterTask, "loss", meddling)
    with pytest.raises(TrainingError, match="the frozen backbone changed"):
        train_named_adapter(
            name="noise", data=photos, backbone=backbone, out=tmp_path / "out", run=tmp_path / "run", steps=1, **QUICK
        )
    assert not (tmp_path / "out").exists()


def test_a_killed_phase_two_resumes_to_the_same_adapter(photos: Path, backbone: Path, tmp_path: Path) -> None:
    def run(folder: str, steps: int) -> dict[str, torch.Tensor]:
        out = train_named_adapter(
            name="noise",
            data=photos,
            backbone=backbone,
            out=tmp_path / folder,
            run=tmp_path / f"{folder}-run",
            steps=steps,
            **QUICK | {"decay": 0.0},
        )
        return load_file(out / "adapter_model.safetensors")

    run("cut", 2)
    resumed, whole = run("cut", 4), run("whole", 4)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_real_pairs_are_used_and_checked(photos: Path, backbone: Path, tmp_path: Path) -> None:
    for part in ("clean", "degraded"):
        (tmp_path / "pairs" / part).mkdir(parents=True)
        for path in photos.iterdir():
            Image.open(path).save(tmp_path / "pairs" / part / path.name)
    arguments = {"name": "low-light", "data": photos, "backbone": backbone, "pairs": [tmp_path / "pairs"], "steps": 1}
    folder = train_named_adapter(**arguments, out=tmp_path / "out", run=tmp_path / "run", **QUICK)
    record = tomllib.loads((folder / "training.toml").read_text())
    # these pairs are equal, so their input has no error at all
    assert record["run"]["real_input"] == 100
    (tmp_path / "pairs" / "clean" / "0.png").unlink()
    with pytest.raises(TrainingError, match="found 0 without a partner"):
        train_named_adapter(**arguments, out=tmp_path / "out2", run=tmp_path / "run2", **QUICK)


def test_pairs_smaller_than_the_crop_are_refused(photos: Path, backbone: Path, tmp_path: Path) -> None:
    for part in ("clean", "degraded"):
        (tmp_path / part).mkdir()
        for path in photos.iterdir():
            Image.open(path).resize((40, 30)).save(tmp_path / part / path.name)
    with pytest.raises(TrainingError, match="found 40x30 pixels, expected at least 32 a side"):
        train_named_adapter(
            name="low-light", data=photos, backbone=backbone, pairs=[tmp_path], out=tmp_path / "out",
            run=tmp_path / "run", steps=1, **QUICK,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_run_folder_of_another_backbone_is_refused(photos: Path, backbone: Path, tmp_path: Path) -> None:
    other = train_backbone(data=photos, size="tiny", out=tmp_path / "one", steps=2, seed=9, **QUICK)
    arguments = {"name": "noise", "data": photos, "run": tmp_path / "run", "steps": 2, **QUICK}
    train_named_adapter(backbone=backbone, out=tmp_path / "a", **arguments)
    with pytest.raises(TrainingError, match="found a checkpoint of another run"):
        train_named_adapter(backbone=other, out=tmp_path / "b", **arguments)
    assert not (tmp_path / "b").exists()


def test_equal_runs_write_equal_files(photos: Path, backbone: Path, tmp_path: Path) -> None:
    one, two = (
        train_named_adapter(
            name="noise", data=photos, backbone=backbone, out=tmp_path / x, run=tmp_path / f"run-{x}", steps=2, **QUICK
        )
        for x in "ab"
    )
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.exhaustive
def test_two_processes_train_an_adapter_through_the_command(photos: Path, backbone: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port),
        "-m", "abair", "train", "adapter", "noise", "--data", str(photos), "--backbone", str(backbone),
        "--out", str(tmp_path / "out"), "--checkpoints", str(tmp_path / "run"), "--steps", "2", "--batch", "1",
        "--crop", "32", "--workers", "0", "--rank", "2",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    network = load_backbone(backbone)
    assert read_adapter(tmp_path / "out" / "tiny", network, fingerprint(network), "noise").rank == 2
    assert sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file()) == [
        "adapter_config.json", "adapter_model.safetensors", "training.toml",
    ]  # fmt: skip


def test_an_unknown_degradation_names_what_there_is(photos: Path, backbone: Path, tmp_path: Path) -> None:
    there = ", ".join(sorted(discover().found))
    assert set(DEGRADATIONS) <= set(discover().found)
    with pytest.raises(PluginError, match=f"found {there}"):
        train_named_adapter(name="sleet", data=photos, backbone=backbone, out=tmp_path, run=tmp_path / "run", steps=1)
