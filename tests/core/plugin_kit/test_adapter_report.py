"""`abair train adapter` as a team uses it: charts, results on the card, a tracked run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from tests.conftest import pictures

from abair import images
from abair.cli.app import run
from abair.cli.train_values import read_minutes
from abair.data.photos import load_clean_photos
from abair.discovery import discover
from abair.errors import MissingExtraError, TrainingError
from abair.model.backbone import SIZES, Backbone, save_backbone
from abair.plugin_kit import adapter_report, readme
from abair.plugin_kit.efficacy import BARE, INPUT
from abair.training.report import read_history

pytestmark = pytest.mark.slow

QUICK = {"batch": 2, "crop": 32, "workers": 0, "warmup": 1, "validate_every": 2, "steps": 4}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for place, picture in enumerate(pictures(range(4)).photos):
        Image.fromarray(picture).resize((240, 224)).save(folder / f"{place}.png")
    return folder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "backbone.safetensors"
    save_backbone(Backbone(SIZES["tiny"]), path)
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project of a plugin `rain`, installed as editable: its card has the marks."""
    adapters = tmp_path / "abair-rain" / "src" / "abair_rain" / "adapters"
    adapters.mkdir(parents=True)
    folder = tmp_path / "abair-rain"
    (folder / "pyproject.toml").write_text("")
    parts = [f"{begin}\nnone yet\n{end}\n" for begin, end in map(readme.section_markers, (readme.DATA, readme.RESULTS))]
    (folder / "README.md").write_text("\n".join(["# abair-rain\n", *parts, "## Licence\n"]))
    degradation = discover().get("rain").model_copy(update={"adapters": adapters})
    monkeypatch.setattr(adapter_report, "discover", lambda: SimpleNamespace(get=lambda _: degradation))
    return folder


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What a tracker is told: the names of its calls, and their arguments."""
    calls: list[tuple[str, Any]] = []

    class Tracker:
        run_id = "r1"

        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: calls.append((name, arguments))

    @contextmanager
    def opened(name: str, *, params: dict[str, Any], tags: dict[str, str], warn: object) -> Iterator[Tracker]:
        assert callable(warn)
        calls.append(("open", (name, params, tags)))
        yield Tracker()
        calls.append(("end", ()))

    monkeypatch.setattr(adapter_report, "tracker", lambda: opened)
    return calls


def train(photos: Path, backbone: Path, tmp_path: Path, **options: Any) -> adapter_report.Outcome:
    given: dict[str, Any] = {"out": None, "track": False, "log": lambda _: None, "run": tmp_path / "run"} | options
    done = adapter_report.train(name="rain", data=photos, backbone=backbone, **QUICK, **given)
    assert done is not None
    return done


def test_the_card_gets_the_table_and_the_run_its_pictures(
    photos: Path, backbone: Path, project: Path, tmp_path: Path
) -> None:
    done = train(photos, backbone, tmp_path)
    assert done.adapter == project / "src" / "abair_rain" / "adapters" / "tiny"
    assert done.card == project / "README.md"
    text = done.card.read_text()
    assert text.startswith("# abair-rain\n")
    assert text.endswith("\n\n## Licence\n")
    assert done.efficacy.markdown() in text
    assert "none yet" not in text
    assert str(photos.parent) not in text  # it is published
    rows = [line for line in text.splitlines() if line.startswith(f"| {photos.name} | ")]
    assert len(rows) == 1
    assert load_clean_photos(photos)[0].digest()[:12] in rows[0]
    assert list(done.efficacy.means) == [INPUT, BARE, "adapter rain"]  # the factory's adapters are another backbone's
    for file in ("curves.png", "before-after.png"):
        with Image.open(tmp_path / "run" / file) as picture:
            assert min(picture.size) > 200
    assert done.efficacy.markdown() in (tmp_path / "run" / "report.md").read_text()


@pytest.mark.usefixtures("project", "heard")
def test_every_photo_is_decoded_once(
    photos: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("clean", "degraded"):
        (tmp_path / "pairs" / part).mkdir(parents=True)
        for path in photos.iterdir():
            (tmp_path / "pairs" / part / path.name).write_bytes(path.read_bytes())
    decoded: Counter[Path] = Counter()
    read = images.read

    def count(path: Path, **options: Any) -> images.Photo:
        decoded[path] += 1
        return read(path, **options)

    monkeypatch.setattr(images, "read", count)
    train(photos, backbone, tmp_path, pairs=[tmp_path / "pairs"], track=True)
    assert decoded == Counter([*photos.iterdir(), *tmp_path.glob("pairs/*/*.png")])
    assert len(decoded) == 12


def test_a_card_without_marks_is_left_alone_and_said(
    photos: Path, backbone: Path, project: Path, tmp_path: Path
) -> None:
    (project / "README.md").write_text("# abair-rain\n")
    said: list[str] = []
    assert train(photos, backbone, tmp_path, log=said.append).card is None
    assert (project / "README.md").read_text() == "# abair-rain\n"
    assert readme.section_markers(readme.RESULTS)[0] in said[-1]


def test_a_run_that_is_given_again_says_that_nothing_is_left_and_another_damage_is_another_run(
    photos: Path, backbone: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    train(photos, backbone, tmp_path)
    assert "nothing is left to train" not in capsys.readouterr().err
    done = train(photos, backbone, tmp_path)
    assert "nothing is left to train: 4 steps are done" in capsys.readouterr().err
    assert len(read_history(tmp_path / "run")) == 2
    kept = (done.adapter / "adapter_model.safetensors").read_bytes()
    monkeypatch.setattr("abair.training.run.load_synthesizer", lambda _: lambda clean, generator: clean * 0.5)
    with pytest.raises(TrainingError, match=r"found a checkpoint of another run .*damage: found"):
        train(photos, backbone, tmp_path)
    assert (done.adapter / "adapter_model.safetensors").read_bytes() == kept


def test_a_tracker_hears_of_each_validation_and_of_the_end(
    photos: Path, backbone: Path, project: Path, tmp_path: Path, heard: list[tuple[str, Any]]
) -> None:
    assert train(photos, backbone, tmp_path, track=True).run_id == "r1"
    kinds = [name for name, _ in heard]
    assert kinds == ["open", "metrics", "metrics", "describe", "metrics", "figure", "figure", "end"]
    assert [arguments[1] for name, arguments in heard if name == "metrics" and len(arguments) > 1] == [2, 4]
    assert "dB over the bare backbone" in heard[3][1][0]


def test_tracking_without_a_tracker_says_what_to_install_before_anything_is_trained(
    photos: Path, backbone: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("abair.plugin_kit.tracking.find_own", lambda group: None)
    with pytest.raises(MissingExtraError, match=r"abair\[registry\]"):
        train(photos, backbone, tmp_path, track=True)
    assert not (tmp_path / "run").exists()


def test_a_training_that_fails_leaves_the_card_as_it_was(
    photos: Path, backbone: Path, project: Path, tmp_path: Path
) -> None:
    before = (project / "README.md").read_text()
    with pytest.raises(TrainingError):
        train(tmp_path / "nothing", backbone, tmp_path)
    assert (project / "README.md").read_text() == before


@pytest.mark.parametrize(("text", "minutes"), [("10m", 10), ("90s", 1.5), ("1h30m", 90), ("2h", 120), (None, None)])
def test_a_time_budget_is_read_in_hours_minutes_and_seconds(text: str | None, minutes: float | None) -> None:
    assert read_minutes(text) == minutes


@pytest.mark.parametrize("text", ["10", "", "m", "0m", "ten", "10 m", "-5m"])
def test_another_time_budget_is_wrong_usage(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "adapter", "rain", f"--time-budget={text}"]) == 2
    assert "10m, 1h30m, 90s" in capsys.readouterr().err


def test_terms_that_the_author_wrote_stay_for_the_same_photos(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    rows = ["| set | photos | SHA | terms |", "|---|---|---|---|", "| a | 3 | 12ab | CC0 |"]
    card.write_text("\n".join(["# x", "<!-- data -->", *rows, "<!-- /data -->", ""]))
    assert readme.terms_of(card, "12ab") == "CC0"
    assert readme.terms_of(card, "34cd") == ""
