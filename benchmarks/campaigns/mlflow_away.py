"""Take MLflow away, break it or tidy it up while the registry is used; then let it come back.

Run: python benchmarks/campaigns/mlflow_away.py [--count N] [--seed S] [--case NAME]

Each case is a trouble (a server that is not there, answers wrongly, or is killed in the middle; a
store that is damaged, older, newer or held; a run, version, alias or file that somebody deleted)
and an operation. While it lasts

- `list` and `history` say what they said, and a photo comes back as before;
- the operation and a rollback do their work, and tell of MLflow in a warning at most;
- `doctor` names MLflow, or mends it.

Then MLflow is back, or what the advice says was done, and after one `doctor`

- nothing is kept for later, and a second `doctor` finds nothing to do;
- the champion is the version of the live deployment, and each operation's run has ended, and holds
  its outcome.

A line for each wrong case. The exit code is 1 if there is one. Needs Linux.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.registry.conftest import make_tracking_tables
from tests.support.advice import Adviser
from tests.support.campaign import REASON, Host, Parts
from tests.support.campaign_homes import TRAINED, Homes
from tests.support.kill import forked
from tests.support.mlflow_troubles import SERVER, TROUBLES, Trouble
from tests.support.outside import Said, Serving, WrongError, ask, chosen, manners, parse, restore, workplace

from abair.deployment import read_deployment

OPERATIONS: dict[str, tuple[str, ...]] = {
    "promote": ("promote", "3", *REASON),
    "disable": ("disable", "rain", "--yes", *REASON),
    "enable": ("enable", "rain", *TRAINED),
    "add": ("add", "sleet", *TRAINED),
    "retrain": ("retrain", *REASON),
    "rollback": ("rollback", "--to", "1", *REASON[1:]),
}
BACK = ("rollback", "--to", "2", *REASON[1:])
MOST_WARNINGS = 3
UNCHANGED: Mapping[str, str] = {}


class Campaign:
    """A used home, beside it the empty store of a server."""

    def __init__(self, root: Path, parts: Parts) -> None:
        self.root = root
        self.homes = Homes(root, parts, None)
        assert forked(lambda: make_tracking_tables(root / "empty-server")) == 0
        self._serving: dict[bool, Serving] = {}

    def cases(self) -> dict[str, Callable[[], str]]:
        """All cases by name."""
        return {
            f"{name}, {operation}": partial(self.run, trouble, operation)
            for name, trouble in TROUBLES.items()
            for operation in OPERATIONS
        }

    def put(self, *, disabled: bool) -> tuple[Host, Serving]:
        """Put the home in place, with `rain` disabled or not, and the server's store."""
        host, _ = self.homes.put("used", "promote")
        kept = self.root / "disabled"
        if disabled and not kept.exists():
            said = ask(host, *OPERATIONS["disable"])
            assert said.code == 0, said
            shutil.copytree(host.home, kept)
        if disabled:
            shutil.rmtree(host.home)
            shutil.copytree(kept, host.home)
        shutil.rmtree(self.root / SERVER, ignore_errors=True)
        shutil.copytree(self.root / "empty-server", self.root / SERVER)
        if disabled not in self._serving:
            self._serving[disabled] = Serving.of(host)
        return host, self._serving[disabled]

    def run(self, trouble: Trouble, operation: str) -> str:
        """Run an operation in a trouble; return what became of it. Raises WrongError."""
        host, serving = self.put(disabled=operation == "enable")
        with trouble.begin(host) as variables:
            troubled = _with(host, variables)
            told = self._work(troubled, serving, operation, trouble)
        with trouble.back(host) if trouble.back else nullcontext(UNCHANGED) as variables:
            again = _with(host, variables)
            adviser = Adviser(again)
            adviser.mend()
            self._check(again, self.root / SERVER if trouble.back else host.home)
        if adviser.followed:
            return "told, mended by advice"
        return "told, mirrored later" if told else "mended by the operation" if not adviser.told else "mended by doctor"

    def _work(self, host: Host, serving: Serving, operation: str, trouble: Trouble) -> bool:
        """Do everything while MLflow is in trouble; return whether anybody told of it."""
        wrong = list[str]()
        for look in (("list",), ("history",), ("verify",)):
            said = ask(host, *look)
            wrong += manners(said) + ([] if said.code == 0 else [f"cannot look: {said}"])
        wrong += _restored(host, serving.photo)
        told = False
        for command in (OPERATIONS[operation], BACK):
            said = ask(host, *command)
            warnings = [line for line in said.complaints if line.startswith("warning: ")]
            told |= any("MLflow" in line for line in warnings)
            wrong += manners(said) + _done(said, host)
            if len(warnings) > MOST_WARNINGS or any("secret" in line for line in said.complaints):
                wrong.append(f"too much was said: {said}")
        if not restore(host)[1]:
            wrong.append("what serves does not restore")
        said = ask(host, "doctor")
        wrong += manners(said)
        if said.code != 0 and not (trouble.away and all("MLflow" in line for line in said.complaints[-1:])):
            wrong.append(f"doctor: {said}")
        if wrong:
            raise WrongError("; ".join(wrong))
        return told

    def _check(self, host: Host, place: Path) -> None:
        """Check that MLflow, whose store is in a folder, knows everything."""
        wrong = list[str]()
        said = ask(host, "doctor", "--json")
        if said.code != 0 or json.loads(said.out)["mended"]:
            wrong.append(f"a second time: {said}")
        if (host.home / "outbox").exists():
            wrong.append("something is kept for later still")
        live = read_deployment(host.home).name
        champion, runs = _look_in(place / "mlflow.db")
        if champion != live:
            wrong.append(f"champion is deployment {champion}, {live} is live")
        if open_runs := [kind for kind, status in runs if status == "RUNNING"]:
            wrong.append(f"runs that do not end: {open_runs}")
        if wrong:
            raise WrongError("; ".join(wrong))


def _with(host: Host, variables: Mapping[str, str]) -> Host:
    return replace(host, variables={**host.variables, **variables})


def _restored(host: Host, expected: bytes) -> list[str]:
    said, photo = restore(host)
    return manners(said) + ([] if photo == expected else [f"a photo came back differently: {said}"])


def _done(said: Said, host: Host) -> list[str]:
    """Return whether an operation says that it was done, and what it says is what serves."""
    live = f"deployment {read_deployment(host.home).name} is live"
    return [] if said.code == 0 and live in said.out else [f"not done, {live}: {said}"]


def _look_in(store: Path) -> tuple[str | None, list[tuple[str, str]]]:
    """Return the champion's deployment, and kind and status of all runs that are not deleted."""
    with closing(sqlite3.connect(store)) as database:
        found = database.execute(
            "SELECT t.value FROM registered_model_aliases a JOIN model_version_tags t "
            "ON t.name = a.name AND t.version = a.version WHERE a.alias = 'champion' AND t.key = 'abair.deployment'"
        ).fetchone()
        runs = database.execute(
            "SELECT t.value, r.status FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "
            "WHERE t.key = 'abair.kind' AND r.lifecycle_stage = 'active'"
        ).fetchall()
    return found[0] if found else None, runs


def main() -> int:
    """Run the cases; return 1 if one is wrong."""
    given, tally = parse("Take MLflow away while a registry is used.", "benchmarks/campaigns/mlflow_away.py")
    with workplace("abair-mlflow-", given.parts) as (root, parts):
        cases = Campaign(root, parts).cases()
        names = chosen(cases, given)
        for name in names:
            tally.run(name, cases[name])
    return tally.conclude(len(names))


if __name__ == "__main__":
    sys.exit(main())
