"""What can be asked of a plugin before it is added, asked by its author: wheel, contents, probe, card, efficacy.

Whether the estimator tells it from the live labels, and whether one of them loses, only adding it finds out.

A plugin is named by its entry point or distribution, if it is installed, or by its project's folder or its wheel, which
is unpacked into a folder of its own and looked at there: nothing is installed.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, Final

import abair
from abair.deployment import FACTORY, read_deployment
from abair.discovery import discover
from abair.errors import AbairError, AdmissionError
from abair.text import describe_error, quote_foreign
from abair_registry.plugins.admission import MissingAdapterError, Probed, probe
from abair_registry.plugins.installed import Candidate, find
from abair_registry.settings import Thresholds

LARGEST_WHEEL: Final = 16 * 1024**2
"""Bytes, unpacked: an adapter has half a megabyte, and people wait for downloads."""
BUILD_SECONDS: Final = 300
_CODE: Final = frozenset({".bin", ".ckpt", ".joblib", ".npy", ".pickle", ".pkl", ".pt", ".pth"})
"""Endings of files that can run code, or hide that they do, when they are read as weights."""
_TESTS: Final = re.compile(r"(^|/)(tests?|conftest\.py|test_[^/]*\.py)(/|$)")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was found, and what to do where it did not pass."""

    name: str
    passed: bool
    found: str
    advice: str = ""


@dataclass
class Checked:
    """What was found out about a plugin. Its fields are those of the command's JSON."""

    plugin: str
    distribution: str = ""
    version: str = ""
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against it."""
        return all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self) | {"passed": self.passed}


def check(target: str, tell: Callable[[str], None] = lambda text: None) -> Checked:
    """Look at a plugin; what later checks need and an earlier one refused is not looked at.

    `tell` hears what comes next.

    Raises:
        AdmissionError: no plugin of that name is installed, or there is none in the folder or wheel.
    """
    checked = Checked(target)
    with ExitStack() as stack:
        try:
            candidate, names = _candidate(target, checked, stack, tell)
        except _Over:
            return checked
        checked.plugin, checked.distribution, checked.version = (
            candidate.name, candidate.distribution, candidate.version
        )  # fmt: skip
        checked.checks += _contents(candidate, names)
        tell("probing it in a process of its own")
        probed = _probe(candidate, checked)
        if probed is not None:
            checked.checks += [_card(probed), *_efficacy(probed, tell)]
    return checked


class _Over(Exception):  # noqa: N818 - nothing went wrong here
    """Nothing more can be looked at."""


def _candidate(
    target: str, checked: Checked, stack: ExitStack, tell: Callable[[str], None]
) -> tuple[Candidate, list[str]]:
    """The plugin with the names of its wheel's files."""
    path = Path(target)
    if not path.exists() or (path.is_dir() and not (path / "pyproject.toml").is_file() and path.name == target):
        candidate = find(target)
        return candidate, sorted(candidate.files)
    aside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="abair-check-")))
    wheel = path if path.suffix == ".whl" else _built(path, aside, checked, tell)
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if outside := [name for name in names if name.startswith("/") or ".." in PurePosixPath(name).parts]:
                raise AdmissionError(
                    f"{wheel}: found {quote_foreign(outside[0])}, expected files inside of the wheel alone"
                )
            if sum(info.file_size for info in archive.infolist()) > 16 * LARGEST_WHEEL:
                raise AdmissionError(f"{wheel}: found more than {16 * LARGEST_WHEEL // 1024**2} MiB, expected a few")
            archive.extractall(aside / "unpacked")
    except (zipfile.BadZipFile, OSError) as error:
        raise AdmissionError(f"{wheel}: cannot be read ({error}); expected a wheel or a project's folder") from None
    stack.enter_context(_importable(aside / "unpacked"))
    return find(_entry_point(aside / "unpacked", wheel)), sorted(names)


