"""Kinds of hostile and broken packages for the campaign in benchmarks/campaigns/hostile.py.

Those of `hostile.FAMILY` are refused by the probe. Others were admitted and misbehave later, or
have damaged metadata, or texts that would be more than text where they are shown.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

from tests.registry.conftest import FROST
from tests.support.campaign import REASON
from tests.support.foreign_package import write_damaged, write_info, write_trap
from tests.support.hostile import FAMILY, ORPHAN
from tests.support.outside import FORGED, Said
from tests.support.plugin_package import GOOD, HEAD, Plugin, Tiny, declaring, degrading, write_metadata

from abair_registry.plugins import admission, calls

ROUTE = ("--route", "features")
TRAINED = (*ROUTE, *REASON)
ADD, DISABLE = ("add", "frost", *ROUTE), ("disable", "rain", "--yes")
FORCED = (*DISABLE, *REASON)
INFO = "abair_frost-1.0.dist-info"

Install = Callable[[Path, Tiny], object]
Change = Callable[[Path], object]


@dataclass(frozen=True)
class Kind:
    """A package, the command that meets it, and what is expected of that.

    `live`: `frost` was admitted and is live before the package is put in its place. `changes`: the
    command may make another deployment live. `seconds` is what a job of a plugin may take.
    """

    install: Install
    says: str = ""
    command: tuple[str, ...] = ADD
    code: int = 1
    live: bool = False
    changes: bool = False
    limits: admission.Limits = field(default_factory=admission.Limits)
    seconds: float = 60

    def limit(self, _site: Path) -> None:
        """Shorten the limits of this process, so that what hangs costs seconds."""
        real, limits = admission.probe, self.limits
        job = calls.Limits(seconds=self.seconds)
        mock.patch.object(admission, "probe", lambda plugin, net, owners, _: real(plugin, net, owners, limits)).start()
        for name in ("HOOK_LIMITS", "REPLAY_LIMITS"):
            mock.patch.object(calls, name, replace(getattr(calls, name), seconds=self.seconds)).start()
        mock.patch.object(calls.send_notices, "__defaults__", (job,)).start()

    def tells(self, said: Said) -> bool:
        """Whether the text that is expected was printed."""
        return said.has(self.says) or self.says in said.out


def installed(plugin: Plugin) -> Install:
    """Install this one as `frost`."""
    return lambda site, tiny: plugin.make(site, tiny)


def then(change: Change) -> Install:
    """Install a good one, and change what is in its site afterwards."""

    def install(site: Path, tiny: Tiny) -> None:
        Plugin(synthesis=FROST).make(site, tiny)
        change(site)

    return install


def module(text: str) -> Install:
    """Change what the module of the one that is live does, by a file that does not belong to its package."""
    return lambda site, _: (site / "frost-later.py").write_text(text)


def info(name: str, text: str | bytes) -> Change:
    """Change a file of its metadata."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return lambda site: (site / INFO / name).write_bytes(data)


def as_folder(name: str) -> Change:
    """Put a folder in the place of a file of its metadata."""

    def change(site: Path) -> None:
        (site / INFO / name).unlink()
        (site / INFO / name).mkdir()

    return change


def gate(body: str) -> Install:
    """Its gate does this."""
    return module(f"{GOOD}\nfrom abair import Verdict\n@hookimpl\ndef abair_gates(report):\n    {body}\n")


def notice(body: str) -> Install:
    """Its notice of a deployment does this."""
    return module(f"{GOOD}\n@hookimpl\ndef abair_deployed(deployment):\n    {body}\n")


def in_training(body: str) -> Install:
    """Its synthesiser does this in the training, and is good while it is probed."""
    before = "JOB = sys.argv[0].endswith('run_jobs.py')\n" + FORGE
    return installed(Plugin(synthesis=degrading(f"if JOB:\n        {body}\n    return damaged", before)))


