"""Follows what commands advise, word for word, for the campaigns of damaged homes and of MLflow away."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.campaign import Host
from tests.support.outside import Said, WrongError, ask, manners

MOST_ROUNDS = 6
_COMMANDS = (
    ("db restore", "db restore --yes"),
    ("init --from-home", "init --from-home"),
    ("db upgrade", "db upgrade"),
    ("rollback --to (\\d+)", "rollback --to {}"),
    ("add ([\\w-]+)", "add {} --route features --force --reason advice"),
    ("resume", "resume"),
)
"""Commands that may be advised, and how they are typed where nobody can be asked."""


@dataclass
class Adviser:
    """Calls `doctor` until nothing is wrong, and does what it and other commands advise.

    `put_back` is what an administrator does who has a backup of the whole home.
    """

    host: Host
    put_back: Callable[[], object] | None = None
    before: Callable[[], object] = lambda: None
    variables: Mapping[str, str] = field(default_factory=dict)
    followed: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    """What was said to be wrong or mended."""

    def mend(self) -> None:
        """Come to a home in which nothing is wrong. Raises WrongError if there is no way."""
        for _ in range(MOST_ROUNDS):
            said = self.run("doctor")
            self.told += [line for line in said.out.splitlines() if line.startswith("mended: ")]
            if said.code == 0:
                return
            self.told += said.complaints
            self._follow(said)
        raise WrongError(f"advice leads nowhere: {self.followed}")

    def run(self, *command: str) -> Said:
        """Run a command, which must keep its manners."""
        said = ask(self.host, *command, before=self.before)
        if wrong := manners(said):
            raise WrongError("; ".join(wrong))
        return said

    def _follow(self, said: Said) -> None:
        text = " ".join(said.complaints)
        for pattern, typed in _COMMANDS:
            if (found := re.search(f"abair-registry {pattern}", text)) and self._is_new(found[0]):
                answer = self.run(*typed.format(*found.groups()).split())
                self.told += [*answer.complaints, *(x for x in answer.out.splitlines() if x.startswith("lost: "))]
                if answer.code != 0:  # it may know another way; else the next round finds one
                    with suppress(WrongError):
                        self._follow(answer)
                return
        for pattern, act in (
            (r"move (/\S+) away", _move_away),
            (r"is kept in (/[^;\s]+); to give it up, delete that folder", shutil.rmtree),
            (r"delete (/[^;\s]+)", _delete),
            (r"make (/\S+) writable", _make_writable),
        ):
            if (found := re.search(pattern, text)) and self._is_new(found[0]):
                act(Path(found[1]))
                return
        if self.put_back is not None and "from a backup of" in text and self._is_new("put back from a backup"):
            self.put_back()
            return
        raise WrongError(f"no advice that helps, after {self.followed}: {said}")

    def _is_new(self, advice: str) -> bool:
        """Note what is followed; the same again would be a circle."""
        if advice in self.followed:
            return False
        self.followed.append(advice)
        return True


def _move_away(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}.moved-away"))


def _delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _make_writable(path: Path) -> None:
    path.chmod(0o755 if path.is_dir() else 0o644)
