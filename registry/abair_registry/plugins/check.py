"""Check a plugin for its author before it is added: from its wheel to its adapter's efficacy.

Whether the estimator recognises its damage, and whether a live label loses, only `add` finds out.

The plugin is an installed one, by its entry point or distribution, or a project's folder or a
wheel. A wheel is unpacked into a temporary folder and checked there; nothing is installed.
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
from abair.deployment import read_deployment
from abair.discovery import discover
from abair.errors import AbairError, AdmissionError
from abair.foreign_points import run_here
from abair.locations import factory_folder
from abair.text import describe_error, quote_foreign
from abair_registry.plugins.admission import MissingAdapterError, ProbedPlugin, probe
from abair_registry.plugins.checks import Check
from abair_registry.plugins.installed import Candidate, find
from abair_registry.plugins.placeholders import check_placeholders
from abair_registry.settings import Thresholds

LARGEST_WHEEL: Final = 16 * 1024**2
"""Most bytes of a wheel's files, unpacked: an adapter takes half a megabyte."""
BUILD_SECONDS: Final = 300
_CODE: Final = frozenset({".bin", ".ckpt", ".joblib", ".npy", ".pickle", ".pkl", ".pt", ".pth"})
"""Suffixes of files that can run code when they are read as weights."""
_TESTS: Final = re.compile(r"(^|/)(tests?|conftest\.py|test_[^/]*\.py)(/|$)")


@dataclass
class PluginReport:
    """All checks of a plugin; its fields are those of the command's JSON."""

    plugin: str
    distribution: str = ""
    version: str = ""
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self) | {"passed": self.passed}


def check(target: str, on_progress: Callable[[str], object] = str) -> PluginReport:
    """Check a plugin; checks that need what an earlier one refused are left out.

    Args:
        target: an entry point, a distribution, a project's folder, or a wheel.
        on_progress: called with a line on each step that takes time.

    Raises:
        AdmissionError: no plugin of that name is installed, or there is none in the folder or
            wheel.
    """
    report = PluginReport(target)
    with ExitStack() as stack:
        try:
            candidate, names = _find(target, report, stack, on_progress)
        except _NothingToCheck:
            return report
        report.plugin, report.distribution, report.version = (
            candidate.name, candidate.distribution, candidate.version
        )  # fmt: skip
        report.checks += [*_contents(candidate, names), _entry_points(candidate), check_placeholders(candidate)]
        on_progress("probing it in a process of its own")
        probed = _probe(candidate, report)
        if probed is not None:
            report.checks += [_card(probed), *_efficacy(probed, on_progress)]
    return report


class _NothingToCheck(Exception):  # noqa: N818 - the report holds the failed check
    """There is no wheel, so no other check can run."""


def _find(
    target: str, report: PluginReport, stack: ExitStack, on_progress: Callable[[str], object]
) -> tuple[Candidate, list[str]]:
    """Find the plugin; returns it with the names of its wheel's files."""
    path = Path(target)
    if not path.exists() or (path.is_dir() and not (path / "pyproject.toml").is_file() and path.name == target):
        candidate = find(target)
        return candidate, sorted(candidate.files)
    aside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="abair-check-")))
    wheel = path if path.suffix == ".whl" else _build_wheel(path, aside, report, on_progress)
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
    return find(_entry_point_name(aside / "unpacked", wheel)), sorted(names)


