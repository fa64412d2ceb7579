"""Let processes look at one registry and change it at the same time.

Run: python benchmarks/campaigns/crowd.py [--processes 8] [--operations 200] [--postgresql]

Each process calls commands that are drawn: `list`, `show`, `history`, `verify`, `doctor`,
`doctor --dry-run`, `promote`, `rollback`, `disable`, `enable`, and restores a photo. Then

- each exit code was the expected one: 1 only if somebody else was busy and `--wait` was not given;
- nothing complained of the database, and no command that looks found anything wrong;
- each operation that said it was done is recorded as done, with its event, and no other is;
- what serves is what the registry says is live, and is whole.

A line for each wrong answer. The exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from sqlalchemy import select
from tests.support.campaign import (
    FEWEST,
    REASON,
    Answer,
    Databases,
    Host,
    Parts,
    databases,
    make_photo,
    wait_for,
)
from tests.support.kill import start

from abair import Restorer
from abair_registry.db.engine import Database
from abair_registry.db.models import EventRow, OperationRow
from abair_registry.settings import Settings

LOOKING = (("list",), ("show", "noise"), ("history",), ("verify",), ("doctor", "--dry-run"), ("doctor",))
DEPLOYMENTS = 3
"""Deployments before the crowd comes, all of which were live."""
SHARES = {"look": 0.55, "restore": 0.1, "move": 0.3, "change": 0.05}
"""Of the commands; those that change what is live train an estimator, which takes seconds."""
BUSY = "is busy with", "a process that has recorded no operation holds the lock"


def draw(chance: random.Random) -> tuple[str, ...]:
    """Return the arguments of a command; none of a restoration."""
    kind = chance.choices(list(SHARES), list(SHARES.values()))[0]
    wait = ("--wait",) if kind == "change" or chance.random() < 0.5 else ()
    match kind:
        case "look":
            return chance.choice(LOOKING)
        case "restore":
            return ()
        case "move":
            number = str(chance.randint(1, DEPLOYMENTS))
            where = ("promote", number, *REASON) if chance.random() < 0.5 else ("rollback", "--to", number)
            return (*where, *wait)
        case _:
            toggle = (
                ("disable", "rain", "--yes") if chance.random() < 0.5 else ("enable", "rain", "--route", "features")
            )
            return (*toggle, *REASON, *wait)


def problem(arguments: tuple[str, ...], answer: Answer) -> str:
    """Return what is wrong with an answer, or nothing."""
    said = f"exit code {answer.code}, {answer.told}, {answer.err!r}"
    busy = answer.code == 1 and any(text in answer.err for text in BUSY)
    changes = arguments[0] in {"promote", "rollback", "disable", "enable"}
    if busy and changes and "--wait" not in arguments:
        return ""
    if answer.code != 0:
        return said
    if changes:
        return "" if answer.told[-1]["outcome"] == "live" else said
    alarms = [text for text in ("warning", "cut short", "mended") if f"{text}:" in answer.err]
    if arguments[0] in {"verify", "doctor"}:
        alarms += [*answer.told[0]["problems"], *answer.told[0].get("mended", [])]
    return f"false alarm: {said}" if alarms else ""


def take_part(host: Host, seed: int, number: int, operations: int, report: Path) -> None:
    """Call so many commands; write to `report` what said it was done, and what is wrong."""
    host.enter()
    chance = random.Random(f"{seed}/{number}")
    photo = make_photo()
    with report.open("w", buffering=1) as lines:
        for place in range(operations):
            arguments = draw(chance)
            where = f"process {number}, command {place}, {' '.join(arguments) or 'restore'}"
            if not arguments:
                try:
                    Restorer.load(host.home)(photo)
                except Exception as error:  # whatever it is, it is an answer that is wrong
                    print(f"wrong\t{where}: {error!r}", file=lines)
                print("ran\trestore", file=lines)
                continue
            answer = host.call(*arguments)
            print(f"ran\t{arguments[0]}", file=lines)
            if found := problem(arguments, answer):
                print(f"wrong\t{where}: {found}", file=lines)
            if answer.code == 0 and answer.told and (done := answer.told[-1].get("operation")):
                unchanged = answer.told[-1].get("unchanged")
                print(f"{'unchanged' if unchanged else 'done'}\t{done}", file=lines)


def recorded(host: Host) -> tuple[dict[int, str], Counter[int]]:
    """Return the state of each recorded operation, and how often each has an event of its end."""
    url = host.variables.get("ABAIR_REGISTRY_URL")
    database = Database(Settings(home=host.home, registry_url=url), read_only=True)
    with database.read() as session:
        states = {row.id: row.state for row in session.scalars(select(OperationRow))}
        events = Counter(
            row.operation_id for row in session.scalars(select(EventRow)) if row.action.endswith((" done", " undone"))
        )
    database.close()
    return states, events


def main() -> int:
    """Let them work; return 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description="Let processes use one registry at the same time.")
    parser.add_argument("--processes", type=int, default=8, help="at the same time (8)")
    parser.add_argument("--operations", type=int, default=200, help="of each process (200)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (0)")
    parser.add_argument("--postgresql", action="store_true", help="keep the registry in PostgreSQL")
    parser.add_argument("--parts", type=Path, help="folder that keeps bundles and adapters for the next campaign")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="abair-crowd-", ignore_cleanup_errors=True) as folder:
        root = Path(folder).resolve()
        parts = Parts.make((given.parts or root / "parts").resolve())
        with databases(given.postgresql) as found:
            host = begin(root, parts, found)
            before = set(recorded(host)[0])
            began = time.monotonic()
            reports = [root / f"report-{number}" for number in range(given.processes)]
            wrong = run_all(
                [
                    partial(take_part, host, given.seed, number, given.operations, report)
                    for number, report in enumerate(reports)
                ]
            )
            seconds = time.monotonic() - began
            lines = [line.split("\t", 1) for report in reports for line in report.read_text().splitlines()]
            wrong += [text for kind, text in lines if kind == "wrong"]
            wrong += check_records(host, before, {int(text) for kind, text in lines if kind in {"done", "unchanged"}})
            wrong += check_end(host)
    for line in wrong:
        print(f"wrong: {line}")
    ran = Counter(text for kind, text in lines if kind == "ran")
    expected = given.processes * given.operations
    changed = sum(kind == "done" for kind, _ in lines)
    print(
        f"{ran.total()} of {expected} commands answered in {seconds:.0f} s, {changed} changed what is live, "
        f"{len(wrong)} wrong, seed {given.seed}, {'PostgreSQL' if given.postgresql else 'SQLite'}; "
        + ", ".join(f"{count} {name}" for name, count in sorted(ran.items()))
    )
    return int(bool(wrong) or ran.total() != expected)


