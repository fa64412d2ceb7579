"""Damage a home, one file after the other, and see whether it is told rightly and mended.

Run: python benchmarks/campaigns/damage.py [--count N] [--seed S] [--case NAME]

Every kind of file in a used home is lost, emptied, cut off, altered by one byte, moved, made
read-only, or replaced by a folder; and a disk is full. Then

- `list`, `history`, `verify` and `doctor --dry-run` write nothing, and say what they say in lines;
- a photo comes back as before, or it fails with a line that says what to do;
- `doctor`, and what it advises, word for word, lead to a home in which nothing is wrong, or the
  line says that the file is to be put back from a backup;
- what serves is then what served before, and what needed mending was told.

A line for each wrong case. The exit code is 1 if there is one. Needs Linux.
"""

from __future__ import annotations

import resource
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.advice import Adviser
from tests.support.campaign import Parts
from tests.support.campaign_homes import Homes
from tests.support.outside import (
    Serving,
    WrongError,
    ask,
    become_nobody,
    chosen,
    give_away,
    manners,
    nothing,
    parse,
    restore,
    workplace,
)

from abair.deployment import read_deployment

LOOKS = (("list",), ("history",), ("verify",), ("doctor", "--dry-run"))
OWN_OF_SQLITE = ("-shm", "-wal")
NEEDED = ("live blob", "deployment.json", "registry.db", "mlflow.db", "champion's bundle")
"""Files whose loss must be told or mended."""
WRITES: dict[str, tuple[str, ...]] = {
    "doctor": ("doctor",),
    "rollback": ("rollback", "--to", "1", "--reason", "a campaign"),
    "disable": ("disable", "rain", "--yes", "--force", "--reason", "a campaign"),
}
ROOMS = (0, 5000, 200_000)
"""Bytes that a file can have on a full disk."""


def _altered(path: Path) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _replaced(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "lost": lambda path: shutil.rmtree(path) if path.is_dir() else path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "altered": _altered,
    "moved": lambda path: path.rename(path.with_name(f"{path.name}.old")),
    "a folder": _replaced,
}
OF_FOLDERS = ("lost", "moved", "a folder")
READ_ONLY = "read-only"


