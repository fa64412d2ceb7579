"""A plugin is probed so that one which misbehaves costs one line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import psutil
import pytest
from tests.support.foreign_package import what_ran, write_damaged, write_trap
from tests.support.hostile import FAMILY
from tests.support.plugin_package import GOOD, HEAD, Plugin, Tiny, declaring, write_metadata

from abair.errors import AdmissionError, DeploymentError
from abair.foreign_points import SWITCHES
from abair.model import lora
from abair_registry.plugins.admission import Limits, MissingAdapterError, probe
from abair_registry.plugins.installed import Candidate, find

pytestmark = pytest.mark.slow


def hashes(folder: Path) -> dict[Path, str]:
    return {path: sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


def processes(folder: Path) -> list[int]:
    """The processes that were started with the folder in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(folder) in value for value in process.environ().values()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_the_family_is_as_large_as_it_was() -> None:
    assert len(FAMILY) >= 85


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.exhaustive] * (place % 6 > 0)) for place, name in enumerate(FAMILY)]
)
def test_a_hostile_plugin_is_refused_with_one_line(name: str, site: Path, tiny: Tiny) -> None:
    plugin = FAMILY[name]
    plugin.make(site, tiny)
    started = time.monotonic()
    with pytest.raises(AdmissionError) as refusal:
        probe(find("frost"), tiny.path, plugin.taken, plugin.limits)
    line = str(refusal.value)
    assert line.startswith("plugin frost (distribution abair-frost): ")
    assert plugin.says in line
    assert line.isprintable()
    assert len(line) <= 800
    assert time.monotonic() - started < plugin.limits.seconds + 5
    assert "abair_frost" not in sys.modules
    assert processes(site) == []


@pytest.mark.parametrize(("name", "missing"), [("ships no adapter", True), ("the weights are cut off", False)])
def test_a_missing_adapter_is_an_error_of_its_own(name: str, missing: bool, site: Path, tiny: Tiny) -> None:
    FAMILY[name].make(site, tiny)
    with pytest.raises(AdmissionError) as refusal:
        probe(find("frost"), tiny.path, {})
    assert isinstance(refusal.value, MissingAdapterError) is missing


def test_a_good_plugin_passes_and_nothing_of_it_is_written_or_imported_here(site: Path, tiny: Tiny) -> None:
    folder = Plugin(module=GOOD + "print('hello', 'x' * 10_000)").make(site, tiny)
    before = hashes(site)
    probed = probe(find("frost"), tiny.path, {"noise": "abair-noise", "frost": "ABAIR_frost"})
    assert hashes(site) == before
    assert "abair_frost" not in sys.modules
    assert processes(site) == []
    assert probed.candidate.version == "1.0"
    [degradation] = probed.degradations
    assert (degradation.name, degradation.title) == ("frost", "Frost")
    assert degradation.synthesizer == "abair_frost.synthesis:degrade"
    assert degradation.card["licence"] == "MIT"
    assert degradation.crops_per_second > 10
    [adapter] = degradation.adapters
    assert (adapter.backbone, adapter.rank) == ("tiny", 4)
    assert adapter.parameters > 1000
    assert adapter.config == folder / "adapters" / "tiny" / lora.CONFIG_FILE
    assert adapter.weights_sha256 == sha256(adapter.weights.read_bytes()).hexdigest()
    assert adapter.config_sha256 == sha256(adapter.config.read_bytes()).hexdigest()