def _built(project: Path, aside: Path, checked: Checked, tell: Callable[[str], None]) -> Path:
    """The wheel of a project's folder, built as pip builds it."""
    try:
        described = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdmissionError(
            f"{project}: found no pyproject.toml that can be read ({error}); expected a plugin's project"
        ) from None
    tell("building its wheel")
    backend = str(described.get("build-system", {}).get("build-backend", "setuptools")).partition(".")[0]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--disable-pip-version-check"]
    if find_spec(backend) is not None:  # else pip fetches it
        command.append("--no-build-isolation")
    done = subprocess.run(
        [*command, "--wheel-dir", str(aside), str(project.resolve())],
        capture_output=True, text=True, timeout=BUILD_SECONDS, check=False,
    )  # fmt: skip
    built = sorted(aside.glob("*.whl"))
    if done.returncode or not built:
        said_last = next((line.strip() for line in reversed(done.stderr.splitlines()) if line.strip()), "")
        checked.checks.append(
            Check(
                "wheel",
                False,
                quote_foreign(f"cannot be built: {said_last}", 300),
                f"try: pip wheel --no-deps {project}",
            )
        )
        raise _Over
    checked.checks.append(Check("wheel", True, f"{built[0].name}, {built[0].stat().st_size / 1e6:.2f} MB"))
    return built[0]


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Within it, what lies in the folder hides what is installed under the same names."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        importlib.invalidate_caches()


def _entry_point(folder: Path, wheel: Path) -> str:
    for distribution in distributions(path=[str(folder)]):
        try:
            points = sorted(point.name for point in distribution.entry_points.select(group="abair"))
        except Exception as error:
            raise AdmissionError(
                f"{wheel.name}: its entry_points.txt cannot be read ({describe_error(error)})"
            ) from None
        if len(points) > 1:
            names = ", ".join(map(quote_foreign, points))
            raise AdmissionError(
                f"{wheel.name}: found {len(points)} entry points in the group abair ({names}); expected one, whose "
                "module may declare several degradations"
            )
        if points:
            return points[0]
    raise AdmissionError(
        f"{wheel.name}: found no entry point in the group abair; expected one that names the plugin's module: "
        '[project.entry-points.abair] name = "abair_name"'
    )


def _contents(candidate: Candidate, names: list[str]) -> list[Check]:
    """What the wheel holds: the package and nothing beside it."""
    top = candidate.module.partition(":")[0].partition(".")[0]
    own = [name for name in names if ".dist-info/" not in name]
    beside = [name for name in own if PurePosixPath(name).parts[0] != top]
    tests = [name for name in own if _TESTS.search(name)]
    code = [name for name in own if PurePosixPath(name).suffix.lower() in _CODE]
    size = sum((candidate.root / name).stat().st_size for name in own if (candidate.root / name).is_file())
    wrong = [
        *(f"{name} beside the package {top}" for name in beside[:3]),
        *(f"tests: {name}" for name in tests[:3]),
        *(f"{name}, which can run code when it is read" for name in code[:3]),
    ]
    if f"{top}/py.typed" not in own:
        wrong.append("no py.typed")
    if size > LARGEST_WHEEL:
        wrong.append(f"{size / 1e6:.0f} MB, expected at most {LARGEST_WHEEL / 1e6:.0f}")
    contents = Check(
        "contents", not wrong, "; ".join(wrong) or f"{len(own)} files, {size / 1e6:.2f} MB, package {top}",
        f"let the wheel hold {top}/ with py.typed and nothing else" if wrong else "",
    )  # fmt: skip
    named = f"abair-{candidate.name}"
    derived = candidate.distribution.lower().replace("_", "-") == named and top == named.replace("-", "_")
    return [
        contents,
        _requirements(candidate),
        Check(
            "names", derived, f"distribution {candidate.distribution}, module {top}, entry point {candidate.name}",
            "" if derived else f"derive them from the name: {named}, {named.replace('-', '_')}, {candidate.name}",
        ),
    ]  # fmt: skip