class Campaign:
    """A used home with two kinds of state: all told to MLflow, and something kept for it."""

    def __init__(self, root: Path, parts: Parts) -> None:
        self.root = root
        homes = Homes(root, parts, None)
        host, _ = homes.put("used", "promote")
        for name in ("factory", "clean"):  # where a user without rights may read them
            shutil.copytree(getattr(parts, name), root / "readable" / name)
        self.host = replace(host, variables={
            **host.variables,
            "ABAIR_FACTORY": str(root / "readable" / "factory"), "ABAIR_CLEAN_DIR": str(root / "readable" / "clean"),
        })  # fmt: skip
        self._keep("told")
        away = replace(self.host, variables={**self.host.variables, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
        said = ask(away, *WRITES["disable"])
        assert said.code == 0, said
        self._keep("kept")
        self.files = {
            **{name: ("told", path) for name, path in describe(root / "told").items()},
            **{name: ("kept", path) for name, path in describe(root / "kept").items() if name.startswith("outbox")},
        }
        self._serving: dict[str, Serving] = {}

    def _keep(self, name: str) -> None:
        shutil.copytree(self.host.home, self.root / name, symlinks=True)

    def cases(self) -> dict[str, Callable[[], str]]:
        """All cases by name."""
        found: dict[str, Callable[[], str]] = {}
        for file, (template, path) in self.files.items():
            folder = (self.root / template / path).is_dir()
            for damage in [name for name in DAMAGES if not folder or name in OF_FOLDERS]:
                found[f"{file}, {damage}"] = partial(self.damage, file, damage)
            found[f"{file}, {READ_ONLY}"] = partial(self.make_read_only, file)
        found[f"the home, {READ_ONLY}"] = partial(self.make_read_only, None)
        for room in ROOMS:
            for command in WRITES:
                found[f"no file over {room} bytes, {command}"] = partial(self.fill, room, command)
        return found

    def put(self, template: str) -> Serving:
        """Put a home in place; return what it serves."""
        if self.host.home.exists():
            for path in self.host.home.rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o644)
            self.host.home.chmod(0o755)
            shutil.rmtree(self.host.home)
        shutil.copytree(self.root / template, self.host.home, symlinks=True)
        if template not in self._serving:
            self._serving[template] = Serving.of(self.host)
        return self._serving[template]

    def damage(self, file: str, damage: str) -> str:
        """Damage a file and mend it; return how it was mended. Raises WrongError."""
        template, place = self.files[file]
        serving = self.put(template)
        path, kept = self.host.home / place, self.root / template / place
        DAMAGES[damage](path)
        told = self._look(serving)

        def put_back() -> None:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(kept, path) if kept.is_dir() else shutil.copy2(kept, path)

        adviser = Adviser(self.host, put_back)
        adviser.mend()
        self._check_sound(serving, rolled_back=any("rollback" in advice for advice in adviser.followed))
        if adviser.followed:
            return f"mended by advice ({'; '.join(_short(advice) for advice in adviser.followed)})"
        if adviser.told:
            return "mended by doctor"
        if _same(path, kept):
            return "made again"
        needed = file.startswith(NEEDED) and not file.endswith((*OWN_OF_SQLITE, ".lock"))  # which are empty
        if needed and not (damage == "altered" and "bundle" in file) and not told:
            if damage == "altered" and file.endswith(".db"):
                return "not noticed in a database"
            raise WrongError("nobody said that it is not as it was")
        return "told and left" if told else "not needed"

    def make_read_only(self, file: str | None) -> str:
        """Make a file or the home read-only, for a user without rights. Raises WrongError."""
        template, place = self.files[file] if file else ("told", Path("."))
        serving = self.put(template)
        path = self.host.home / place
        give_away(self.host.home)
        for one in [path, *(path.rglob("*") if path.is_dir() else ())]:
            one.chmod(0o555 if one.is_dir() else 0o444)
        self._look(serving, become_nobody)
        said = ask(self.host, *WRITES["rollback"], before=become_nobody)
        self._check_written(said.code == 0, serving, manners(said))
        for one in [path, *(path.rglob("*") if path.is_dir() else ())]:
            if one.exists():  # SQLite takes its own away
                one.chmod(0o755 if one.is_dir() else 0o644)
        return self._once_it_can(said.code == 0, "rollback")

    def fill(self, room: int, command: str) -> str:
        """Run a command while no file can grow beyond so many bytes. Raises WrongError."""
        serving = self.put("told")

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

        for look in LOOKS:
            said = ask(self.host, *look, before=limit)
            if wrong := manners(said) + ([] if said.code == 0 else [f"cannot look: {said}"]):
                raise WrongError("; ".join(wrong))
        said = ask(self.host, *WRITES[command], before=limit)
        wrong = manners(said)
        if command == "doctor" or said.code != 0:
            self._check_written(False, serving, wrong)
        elif wrong:
            raise WrongError("; ".join(wrong))
        return self._once_it_can(said.code == 0, command)

    def _once_it_can(self, done: bool, command: str) -> str:
        """Check that the command works where files can be written again."""
        Adviser(self.host).mend()
        said = ask(self.host, *WRITES[command])
        if said.code != 0:
            raise WrongError(f"afterwards: {said}")
        self._check_sound(None, rolled_back=True)
        return "done all the same" if done else "refused with a line"

    def _check_written(self, done: bool, serving: Serving, wrong: list[str]) -> None:
        found = Serving.of(self.host)
        if done and read_deployment(self.host.home).name != "1":
            wrong.append("said that deployment 1 is live, and it does not serve")
        if not done and found != serving:
            wrong.append("changed what serves and failed")
        if wrong:
            raise WrongError("; ".join(wrong))

    def _look(self, serving: Serving, before: Callable[[], object] = nothing) -> bool:
        """Check that looking writes nothing and restoring is told; return whether anything was."""
        state, wrong, told = self._state(), list[str](), False
        for look in LOOKS:
            said = ask(self.host, *look, before=before)
            wrong += manners(said)
            told |= said.code != 0 or said.has("warning: ")
        if (after := self._state()) != state:
            names = [name for name in state.keys() | after.keys() if state.get(name) != after.get(name)]
            wrong.append(f"looking wrote {names}")
        said, photo = restore(self.host, before)
        wrong += manners(said)
        if photo != serving.photo and not said.complaints:
            wrong.append(f"a photo came back differently, and nothing was said: {said}")
        if not photo and "run: " not in said.err and "set " not in said.err and "put " not in said.err:
            wrong.append(f"no photo, and no advice: {said}")
        if wrong:
            raise WrongError("; ".join(wrong))
        return told or bool(said.complaints)

    def _state(self) -> dict[str, bytes]:
        home = self.host.home
        return {
            str(path.relative_to(home)): path.read_bytes()
            for path in home.rglob("*")
            if path.is_file() and not path.name.endswith(OWN_OF_SQLITE)
        }

    def _check_sound(self, serving: Serving | None, *, rolled_back: bool) -> None:
        for look in LOOKS:
            said = ask(self.host, *look)
            if said.code != 0 or said.has("warning: "):
                raise WrongError(f"after it was mended: {said}")
        said = ask(self.host, "doctor")
        if said.code != 0 or "mended: " in said.out:
            raise WrongError(f"a second time: {said}")
        found = Serving.of(self.host)
        if not found.photo or (serving is not None and not rolled_back and found.photo != serving.photo):
            raise WrongError("what serves is not what served before")


def describe(home: Path) -> dict[str, Path]:
    """Return a file of each kind in a home, by what it is, relative to the home."""
    found: dict[str, Path] = {}
    bundle = read_deployment(home)
    live = {file.sha256: name for name, file in [
        ("backbone", bundle.backbone.file), ("estimator", bundle.estimator),
        *((f"config of {a.degradation}", a.config) for a in bundle.adapters[:1]),
        *((f"weights of {a.degradation}", a.weights) for a in (bundle.adapters[0], bundle.adapters[-1])),
    ]}  # fmt: skip
    needed = {file.sha256 for file in bundle.files()}
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        champion = str(database.execute(
            "SELECT run_id FROM model_versions v JOIN registered_model_aliases a ON a.version = v.version "
            "WHERE a.alias = 'champion'"
        ).fetchone()[0])  # fmt: skip
    others = 0
    for path in sorted(home.rglob("*")):
        place = path.relative_to(home)
        parts = place.parts
        if path.is_dir():
            if len(parts) == 1:
                found[f"folder {place}"] = place
        elif parts[0] == "blobs":
            if path.name in live:
                found[f"live blob: {live[path.name]}"] = place
            elif path.name not in needed:
                others += 1
                found[f"another blob {others}"] = place
        elif parts[0] == "artifacts":
            run = "champion" if champion in parts else "another run"
            what = "bundle" if "bundle" in parts else "run"
            found.setdefault(f"{run}'s {what}: {path.name}", place)
        elif parts[0] == "outbox":
            found.setdefault(f"outbox: {'entries' if path.suffix else 'a file'}", place)
        elif parts[0] == "backups":
            found["backup, newest"] = place
            found.setdefault("backup, oldest", place)
        else:
            found[str(place)] = place
    return found


def _same(path: Path, kept: Path) -> bool:
    if path.is_dir() or kept.is_dir():
        return (
            path.is_dir() and kept.is_dir() and {p.name for p in kept.rglob("*")} <= {p.name for p in path.rglob("*")}
        )
    return path.is_file() and path.read_bytes() == kept.read_bytes()


def _short(advice: str) -> str:
    return " ".join(word if not word.startswith("/") else Path(word).name for word in advice.split())[:60]


def main() -> int:
    """Run the cases; return 1 if one is wrong."""
    given, tally = parse("Damage every kind of file in a home.", "benchmarks/campaigns/damage.py")
    with workplace("abair-damage-", given.parts) as (root, parts):
        cases = Campaign(root, parts).cases()
        names = chosen(cases, given)
        for name in names:
            tally.run(name, cases[name])
    return tally.conclude(len(names))


if __name__ == "__main__":
    sys.exit(main())