def test_a_worker_loads_no_entry_point_of_a_foreign_package(
    site: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SWITCHES:  # which commands of this process may have set
        monkeypatch.delenv(name, raising=False)
    write_trap(site)
    write_damaged(site)
    Plugin().make(site, tiny)
    probe(find("frost"), tiny.path, {})
    assert what_ran(site) == []


def test_entry_points_for_other_programs_are_allowed(site: Path, tiny: Tiny) -> None:
    Plugin(groups=("console_scripts", "pytest11")).make(site, tiny)
    assert probe(find("frost"), tiny.path, {}).candidate.groups == ("console_scripts", "pytest11")


def test_a_plugin_with_two_degradations_is_probed_for_both(site: Path, tiny: Tiny) -> None:
    both = declaring("name='rime', title='Rime'), declare(")
    Plugin(module=both).make(site, tiny)
    assert [d.name for d in probe(find("frost"), tiny.path, {}).degradations] == ["frost", "rime"]


def test_no_secret_of_the_caller_reaches_a_plugin(
    site: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("ABAIR_REGISTRY_URL", "postgresql://me:hunter2@example.org/abair")
    monkeypatch.setenv("ABAIR_HOME", str(tmp_path / "home"))
    told = "' '.join(f'{k}={v}' for k, v in sorted(os.environ.items()))"
    Plugin(module=declaring(f"card=Card(authors=('A',), licence='MIT', training_data={told})")).make(site, tiny)
    [degradation] = probe(find("frost"), tiny.path, {}).degradations
    seen = degradation.card["training_data"]
    assert "hunter2" not in seen
    assert os.environ["PATH"] in seen
    assert "AWS_" not in seen
    assert "ABAIR_HOME" not in seen
    assert f"HOME={Path.home()} " not in seen


def test_an_open_file_of_the_caller_is_not_inherited(site: Path, tiny: Tiny, tmp_path: Path) -> None:
    listing = "' '.join(os.readlink(f'/proc/self/fd/{d}') for d in os.listdir('/proc/self/fd') if int(d) < 64 " + (
        "and os.path.exists(f'/proc/self/fd/{d}'))"
    )
    Plugin(module=declaring(f"card=Card(authors=('A',), licence='MIT', training_data={listing})")).make(site, tiny)
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        [degradation] = probe(find("frost"), tiny.path, {}).degradations
    assert "secret" not in degradation.card["training_data"]
    assert "/dev/null" in degradation.card["training_data"]


def test_an_editable_plugins_files_are_those_of_its_folder(
    site: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    folder = Plugin().make(source, tiny)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "synthesis.pyc").write_bytes(b"0")
    monkeypatch.syspath_prepend(source)
    (source / "abair_frost-1.0.dist-info").rename(tmp_path / "away")
    write_metadata(site, "abair-frost", {"frost": "abair_frost"}, [])
    found = find("frost")
    assert (found.root, found.folder) == (source, folder)
    assert set(found.files) == {path.relative_to(source).as_posix() for path in hashes(folder) if path.suffix != ".pyc"}
    assert len(probe(found, tiny.path, {}).degradations) == 1


def test_what_is_no_backbone_is_no_fault_of_the_plugin(site: Path, tiny: Tiny, tmp_path: Path) -> None:
    Plugin().make(site, tiny)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(tiny.path.read_bytes()[:-100])
    for path in (tiny.adapter, damaged, tmp_path / "none"):
        with pytest.raises(DeploymentError, match=path.name):
            probe(find("frost"), path, {})


def test_a_probe_that_is_interrupted_leaves_nothing_running(
    site: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    Plugin(module=HEAD + "time.sleep(600)").make(site, tiny)
    found: Candidate = find("frost")

    def interrupt(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("abair_registry.plugins.worker.supervisor.threading.Event.wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        probe(found, tiny.path, {}, Limits(seconds=30))
    assert processes(site) == []


DEAF = """
for number in (1, 2, 14, 15):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        (HERE.parent / "daemon").touch()
        time.sleep(600)
    os._exit(0)
(HERE.parent / "worker").touch()
import ctypes
ctypes.PyDLL(None).sleep(600)  # and holds the interpreter's lock
"""


def test_a_plugins_process_ends_with_a_caller_that_was_killed_and_so_does_what_it_started(
    site: Path, tiny: Tiny
) -> None:
    Plugin(module=HEAD + DEAF).make(site, tiny)
    program = (
        "from pathlib import Path; from abair_registry.plugins.admission import *; "
        "from abair_registry.plugins.installed import *; "
        f"probe(find('frost'), Path({str(tiny.path)!r}), {{}}, Limits(seconds=600))"
    )
    kept = site.parent / "temporary"
    kept.mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": str(kept)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as caller:
        wait_until(lambda: (site / "worker").exists() and (site / "daemon").exists())
        assert len(processes(site)) == 4  # the caller, its guardian, the plugin's process, its daemon
        assert list(kept.iterdir())
        caller.kill()
    wait_until(lambda: processes(site) == [])
    assert list(kept.iterdir()) == []


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