def _requirements(candidate: Candidate) -> Check:
    """Whether the wheel can be installed beside this version of the platform."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    told = next((d.requires or [] for d in distributions(name=candidate.distribution, path=[str(candidate.root)])), [])
    try:
        named = [Requirement(text) for text in told]
    except InvalidRequirement as error:
        return Check("requirements", False, quote_foreign(str(error), 160), "mend dependencies in pyproject.toml")
    ours = [one for one in named if canonicalize_name(one.name) == "abair" and one.marker is None]
    if not ours:
        return Check("requirements", False, "abair is not among them", 'dependencies = ["abair>=0.1,<0.2"]')
    fits = all(one.specifier.contains(abair.__version__, prereleases=True) for one in ours)
    return Check(
        "requirements", fits, f"{', '.join(map(str, ours))}; this is abair {abair.__version__}",
        "" if fits else "widen the range, or check with the version that it is for",
    )  # fmt: skip


def _probe(candidate: Candidate, checked: Checked) -> Probed | None:
    factory = read_deployment(FACTORY)
    taken = {entry.degradation: entry.distribution for entry in factory.adapters}
    try:
        probed = probe(candidate, factory.find(factory.backbone.file), taken)
    except AdmissionError as error:
        reason = str(error).partition("): ")[2] or str(error)
        missing = isinstance(error, MissingAdapterError)
        advice = f"train one: abair train adapter {candidate.name}" if missing else "mend it; add refuses it as it is"
        checked.checks.append(Check("probe", False, reason, advice))
        return None
    for found in probed.degradations:
        adapter = found.adapters[0]
        told = (
            f"{found.name}: rank {adapter.rank}, {adapter.parameters:,} parameters for {adapter.backbone}; "
            f"{found.crops_per_second:.0f} crops a second"
        )
        checked.checks.append(Check("probe", True, told))
    return probed


def _card(probed: Probed) -> Check:
    lacking = [
        f"{found.name}: no {key}" for found in probed.degradations for key in ("command",) if not found.card.get(key)
    ]
    told = ", ".join(f"{found.card['licence']}; {found.card['training_data']}" for found in probed.degradations)
    return Check(
        "card", not lacking, "; ".join(lacking) or quote_foreign(told, 160), "say in abair.Card how it was trained"
    )


def _efficacy(probed: Probed, tell: Callable[[str], None]) -> Iterator[Check]:
    """Whether each adapter helps, and more than those that are there already."""
    from abair.plugin_kit.adapter_report import judge

    least = Thresholds().gain
    installed = discover()
    for found in probed.degradations:
        tell(f"restoring held-out samples of {found.name} with every adapter")
        try:
            degradation = installed.get(found.name)
            efficacy = judge(degradation, degradation.adapters / found.adapters[0].backbone, None, None)
        except AbairError as error:
            yield Check("efficacy", False, str(error), "mend it; add refuses it as it is")
            continue
        except Exception as error:  # the synthesiser's
            yield Check("efficacy", False, f"{found.name}: its synthesiser failed: {describe_error(error)}", "mend it")
            continue
        gain = efficacy.gain
        yield Check(
            "efficacy", gain >= least,
            f"{found.name}: {gain:+.2f} dB over the bare backbone on {efficacy.count} held-out samples; at least "
            f"{least:g} is asked",
            "" if gain >= least else f"train longer, or on samples like these: abair train adapter {found.name}",
        )  # fmt: skip
        if other := efficacy.best_other:
            ahead = efficacy.means[efficacy.own][0] - efficacy.means[other][0]
            yield Check(
                "against the others", ahead > 0, f"{found.name}: {ahead:+.2f} dB over {other}, the best of the others",
                "" if ahead > 0 else f"{other} does as well: the plugin adds nothing yet",
            )  # fmt: skip