FORGE = """
def forge(kind, body):
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b'{"token": "%s", "kind": "' + kind + b'", "body": ' + body + b'}' + bytes([10]))
        except OSError:
            pass
"""
TEXTS = {
    "escape sequences": f"\x1b[2J\x1b]0;{FORGED}\x07 ice",
    "a heading": f"ice\n\n## Deployment 99 is live. {FORGED}\n\n",
    "a heading after carriage returns": f"ice\r\r## {FORGED}\r",
    "a heading after rare separators": f"ice\u2028\u2028# {FORGED}\u2029\x85\x0b\x0c# {FORGED}",
    "an underlined heading": f"{FORGED}\n===\n",
    "HTML": f"<h1>{FORGED}</h1><b>{FORGED}</b>",
    "a comment without an end": f"<!-- {FORGED}",
    "links and pictures": f"[{FORGED}](http://x.invalid) ![{FORGED}](http://x.invalid/y.png) <http://{FORGED}.invalid>",
    "bars of a table": f"a | b | passed | {FORGED} |\n| --- |",
    "fences of code": f"```\n# {FORGED}\n```",
    "entities": f"&lt;h1&gt;&#35; {FORGED}",
    "signs from right to left": f"\u202egnorw\u202c {FORGED}",
    "five thousand accents": "z" + "\u0301" * 5000,
    "a hundred thousand characters": "x" * 100_000,
    "NUL": f"a\x00b {FORGED}",
    "a backslash at its end": f"{FORGED}\\",
    "half a character": f"\ud800 {FORGED}",
}
ERRORS = {
    "raises": "1 / 0",
    "raises without words": "raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})",
    "raises a heading": f"raise RuntimeError('\\x1b[2J\\n\\n## {FORGED}\\n' + 'x' * 100000)",
    "raises a stop": "raise KeyboardInterrupt",
    "raises the end of a generator": "raise GeneratorExit",
    "raises a group": "raise BaseExceptionGroup('x', [KeyboardInterrupt(), ValueError()])",
    "raises an exit": f"sys.exit('\\n## {FORGED}')",
    "recurses without end": "f = lambda: f(); f()",
    "ends the process": "os._exit(0)",
    "ends the process with 3": f"print('## {FORGED}', flush=True); os._exit(3)",
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "aborts": "os.abort()",
    "floods": "print('x' * 5_000_000)",
    "leaves a child": ORPHAN.format(new=True),
    "closes the answer": "os.closerange(3, 64)",
}
"""What a hook does; of all of them something has to be told."""
WORSE = {
    "hangs": "time.sleep(600)",
    "ignores signals and hangs": "[signal.signal(s, signal.SIG_IGN) for s in (15, 2, 14)]; time.sleep(600)",
}
RETURNED = {
    "None": "return None",
    "a number": "return 3",
    "texts": "return ['passed']",
    "itself": "a = []; a.append(a); return a",
    "NaN": "return [Verdict.model_construct(name='x', passed=True, measured=float('nan'), threshold=0.0)]",
    "infinity": "return [Verdict.model_construct(name='x', passed=True, measured=float('inf'), threshold=0.0)]",
    "what was never checked": "return [Verdict.model_construct(name=7, passed='yes', measured='2', threshold=[])]",
    "three thousand verdicts": "return [Verdict(name='x', passed=True, measured=1, threshold=0)] * 3000",
}
HARMLESS = {
    "prints a page": f"print('\\x1b[2J## {FORGED}'); return []",
    "changes the report": "object.__setattr__(report, 'groups', ()); return []",
    "changes what judges": "import abair_registry.operations.gates as g; g.evaluate_gates = None; return []",
    "is called like a gate of the registry": (
        "return [Verdict(name='clean photos', passed=True, measured=99.0, threshold=1.0)]"
    ),
    "returns no verdict": "return []",
    "returns a generator of none": "return (x for x in ())",
    "forks": "os.fork(); return []",
}


def verdict(text: str, *, passed: bool) -> str:
    """A gate's body that says this text wherever it may say one."""
    fields = "name=t, unit=t, advice=t, detail=t"
    return f"t = {text!r}; return [Verdict({fields}, passed={passed}, measured=1.0, threshold=2.0)]"


def family() -> dict[str, Kind]:
    """The plugins that the probe refuses."""
    return {f"probe: {name}": Kind(installed(p), p.says, limits=p.limits) for name, p in FAMILY.items()}


def gates() -> dict[str, Kind]:
    """A live plugin's gate, when another one is disabled."""
    asked: dict[str, Any] = {"command": DISABLE, "live": True, "says": "frost"}
    kinds = {
        f"gate: text with {name}": Kind(gate(verdict(text, passed=False)), **asked) for name, text in TEXTS.items()
    }
    kinds |= {f"gate: {name}": Kind(gate(body), **asked) for name, body in ERRORS.items()}
    kinds |= {f"gate: {name}": Kind(gate(body), **asked, seconds=8) for name, body in WORSE.items()}
    kinds |= {f"gate: returns {name}": Kind(gate(body), **asked) for name, body in RETURNED.items()}
    forced: dict[str, Any] = {"command": FORCED, "live": True, "changes": True, "code": 0}
    kinds |= {f"gate: {name}": Kind(gate(body), **forced) for name, body in HARMLESS.items()}
    for name in ("a heading", "HTML"):
        kinds[f"gate: forced though it says {name}"] = Kind(gate(verdict(TEXTS[name], passed=False)), **forced)
    return kinds


