"""What plugins are asked and told, in a process of their own: whatever one does there costs a line."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from tests.support.plugin_package import GOOD, Plugin, Tiny

from abair.errors import TrainingError
from abair.report import Group, Report, Verdict
from abair_registry.db.snapshot import Member
from abair_registry.operations import gates, run_report
from abair_registry.plugins import calls
from abair_registry.plugins.calls import Limits, VerifiedPlugins
from abair_registry.plugins.gates import GateAnswer, PluginGates, ask_gates, find_gates
from abair_registry.plugins.installed import find
from abair_registry.plugins.worker.protocol import Refusal

HEARS = """
import json
@hookimpl
def abair_deployed(deployment):
    (HERE / "heard.json").write_text(json.dumps([deployment.name, list(deployment.labels)]))
"""
GATE = """
@hookimpl
def abair_gates(report):
    {body}
"""


def part(name: str = "frost", distribution: str = "abair-frost", version: str = "1.0") -> Member:
    """A part of what serves, as the registry has it."""
    return Member(name, 1, name, distribution, version, "0" * 64, "0" * 64, None)


def trusted(*names: str) -> VerifiedPlugins:
    """These plugins, which are installed as they are recorded."""
    found = calls.verify_plugins([part(name, f"abair-{name}") for name in names], {})
    assert found.left_out == {}
    return found


def report() -> Report:
    """Of one new label; all of it is well."""
    ways = dict.fromkeys(("input", "backbone", "OH", "SW", "Oracle"), (30.0, 31.0))
    return Report(
        new=("frost",),
        groups=tuple(Group(labels=(label,), psnr=ways, top=(label, label)) for label in ("frost", "clean")),
    )


def gate(site: Path, tmp_path: Path, body: str) -> list[Verdict]:
    """What is heard of a plugin with this gate."""
    Plugin(module=GOOD + GATE.format(body=body)).make(site, Tiny.make(tmp_path))
    (answer,) = ask_gates(find_gates(trusted("frost")), report())
    assert answer.plugin == "frost"
    return list(answer.verdicts)


def test_a_plugin_hears_which_deployment_went_live(site: Path, bundle: Path, tmp_path: Path) -> None:
    folder = Plugin(module=GOOD + HEARS).make(site, Tiny.make(tmp_path))
    assert calls.send_notices(trusted("frost"), bundle) == []
    assert json.loads((folder / "heard.json").read_text()) == ["tiny-bundle", ["noise", "rain", "low-light", "clean"]]


def test_a_notice_that_fails_is_told_and_the_others_hear_theirs(site: Path, bundle: Path, tmp_path: Path) -> None:
    tiny = Tiny.make(tmp_path)
    Plugin(module=GOOD + "\n@hookimpl\ndef abair_deployed(deployment):\n    sys.exit(3)\n").make(site, tiny)
    other = Plugin(module=GOOD + HEARS).make(site, tiny, name="frostbite", distribution="abair-frostbite")
    (wrong,) = calls.send_notices(trusted("frost", "frostbite"), bundle)
    assert wrong == "plugin frost: its notice of the deployment failed (SystemExit: 3)"
    assert (other / "heard.json").is_file()


@pytest.mark.slow
def test_a_plugin_that_hangs_when_it_is_told_costs_its_time_and_a_line(
    site: Path, bundle: Path, tmp_path: Path
) -> None:
    Plugin(module="import time\ntime.sleep(600)\n" + GOOD).make(site, Tiny.make(tmp_path))
    began = time.monotonic()
    (wrong,) = calls.send_notices(trusted("frost"), bundle, Limits(seconds=2))
    assert "did not finish within 2 s" in wrong
    assert time.monotonic() - began < 20


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_one_that_hangs_is_named_and_the_others_hear_theirs(site: Path, bundle: Path, tmp_path: Path) -> None:
    tiny = Tiny.make(tmp_path)
    hangs = "\nimport time\n@hookimpl\ndef abair_deployed(deployment):\n    time.sleep(600)\n"
    Plugin(module=GOOD + hangs).make(site, tiny)
    other = Plugin(module=GOOD + HEARS).make(site, tiny, name="sleet", distribution="abair-sleet")
    (wrong,) = calls.send_notices(trusted("frost", "sleet"), bundle, Limits(seconds=15))
    assert wrong == (
        "plugin frost: its notice of the deployment did not finish within 15 s: it was in its hook abair_deployed"
    )
    assert (other / "heard.json").is_file()


@pytest.mark.slow
def test_a_notice_that_takes_long_is_named(site: Path, bundle: Path, tmp_path: Path) -> None:
    tiny = Tiny.make(tmp_path)
    Plugin(module=GOOD + "\nimport time\n@hookimpl\ndef abair_deployed(deployment):\n    time.sleep(1)\n").make(
        site, tiny
    )
    (slow,) = calls.send_notices(trusted("frost"), bundle, Limits(seconds=30, slow=0.9))
    assert slow == (
        "plugin frost: its notice of the deployment took 1 s; expected less than 0.9, since the command waits for it"
    )


def test_a_gate_is_asked_and_its_words_are_one_line(site: Path, tmp_path: Path) -> None:
    body = "from abair import Verdict; return [Verdict(name='ice\\x1b[31m', passed=False, measured=1, threshold=2)]"
    (verdict,) = gate(site, tmp_path, body)
    assert (verdict.name, verdict.passed, verdict.measured) == ("plugin frost: ice [31m", False, 1.0)


def test_all_texts_of_a_verdict_are_bounded_lines_and_nothing_more_on_a_page(site: Path, tmp_path: Path) -> None:
    odd = r"\x1b[2J\n\n# heading [link](http://x.invalid) <b>bold</b> **strong** " + "x" * 1000
    fields = f"dict.fromkeys(('name', 'unit', 'advice', 'detail'), '{odd}')"
    body = f"from abair import Verdict; return [Verdict(passed=False, measured=1.7e308, threshold=2, **{fields})]"
    (verdict,) = gate(site, tmp_path, body)
    texts = [verdict.name, verdict.unit, verdict.advice, verdict.detail]
    assert all(text.isprintable() for text in texts)
    assert [len(text) for text in texts] == [114, 20, 300, 100]
    table = run_report.verdict_table(gates.plugin_results([verdict], "frost"))
    assert "[2J" in MarkdownIt("gfm-like", {"linkify": False}).render(table)
    tags = {token.type for block in MarkdownIt("gfm-like", {"linkify": False}).parse(table) for token in tree(block)}
    assert "td_open" in tags
    assert not tags & {"heading_open", "link_open", "html_inline", "html_block", "em_open"}
    assert len(table.splitlines()) == 3
    assert "1.7e+308" in table


def tree(token: Token) -> list[Token]:
    """A token and those in it."""
    return [token, *(found for child in token.children or [] for found in tree(child))]


def test_a_gate_with_too_many_verdicts_refuses_with_one(site: Path, tmp_path: Path) -> None:
    body = "from abair import Verdict; return [Verdict(name='x', passed=True, measured=1, threshold=0)] * 3000"
    (verdict,) = gate(site, tmp_path, body)
    assert not verdict.passed
    assert "returned 3000 verdicts; expected at most 20" in verdict.advice


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})", "the gate of plugin frost could"),
        ("raise KeyboardInterrupt", "could not be asked (KeyboardInterrupt)"),
        ("return 3", "valid list"),
        ("print('x' * 5_000_000)", "printed more than 1024 KiB"),
        ("import os; os._exit(0)", "ended the process with code 0"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed with SIGSEGV"),
    ],
)
def test_a_gate_that_cannot_be_asked_refuses_with_its_name(site: Path, tmp_path: Path, body: str, why: str) -> None:
    (verdict,) = gate(site, tmp_path, body)
    assert not verdict.passed
    assert "frost" in verdict.advice
    assert why in verdict.advice


def test_one_gate_that_ends_its_process_leaves_the_others_answers(site: Path, tmp_path: Path) -> None:
    tiny = Tiny.make(tmp_path)
    Plugin(module=GOOD + GATE.format(body="os._exit(0)")).make(site, tiny)
    body = "from abair import Verdict; return [Verdict(name='ice', passed=True, measured=1, threshold=0)]"
    Plugin(module=GOOD + GATE.format(body=body)).make(site, tiny, "frostbite", "abair-frostbite")
    Plugin().make(site, tiny, "frostwork", "abair-frostwork")

    answers = ask_gates(find_gates(trusted("frost", "frostbite", "frostwork")), report())

    assert [(answer.plugin, answer.failed) for answer in answers] == [("frost", True), ("frostbite", False)]
    assert answers[1].verdicts[0].passed


def test_a_plugin_that_cannot_be_loaded_any_more_refuses_in_its_name(site: Path, tmp_path: Path) -> None:
    Plugin(module=GOOD).make(site, Tiny.make(tmp_path))
    plugins = trusted("frost")
    (site / "abair_frost" / "__init__.py").write_text("import no_such_module")

    gates = find_gates(plugins)

    assert gates.refs == ()
    assert "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'" in gates.broken["frost"]
    (answer,) = ask_gates(gates, report())
    assert isinstance(answer, GateAnswer)
    assert (answer.failed, [verdict.passed for verdict in answer.verdicts]) == (True, [False])
    assert "no_such_module" in answer.verdicts[0].advice


def test_code_that_was_changed_under_its_version_never_runs(site: Path, tmp_path: Path) -> None:
    folder = Plugin().make(site, Tiny.make(tmp_path))
    (site / "abair_frost-1.0.dist-info" / "RECORD").unlink()  # an editable install has none of the code
    recorded = {"frost": find("frost").files}
    assert calls.verify_plugins([part()], recorded).left_out == {}

    ran = tmp_path / "ran"
    (folder / "__init__.py").write_text(f"open({os.fspath(ran)!r}, 'w')\n" + GOOD)
    (folder / "more.py").touch()
    found = calls.verify_plugins([part()], recorded)

    why = "its files are not those of version 1.0 that was added: abair_frost/__init__.py and 1 more"
    assert (found.refs, found.unasked) == ((), {"frost": why})
    assert find_gates(found) == PluginGates((), {})
    assert not ran.exists()


def test_a_process_for_training_that_ends_is_told_with_the_plugins_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_: object) -> None:
        raise Refusal("ended the process with code 0 while making samples")

    monkeypatch.setattr(calls, "run_worker", end)
    plugins = [SimpleNamespace(name=name) for name in ("frost", "rain")]
    with pytest.raises(TrainingError) as refusal:
        calls.run_job(cast("Any", SimpleNamespace), calls.REPLAY_LIMITS, plugins=plugins)
    assert str(refusal.value) == (
        "a synthesiser of frost, rain ended the process with code 0 while making samples; mend or uninstall it"
    )


def test_a_gate_sees_no_secret_and_cannot_change_what_judges(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABAIR_REGISTRY_URL", "postgresql://ada:secret@host/db")
    body = (
        "import os; from abair_registry.operations import gates; gates.evaluate_gates = None; "
        "from abair import Verdict; "
        "return [Verdict(name=os.environ.get('ABAIR_REGISTRY_URL', 'nothing'), passed=True, measured=1, threshold=0)]"
    )
    (verdict,) = gate(site, tmp_path, body)
    assert verdict.name == "plugin frost: nothing"
    assert gates.evaluate_gates is not None
    assert "abair_frost" not in sys.modules


@pytest.mark.parametrize(
    ("recorded", "why"),
    [
        (part(distribution="ice-frost"), "installed by distribution abair-frost, recorded for ice-frost"),
        (part(version="0.9"), "version 1.0 is installed, 0.9 is recorded"),
        (part("sleet", "abair-sleet"), "not installed"),
    ],
)
def test_what_is_not_installed_as_it_is_recorded_never_runs(
    site: Path, bundle: Path, tmp_path: Path, recorded: Member, why: str
) -> None:
    ran = tmp_path / "ran"
    Plugin(module=f"open({os.fspath(ran)!r}, 'w')\n" + GOOD).make(site, Tiny.make(tmp_path))
    found = calls.verify_plugins([recorded], {})
    assert (found.refs, found.left_out) == ((), {recorded.plugin: why})
    assert calls.send_notices(found, bundle) == []
    assert find_gates(found) == PluginGates((), {})
    assert not ran.exists()
    assert calls.send_notices(trusted("frost"), bundle) == []
    assert ran.exists()
