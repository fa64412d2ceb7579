"""Install hostile and broken packages, and look from outside what they reach.

Run: python benchmarks/campaigns/hostile.py [--count N] [--case NAME]

Each kind is installed as a package beside a home that serves. Then a command runs that meets it:
`add`, or one that asks a live plugin's gate, tells it of a deployment, or trains with it. After it

- what serves is what served before, unless the command did what it was asked for;
- the exit code is the expected one, and of a refusal there is one line that says why;
- the terminal got no control characters, no traceback, and few lines;
- the pages in MLflow hold no heading, link or tag that the package wrote;
- `list`, `show` and `verify` say what they said, and no process is left.

A line for each wrong kind. The exit code is 1 if there is one. Needs Linux. All packages are
harmless to what is outside of this project.
"""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.registry.conftest import FROST
from tests.support.campaign import FEWEST, Host, Parts, adopt_orphans, left_processes
from tests.support.foreign_package import what_ran
from tests.support.hostile_kinds import KINDS, TRAINED, Kind
from tests.support.outside import Said, Serving, WrongError, ask, chosen, forged, manners, pages, parse, workplace
from tests.support.plugin_package import CHANGED_LATER, Plugin

SECONDS_LEFT = 5.0
"""How long a process may live on after the command that started it."""


class Campaign:
    """Homes with a place where packages are installed."""

    def __init__(self, root: Path, parts: Parts) -> None:
        self.root, self.parts = root, parts
        variables = FEWEST | {
            "ABAIR_FACTORY": str(parts.factory), "ABAIR_CLEAN_DIR": str(parts.clean), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self.host = Host(root / "home", root / "site", variables)
        self._serving: dict[bool, Serving] = {}

    def put(self, *, live: bool) -> Serving:
        """Put a home and a site in place, with `frost` live or not; return what serves."""
        kept = self.root / ("live" if live else "begun")
        if not kept.exists():
            self._make(kept, live=live)
        for place in (self.host.home, self.host.site):
            shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(kept / "home", self.host.home)
        shutil.copytree(kept / "site", self.host.site)
        if live not in self._serving:
            self._serving[live] = Serving.of(self.host)
        return self._serving[live]

    def _make(self, kept: Path, *, live: bool) -> None:
        for place in (self.host.home, self.host.site):
            shutil.rmtree(place, ignore_errors=True)
        self.host.site.mkdir()
        commands = [("doctor",)]
        if live:
            Plugin(module=CHANGED_LATER, synthesis=FROST).make(self.host.site, self.parts.trained)
            commands.append(("add", "frost", *TRAINED))
        for command in commands:
            said = ask(self.host, *command)
            assert said.code == 0, said
        for place in (self.host.home, self.host.site):
            shutil.copytree(place, kept / place.name)

    def run(self, kind: Kind) -> str:
        """Run a kind; return how it ended. Raises WrongError."""
        serving = self.put(live=kind.live)
        kind.install(self.host.site, self.parts.trained)
        said = ask(self.host, *kind.command, before=partial(kind.limit, self.host.site))
        wrong = self._judge(kind, said, serving)
        for command in (("list",), ("show", "noise"), ("verify",)):
            looked = ask(self.host, *command)
            wrong += manners(looked)
            if looked.code != 0:
                wrong.append(f"found something wrong: {looked}")
        wrong += [f"a page of MLflow's shows {what}" for page in pages(self.host.home) for what in forged(page)]
        if wrong:
            raise WrongError("; ".join(wrong))
        return {0: "done", 1: "refused"}[said.code]

    def _judge(self, kind: Kind, said: Said, serving: Serving) -> list[str]:
        wrong = manners(said)
        if left := left_processes(SECONDS_LEFT):
            wrong.append(f"processes left: {left}")
        if said.code != kind.code:
            wrong.append(f"expected exit code {kind.code}: {said}")
        if ran := what_ran(self.host.site):
            wrong.append(f"modules of other groups ran: {ran}")
        if kind.says and not kind.tells(said):
            wrong.append(f"expected {kind.says!r}: {said}")
        if kind.code == 1 and len(refusals := [line for line in said.complaints if "; expected" in line]) > 1:
            wrong.append(f"{len(refusals)} lines of refusal: {said}")
        if not kind.changes and Serving.of(self.host) != serving:
            wrong.append(f"what serves has changed: {said}")
        if kind.changes and not Serving.of(self.host).photo:
            wrong.append(f"what serves does not restore: {said}")
        return wrong


def main() -> int:
    """Run the kinds; return 1 if one is wrong."""
    given, tally = parse("Install hostile and broken packages.", "benchmarks/campaigns/hostile.py")
    names = chosen(KINDS, given)
    with workplace("abair-hostile-", given.parts) as (root, parts):
        adopt_orphans()
        campaign = Campaign(root, parts)
        for name in names:
            tally.run(name, partial(campaign.run, KINDS[name]))
    return tally.conclude(len(names))


if __name__ == "__main__":
    sys.exit(main())