def notices() -> dict[str, Kind]:
    """A live plugin's notice of a deployment: that is live, whatever the notice does."""
    told: dict[str, Any] = {"command": FORCED, "live": True, "changes": True, "code": 0}
    failing: dict[str, Any] = {**told, "says": "notice of the deployment"}
    kinds = {f"notice: {name}": Kind(notice(body), **failing) for name, body in ERRORS.items()}
    kinds |= {f"notice: {name}": Kind(notice(body), **failing, seconds=8) for name, body in WORSE.items()}
    change = "object.__setattr__(deployment, 'labels', ()); os.chdir('/'); print('\\x1b[2J')"
    kinds["notice: changes what it was told"] = Kind(notice(change), **told)
    kinds["notice: returns a heading"] = Kind(notice(f"return '## {FORGED}'"), **told)
    return kinds


def later() -> dict[str, Kind]:
    """A live plugin whose package was changed after it was admitted."""
    meets: dict[str, Any] = {"live": True, "command": DISABLE, "says": "frost"}
    looked: dict[str, Any] = {"live": True, "command": ("doctor",), "code": 0}
    package = Path("abair_frost")
    kinds = {
        "later: does not import": Kind(module("import no_such_module"), **meets),
        "later: is no Python": Kind(module("def ("), **meets),
        "later: exits when imported": Kind(module("raise SystemExit(0)"), **meets),
        "later: ends the process when imported": Kind(module(f"{HEAD}\nos._exit(0)"), **meets),
        "later: hangs when imported": Kind(module("import time; time.sleep(600)"), **meets, seconds=8),
    }
    changed: dict[str, Install] = {
        "a changed module": lambda site, _: (site / package / "__init__.py").write_text("x = 1"),
        "a lost module": lambda site, _: (site / package / "__init__.py").unlink(),
        "a lost package": lambda site, _: shutil.rmtree(site / package),
        "a changed adapter": lambda site, _: next(site.rglob("*.safetensors")).write_bytes(b"other"),
        "a lost adapter": lambda site, _: shutil.rmtree(site / package / "adapters"),
        "no metadata": lambda site, _: shutil.rmtree(site / INFO),
        "a version of escape sequences": lambda site, _: info("METADATA", "Name: abair-frost\nVersion: \x1b[2J 9\n")(
            site
        ),
        "entry points that cannot be read": lambda site, _: info("entry_points.txt", "[abair\nno")(site),
        "its name in another distribution": lambda site, _: write_metadata(
            site, "abair-thief", {"frost": "abair_frost"}, []
        ),
    }
    kinds |= {f"later: {name}, looked at": Kind(install, **looked) for name, install in changed.items()}
    rolled: dict[str, Any] = {"live": True, "command": ("rollback", "--reason", "odd"), "code": 0, "changes": True}
    kinds |= {f"later: {name}, rolled back": Kind(install, **rolled) for name, install in changed.items()}
    return kinds


def trainings() -> dict[str, Kind]:
    """A synthesiser that is good while it is probed."""
    bodies = {
        **{name: body for name, body in ERRORS.items() if name not in {"leaves a child", "closes the answer"}},
        "returns nothing": "return None",
        "returns another shape": "return damaged[:, :1]",
        "returns a list": "return damaged.tolist()",
        "returns NaN": "return damaged / 0 * 0",
        "returns infinity": "return damaged / 0",
        "forges the end": "forge(b'result', b'null'); os._exit(0)",
        "forges progress": "forge(b'progress', b'null'); return damaged",
    }
    return {f"training: {name}": Kind(in_training(body), "frost") for name, body in bodies.items()}


