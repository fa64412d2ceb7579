"""What plugins hear of a deployment: each its own notice, and what one does wrong costs a line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from abair.deployment import read_deployment
from abair_registry import hooks

from .hostile import GOOD, Plugin, Tiny

HEARS = """
import json
@hookimpl
def abair_deployed(deployment):
    (HERE / "heard.json").write_text(json.dumps([deployment.name, list(deployment.labels)]))
"""


def test_a_plugin_hears_which_deployment_went_live(site: Path, bundle: Path, tmp_path: Path) -> None:
    folder = Plugin(module=GOOD + HEARS).make(site, Tiny.make(tmp_path))
    deployment = read_deployment(bundle)
    assert hooks.announce(hooks.usable({"frost"}), deployment) == []
    assert json.loads((folder / "heard.json").read_text()) == [deployment.name, list(deployment.labels)]


def test_a_notice_that_fails_is_told_and_the_others_hear_theirs(site: Path, bundle: Path, tmp_path: Path) -> None:
    tiny = Tiny.make(tmp_path)
    Plugin(module=GOOD + "\n@hookimpl\ndef abair_deployed(deployment):\n    sys.exit(3)\n").make(site, tiny)
    other = Plugin(module=GOOD + HEARS).make(site, tiny, name="frostbite", distribution="abair-frostbite")
    (wrong,) = hooks.announce(hooks.usable({"frost", "frostbite"}), read_deployment(bundle))
    assert wrong == "plugin frost: its notice of the deployment failed (SystemExit: 3)"
    assert (other / "heard.json").is_file()


def test_only_the_plugins_that_are_asked_for_are_imported(site: Path, tmp_path: Path) -> None:
    Plugin().make(site, Tiny.make(tmp_path))
    hooks.usable({"noise"})
    assert "abair_frost" not in sys.modules
    with pytest.raises(KeyError):
        _ = hooks.usable({"noise"}).found["frost"]