def begin(root: Path, parts: Parts, found: Databases | None) -> Host:
    """Make a home with deployments to go back to."""
    site = root / "site"
    site.mkdir()
    variables = FEWEST | {"ABAIR_FACTORY": str(parts.factory), "ABAIR_CLEAN_DIR": str(parts.clean)}
    if found is not None:
        variables["ABAIR_REGISTRY_URL"] = found.make("crowd")
    host = Host(root / "home", site, variables)
    for command in (("disable", "rain", "--yes", *REASON), ("enable", "rain", "--route", "features", *REASON)):
        answer = host.run(*command)
        assert answer.code == 0, answer
    return host


def run_all(works: list[Callable[[], None]]) -> list[str]:
    """Do the works in processes at the same time; return a line for each that failed."""
    codes = wait_for([start(work) for work in works])
    return [f"process {number}: exit code {code}" for number, code in enumerate(codes) if code != 0]


def check_records(host: Host, before: set[int], claimed: set[int]) -> list[str]:
    """Check that what said it was done is recorded, once, and nothing else."""
    states, events = recorded(host)
    new = {number: state for number, state in states.items() if number not in before}
    wrong = [f"operation {number}: said it was done, recorded {new.get(number)}"
             for number in sorted(claimed) if new.get(number) != "done"]  # fmt: skip
    wrong += [f"operation {number}: {state}, nobody said it was done"
              for number, state in new.items() if number not in claimed]  # fmt: skip
    wrong += [f"operation {number}: {events[number]} events of its end" for number in new if events[number] != 1]
    return wrong


def check_end(host: Host) -> list[str]:
    """When all have ended, nothing is wrong."""
    wrong = []
    for command in (("verify",), ("doctor",), ("doctor", "--dry-run")):
        if found := problem(command, host.run(*command)):
            wrong.append(f"at the end, {' '.join(command)}: {found}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