def metadata() -> dict[str, Kind]:
    """Damaged, doubled or odd metadata, when plugins are listed and added."""
    listed: dict[str, Any] = {"command": ("list",), "code": 0}
    point = "[abair]\n{} = abair_frost\n"
    added: dict[str, tuple[Change, str]] = {
        "a changed file": (lambda site: (site / "abair_frost/synthesis.py").write_text("x = 1"), "was changed since"),
        "a lost file": (lambda site: (site / "abair_frost/synthesis.py").unlink(), "cannot be read"),
        "a lost module": (lambda site: (site / "abair_frost").rename(site / "other"), "which is not there"),
        "no module's name": (info("entry_points.txt", "[abair]\nfrost = ../../x y\n"), "which is not there"),
        "Python's module": (info("entry_points.txt", "[abair]\nfrost = sys\n"), "which is not there"),
        "a module of ours": (info("entry_points.txt", "[abair]\nfrost = abair.cli\n"), "frost"),
        "a cut record": (info("RECORD", "abair_frost/__init__.py\n"), "its RECORD cannot be read"),
        "a binary record": (info("RECORD", b"\xff\xfe\x00"), "its RECORD cannot be read"),
        "a folder as record": (as_folder("RECORD"), "frost"),
        "a record of other places": (info("RECORD", "../../x,,\n/x/y,,\nabair_frost/__init__.py,,\n"), "frost"),
        "a version of escape sequences": (info("METADATA", "Name: abair-frost\nVersion: \x1b[2J 1\n"), "found version"),
        "a version without an end": (info("METADATA", f"Name: abair-frost\nVersion: {'9' * 99999}\n"), "found version"),
        "a name of a heading": (info("METADATA", f"Name: '## {FORGED}'\nVersion: 1\n"), "found distribution"),
        "entry points that cannot be read": (info("entry_points.txt", "[scripts]\nno entry\n"), "cannot be read"),
        "binary entry points": (info("entry_points.txt", b"\xff\xfe\x00[abair]\n"), "cannot be read"),
        "a folder as entry points": (as_folder("entry_points.txt"), "cannot be read"),
        "a second distribution": (lambda site: write_metadata(site, "abair-winter", {"frost": "abair_frost"}, []),
                                  "found in 2 distributions"),
        "its degradation called clean": (lambda site: (site / "abair_frost/__init__.py").write_text(
            declaring("name='clean'")), "was changed since"),
    }  # fmt: skip
    kinds = {f"metadata: {name}": Kind(then(change), says) for name, (change, says) in added.items()}
    shown: dict[str, Change] = {
        "an entry point of escape sequences": info("entry_points.txt", point.format("\x1b[2Jfrost")),
        "an entry point of a heading": info("entry_points.txt", point.format(f"## {FORGED}")),
        "an entry point without an end": info("entry_points.txt", point.format("f" * 99999)),
        "an entry point from right to left": info("entry_points.txt", point.format("\u202etsorf")),
        "a distribution of escape sequences": info("METADATA", "Name: \x1b[2Jfrost\nVersion: 1\n"),
        "a distribution without an end": info("METADATA", f"Name: {'f' * 99999}\nVersion: 1\n"),
        "metadata that is binary": info("METADATA", b"Name: \xff\xfe\nVersion: \x00\n"),
        "metadata that is a folder": as_folder("METADATA"),
        "what an interrupted pip left": lambda site: write_info(
            site, "~rost-1.0.dist-info", "abair-frost", b"[abair]\nx"
        ),
        "distributions that are damaged": write_damaged,
    }
    kinds |= {f"metadata: {name}, listed": Kind(then(change), **listed) for name, change in shown.items()}
    double = then(lambda site: write_metadata(site, "abair-winter", {"noise": "abair_frost"}, []))
    kinds["metadata: the name of a live plugin, added"] = Kind(double, "found in 2", ("add", "noise", *ROUTE))
    kinds["metadata: the name of a live plugin, disabled"] = Kind(
        double, "abair-winter, recorded for abair-noise", FORCED, code=0, changes=True
    )
    alike = then(info("entry_points.txt", point.format("n\u043eise")))
    kinds["metadata: a name that looks like another"] = Kind(alike, "expected letters", ("add", "n\u043eise", *ROUTE))
    many = then(info("entry_points.txt", "[abair]\n" + "".join(f"frost{n} = abair_frost\n" for n in range(3000))))
    kinds["metadata: three thousand plugins"] = Kind(many, "no installed distribution", ("add", "zzz", *ROUTE))
    trap = then(write_trap)
    kinds["groups: every group that libraries load, listed"] = Kind(trap, **listed)
    kinds["groups: every group that libraries load, looked at"] = Kind(trap, command=("doctor",), code=0)
    return kinds


KINDS: dict[str, Kind] = {**metadata(), **family(), **gates(), **notices(), **later(), **trainings()}
