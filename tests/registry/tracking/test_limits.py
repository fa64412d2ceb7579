"""What is too long for MLflow is cut where one sees it, and kept whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from abair_registry.settings import Settings
from abair_registry.tracking import limits
from abair_registry.tracking.mlflow_client import Runs


def test_the_limits_are_not_above_those_of_the_installed_mlflow() -> None:
    from mlflow.utils import validation

    assert limits.PARAM_VALUE <= validation.MAX_PARAM_VAL_LENGTH
    assert limits.TAG_VALUE <= validation.MAX_TAG_VAL_LENGTH
    assert limits.KEY <= validation.MAX_ENTITY_KEY_LENGTH
    assert limits.BATCH <= validation.MAX_PARAMS_TAGS_PER_BATCH
    assert limits.METRICS <= validation.MAX_METRICS_PER_BATCH
    assert limits.VERSION_TEXT <= validation.MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH


@pytest.mark.parametrize("name", ["a (1).jpg", "../up", "//x", "./y", "ä/b", "x" * 300, "", ".", "a//b", "50 % #1"])
def test_every_name_becomes_a_key_that_mlflow_takes(name: str) -> None:
    from mlflow.utils.validation import _validate_param

    assert _validate_param(limits.fit_key(name), "value").key == limits.fit_key(name)


def test_long_names_that_differ_stay_different() -> None:
    assert limits.fit_key("x" * 300 + "a") != limits.fit_key("x" * 300 + "b")


def test_a_text_is_cut_between_lines_and_says_where_the_whole_is() -> None:
    text = "\n".join(f"line {number}" for number in range(1000))
    cut = limits.fit_markdown(text, 500, "all.md")
    lines, mark = cut.rsplit("\n\n", 1)
    assert len(cut) <= 500
    assert text.startswith(f"{lines}\n")
    assert "artifact `all.md`" in mark
    assert limits.fit_markdown("short", 500, "all.md") == "short"
    assert len(limits.fit_markdown("x" * 9000, 500, "all.md")) <= 500


@pytest.mark.slow
def test_a_run_takes_long_values_many_parameters_and_odd_names(tmp_path: Path, empty_store: Path) -> None:
    from mlflow import MlflowClient
    from mlflow.artifacts import load_text

    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    runs = Runs(Settings(home=tmp_path, tracking_uri=None))
    many = {f"SHA-256 of photo ({number}).jpg": "0" for number in range(150)}
    long = "because " * 1200
    run_id = runs.begin("n" * 300, tags={"abair.asked": long, "x" * 300: "y"}, params={**many, "labels": long})
    runs.metrics(run_id, {"gates/a plugin's own: (1)": 1.0})
    whole = "all of it\n" * 2000
    page = "a part of it\n" * 700
    runs.describe(run_id, page, whole)
    runs.conclude(run_id, "## Deployment 7 stays live. " + "x" * 200, dict.fromkeys(map(str, range(120)), "v"))
    there = MlflowClient(runs.uri, runs.uri)
    run = there.get_run(run_id)
    assert len(run.data.params) == 151
    assert run.data.metrics == {"gates/a plugin_s own_ _1_": 1.0}
    note = run.data.tags["mlflow.note.content"]
    assert (len(note) <= 8000, "`description.md`" in note, run.info.status) == (True, True, "FINISHED")
    assert load_text(f"{run.info.artifact_uri}/description.md") == whole
    for shown, name in ((run.data.tags["abair.asked"], "abair.asked"), (run.data.params["labels"], "labels")):
        assert f"(cut: all {len(long)} characters are in the artifact whole/{name}.txt)" in shown
        assert load_text(f"{run.info.artifact_uri}/whole/{name}.txt") == long