def _build_wheel(project: Path, aside: Path, report: PluginReport, on_progress: Callable[[str], object]) -> Path:
    """Build the wheel of a project's folder with pip."""
    try:
        described = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdmissionError(
            f"{project}: found no pyproject.toml that can be read ({error}); expected a plugin's project"
        ) from None
    on_progress("building its wheel")
    backend = str(described.get("build-system", {}).get("build-backend", "setuptools")).partition(".")[0]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--disable-pip-version-check"]
    if find_spec(backend) is not None:  # without this option pip downloads the backend
        command.append("--no-build-isolation")
    done = subprocess.run(
        [*command, "--wheel-dir", str(aside), str(project.resolve())],
        capture_output=True, text=True, timeout=BUILD_SECONDS, check=False,
    )  # fmt: skip
    built = sorted(aside.glob("*.whl"))
    if done.returncode or not built:
        last_line = next((line.strip() for line in reversed(done.stderr.splitlines()) if line.strip()), "")
        report.checks.append(
            Check(
                "wheel",
                False,
                quote_foreign(f"cannot be built: {last_line}", 300),
                f"try: pip wheel --no-deps {project}",
            )
        )
        raise _NothingToCheck
    report.checks.append(Check("wheel", True, f"{built[0].name}, {built[0].stat().st_size / 1e6:.2f} MB"))
    return built[0]


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Put the folder first on the path, before what is installed under the same names."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        importlib.invalidate_caches()


def _entry_point_name(folder: Path, wheel: Path) -> str:
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
    """Check that the wheel holds the package and nothing else."""
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


def _entry_points(candidate: Candidate) -> Check:
    """Check that no entry point makes a library run the plugin's code, and tell of all others."""
    wrong = [group for group in candidate.groups if run_here(group)]
    if wrong:
        found = f"{', '.join(map(quote_foreign, wrong))}: libraries load these wherever they are used"
        return Check("entry points", False, found, "move them into a distribution of their own; add refuses them")
    others = ", ".join(map(quote_foreign, candidate.groups))
    return Check("entry points", True, f"abair; for other programs: {others}" if others else "abair alone")


def _requirements(candidate: Candidate) -> Check:
    """Check that the wheel can be installed beside this version of the platform."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    texts = next((d.requires or [] for d in distributions(name=candidate.distribution, path=[str(candidate.root)])), [])
    try:
        named = [Requirement(text) for text in texts]
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


def _probe(candidate: Candidate, report: PluginReport) -> ProbedPlugin | None:
    factory = read_deployment(factory_folder())
    owners = {entry.degradation: entry.distribution for entry in factory.adapters}
    try:
        probed = probe(candidate, factory.find(factory.backbone.file), owners)
    except AdmissionError as error:
        reason = str(error).partition("): ")[2] or str(error)
        missing = isinstance(error, MissingAdapterError)
        advice = f"train one: abair train adapter {candidate.name}" if missing else "mend it; add refuses it as it is"
        report.checks.append(Check("probe", False, reason, advice))
        return None
    for found in probed.degradations:
        adapter = found.adapters[0]
        summary = (
            f"{found.name}: rank {adapter.rank}, {adapter.parameters:,} parameters for {adapter.backbone}; "
            f"{found.crops_per_second:.0f} crops a second"
        )
        report.checks.append(Check("probe", True, summary))
    return probed


def _card(probed: ProbedPlugin) -> Check:
    lacking = [
        f"{found.name}: no {key}" for found in probed.degradations for key in ("command",) if not found.card.get(key)
    ]
    summary = ", ".join(f"{found.card['licence']}; {found.card['training_data']}" for found in probed.degradations)
    return Check(
        "card", not lacking, "; ".join(lacking) or quote_foreign(summary, 160), "say in abair.Card how it was trained"
    )


def _efficacy(probed: ProbedPlugin, on_progress: Callable[[str], object]) -> Iterator[Check]:
    """Check that each adapter helps, and more than the adapters that exist already."""
    from abair.plugin_kit.adapter_report import evaluate_adapter
    from abair.training.inputs import read_photos

    least = Thresholds().gain
    installed = discover()
    for found in probed.degradations:
        on_progress(f"restoring held-out samples of {found.name} with every adapter")
        try:
            degradation = installed.get(found.name)
            folder = degradation.adapters / found.adapters[0].backbone
            efficacy = evaluate_adapter(degradation, folder, read_photos(None)[1])
        except AbairError as error:
            yield Check("efficacy", False, str(error), "mend it; add refuses it as it is")
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
