"""Kill operations of the registry with SIGKILL at random moments, and look at what is left.

Run: python benchmarks/campaigns/kills.py [--count N] [--seed S] [--postgresql]

Each case starts the real program in a fresh home, a used one or one of the first build, and kills
it: after a part of the time that the operation takes, or right after one of the changes that it
makes to its home. Then public commands must find that

- what serves is a whole deployment that restores: the one before the operation, or the one after;
- after the next command `deployment.json` is what the registry says is live;
- `doctor` mends everything: then `verify` and `doctor --dry-run` find nothing;
- `history` has all that was there before;
- `resume` finishes the operation, or has nothing to do;
- after five seconds no process is left.

A line for each wrong case says how to repeat it. The exit code is 1 if there is one. Needs Linux,
and a few seconds a case on a fast machine.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.campaign import (
    REASON,
    Host,
    Parts,
    Served,
    adopt_orphans,
    databases,
    left_processes,
)
from tests.support.campaign_homes import TRAINED, Homes, State

from abair.deployment import read_deployment

HOMES = ("fresh", "used", "old")
COMMANDS: dict[str, tuple[str, ...]] = {
    "add": ("add", "sleet", *TRAINED),
    "promote": ("promote", *REASON),
    "rollback": ("rollback", "--reason", "a campaign"),
    "disable": ("disable", "noise", "--yes", *REASON),
    "retrain": ("retrain", *REASON),
    "upgrade": ("upgrade", *TRAINED),
    "db upgrade": ("db", "upgrade"),
}
REFUSED = {("fresh", "promote"), ("fresh", "rollback"), ("old", "promote"), ("old", "retrain")}
"""Operations that a home refuses: it has nothing to promote or go back to, or another plugin."""
SECONDS_LEFT = 5.0
"""How long a process may live on after the one that started it."""
FIRST_SECONDS, FIRST_CHANGES = 10.0, 20.0
"""What an operation takes as long as nothing is known of it."""
POLL = 0.002


class WrongError(Exception):
    """Something does not hold after a kill."""


def expect(holds: bool, problem: object) -> None:
    """Nothing, if it holds.

    Raises:
        WrongError: It does not.
    """
    if not holds:
        raise WrongError(str(problem))


@dataclass(frozen=True)
class After:
    """What an operation makes live: number and labels."""

    number: int
    labels: frozenset[str]


@dataclass(frozen=True)
class Case:
    """A home, an operation, the part of it after which it is killed, and how that is counted."""

    home: str
    operation: str
    part: float
    counts_changes: bool
    delay: float
    resumes_first: bool

    @classmethod
    def draw(cls, seed: int, number: int) -> Case:
        """Return case `number`, whichever cases were drawn before."""
        chance = random.Random(f"{seed}/{number}")
        home = chance.choice(HOMES)
        operation = chance.choice([name for name in COMMANDS if name != "db upgrade" or home == "old"])
        return cls(
            home, operation, chance.random(), chance.random() < 0.5, chance.uniform(0, 0.03), chance.random() < 0.5
        )


def after(operation: str, before: State, factory: frozenset[str]) -> After | None:
    """Return what an operation makes live; None if it changes nothing."""
    if before.served is None:  # the factory's deployment comes first
        before = State(({"deployment": 1, "labels": sorted(factory)},), Served(1, tuple(factory), ""))
        if operation in ("promote", "rollback", "upgrade"):
            return None
    live = before.served
    assert live is not None
    newest = before.history[0]["deployment"]
    labels = frozenset(live.labels)
    match operation:
        case "add":
            return After(newest + 1, labels | {"sleet"})
        case "disable":
            return After(newest + 1, labels - {"noise"})
        case "retrain":
            return After(newest + 1, labels)
        case "upgrade":
            return After(newest + 1, labels | {"haze"})
        case "promote" if newest != live.number:
            return After(newest, before.labels_of(newest))
        case "rollback":
            return After(live.number - 1, before.labels_of(live.number - 1))
    return None


class Campaign:
    """Runs cases, and learns from each how long operations take."""

    def __init__(self, homes: Homes) -> None:
        self.homes = homes
        self.labels = frozenset(read_deployment(homes.parts.factory).labels)
        self._seconds: dict[tuple[str, str], float] = {}
        self._changes: dict[tuple[str, str], float] = {}
        self.steps: Counter[str] = Counter()

    def run(self, case: Case, moment: str | None) -> tuple[str, str]:
        """Run a case; return the moment of the kill, and what is wrong, if anything."""
        kind = (case.home, case.operation)
        moment = moment or self._moment(case, kind)
        host, before = self.homes.put(case.home, case.operation)
        code, seconds, changes, leftover = kill(host, COMMANDS[case.operation], moment, case.delay)
        killed = code == -signal.SIGKILL
        # learnt from operations that ended before they were killed; and longer after each kill
        known = self._seconds.get(kind, FIRST_SECONDS), self._changes.get(kind, FIRST_CHANGES)
        self._seconds[kind] = max(known[0], 1.2 * seconds) if killed else seconds
        self._changes[kind] = max(known[1], 1.2 * changes) if killed else max(changes, 1)
        if not killed:
            moment = "end"
        try:
            follows = None if kind in REFUSED else after(case.operation, before, self.labels)
            refused = int(kind in REFUSED)
            expect(killed or code == refused, f"exit code {code}, expected {refused}")
            expect(not leftover, f"processes left: {leftover}")
            self._examine(case, host, before, follows, killed=killed)
        except WrongError as wrong:
            return moment, str(wrong)
        return moment, ""

    def _moment(self, case: Case, kind: tuple[str, str]) -> str:
        if case.counts_changes:
            return f"{1 + int(case.part * self._changes.get(kind, FIRST_CHANGES))}c"
        return f"{case.part * self._seconds.get(kind, FIRST_SECONDS):.3f}s"

    def _examine(self, case: Case, host: Host, before: State, follows: After | None, *, killed: bool) -> None:
        serves = self._check_served(host, before, follows)
        if case.operation == "db upgrade":
            answer = host.run("db", "upgrade")
            expect(answer.code == 0, f"db upgrade again: {answer}")
        first = "resume" if case.resumes_first else "doctor"
        rounds = [first, "doctor"] if case.resumes_first else [first, "resume"]
        looked = host.run("list")
        expect(looked.code == 0, f"list: {looked}")
        cut = re.search(r"was cut short at step (.*?): ", looked.err)
        for command in rounds:
            answer = host.run(command)
            if command == "resume" and (case.home, case.operation) in REFUSED and answer.code == 1:
                continue  # as it was refused before
            expect(answer.code == 0, f"{command}: {answer}")
            (told,) = answer.told
            if command == "doctor":
                expect(not told["problems"], f"doctor: {told}")
                self._check_sound(host)
            serves = self._check_served(host, before, follows)
            self._check_history(host, before, serves)
            if command == "resume":
                ran = told["outcome"] != "nothing to resume"
                expect(ran or not cut, f"an operation was cut short, but resume said {told}")
                expect(not ran or follows is None or (serves and serves.number == follows.number), f"resumed: {told}")
        if rounds[-1] == "resume":
            self._check_sound(host)
        self.steps[f"step {cut[1]}" if cut else "outside of an operation" if killed else "not killed"] += 1

    def _check_served(self, host: Host, before: State, follows: After | None) -> Served | None:
        """Check that what is served is what was before, or what follows."""
        try:
            serves = host.served(self.homes.photo)
        except RuntimeError as error:
            raise WrongError(str(error)) from None
        if serves is None:
            expect(before.served is None, "nothing is served any more")
            return None
        if before.served is None and serves.number == 1:
            expect(frozenset(serves.labels) == self.labels, f"the first deployment has labels {serves.labels}")
            return serves
        if before.served is not None and serves.number == before.served.number:
            expect(serves == before.served, f"{serves} is served as {before.served.number}, which was {before.served}")
            return serves
        found = After(serves.number, frozenset(serves.labels))
        expect(found == follows, f"{serves} is served; expected {before.served} or {follows}")
        return serves

    @staticmethod
    def _check_history(host: Host, before: State, serves: Served | None) -> None:
        """Check that all deployments are there as they were, and the one that serves is live."""
        answer = host.run("history")
        rows = answer.told
        expect(answer.code == 0, f"history: {answer}")
        numbers = [row["deployment"] for row in rows]
        expect(numbers == list(range(len(numbers), 0, -1)), f"history: deployments {numbers}")
        live = [row["deployment"] for row in rows if row["live"]]
        expect(serves is not None and live == [serves.number], f"{serves} is served, live is {live}")
        kept = {row["deployment"]: {**row, "live": None} for row in rows}
        for row in before.history:
            expect(kept.get(row["deployment"]) == {**row, "live": None}, f"history lost {row}")

    @staticmethod
    def _check_sound(host: Host) -> None:
        """Check that the commands that look find nothing wrong."""
        answer = host.run("verify")
        expect(answer.code == 0 and answer.told[0]["problems"] == [], f"verify: {answer}")
        answer = host.run("doctor", "--dry-run")
        expect(answer.code == 0 and answer.told[0]["problems"] == [], f"doctor --dry-run: {answer}")


def kill(host: Host, command: tuple[str, ...], moment: str, delay: float) -> tuple[int, float, int, list[str]]:
    """Start the program and kill it: `3.2s` after its start, at change `7c` of its home, or not.

    Returns its exit code, how long it lived, the changes seen, and the processes it left.
    """
    seconds = float(moment[:-1]) if moment.endswith("s") else None
    changes = int(moment[:-1]) if moment.endswith("c") else None
    began, seen, state = time.monotonic(), 0, signature(host.home)
    with (host.home.parent / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "abair_registry", *command],
            env=host.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        while process.poll() is None:
            if (found := signature(host.home)) != state:
                seen, state = seen + 1, found
            if seconds is not None and time.monotonic() - began >= seconds:
                process.kill()
                break
            if changes is not None and seen >= changes:
                time.sleep(delay)
                process.kill()
                break
            time.sleep(POLL)
        code = process.wait()
    return code, time.monotonic() - began, seen, left_processes(SECONDS_LEFT)


def signature(home: Path) -> object:
    """Return what changes when a file in the home does."""
    found = []
    for folder in (home, home / "blobs"):
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    status = entry.stat()
                    found.append((entry.path, status.st_size, status.st_mtime_ns))
        except OSError:  # not there yet, or gone while it was listed
            continue
    return found


def main() -> int:
    """Run the cases; return 1 if one is wrong."""
    parser = argparse.ArgumentParser(description="Kill operations of the registry at random moments.")
    parser.add_argument("--count", type=int, default=1000, help="cases to run (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (0)")
    parser.add_argument("--postgresql", action="store_true", help="keep the registries in PostgreSQL")
    parser.add_argument("--case", type=int, help="run this case alone, as a line about a wrong one says")
    parser.add_argument(
        "--moment", help="and kill it at this moment: 3.2s after its start, or at change 7c of its home"
    )
    parser.add_argument("--verbose", action="store_true", help="tell of right cases, too, on stderr")
    parser.add_argument("--parts", type=Path, help="folder that keeps bundles and adapters for the next campaign")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="abair-kills-", ignore_cleanup_errors=True) as folder:
        root = Path(folder).resolve()
        parts = Parts.make((given.parts or root / "parts").resolve())
        with databases(given.postgresql) as found:
            adopt_orphans()
            return run_cases(Campaign(Homes(root, parts, found)), given)


def run_case(campaign: Campaign, number: int, given: argparse.Namespace) -> bool:
    """Run one case and print it if it is wrong; return whether it is right."""
    case, began = Case.draw(given.seed, number), time.monotonic()
    moment, problem = campaign.run(case, given.moment if given.case is not None else None)
    if problem:
        server = " --postgresql" if given.postgresql else ""
        print(
            f"wrong: {case.operation} in the {case.home} home, killed at {moment}: {problem}; to repeat it: python "
            f"benchmarks/campaigns/kills.py --seed {given.seed} --case {number} --moment {moment}{server}",
            flush=True,
        )
    if given.verbose:
        took = time.monotonic() - began
        print(f"{number}: {case.home}, {case.operation}, {moment}, {took:.0f} s", file=sys.stderr, flush=True)
    return not problem


def run_cases(campaign: Campaign, given: argparse.Namespace) -> int:
    """Run what is asked for and print it."""
    numbers = range(given.count) if given.case is None else [given.case]
    ran = wrong = 0
    with suppress(KeyboardInterrupt):  # what ran until then is told
        for number in numbers:
            wrong += not run_case(campaign, number, given)
            ran += 1
    left_processes(0)
    where = ", ".join(f"{count} {step}" for step, count in sorted(campaign.steps.items()))
    kind = "PostgreSQL" if given.postgresql else "SQLite"
    print(f"{ran - wrong} of {ran} right, seed {given.seed}, {kind}; {where}", flush=True)
    return int(wrong > 0 or ran < len(numbers))


if __name__ == "__main__":
    sys.exit(main())
