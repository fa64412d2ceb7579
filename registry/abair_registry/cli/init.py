"""The command `abair-registry init`: begin a registry, or rebuild a lost one."""

from __future__ import annotations

from typing import Annotated

import typer

from abair.cli.console import reporting
from abair_registry.cli.common import ActorOption, Json, Reason, acting_user

app = typer.Typer()


@app.command()
def init(
    from_home: Annotated[
        bool,
        typer.Option(
            "--from-home",
            help="Rebuild the registry of a lost or damaged database from deployment.json, its blobs, and the bundles "
            "of MLflow's runs in this home.",
        ),
    ] = False,
    actor: ActorOption = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Begin a registry with the deployment that comes with ABAIR, or rebuild one that was lost.

    Other commands that write begin one by themselves in an empty home. Who did what and why cannot
    be rebuilt; what else is missing is said at the end.

    Example: abair-registry init --from-home --reason "registry.db was deleted"
    """
    with reporting(json_lines=json) as reporter:
        from abair.errors import RegistryError
        from abair_registry.maintenance import rebuild
        from abair_registry.registry import is_empty, keep_backup, open_registry, sync_live_file
        from abair_registry.settings import Settings

        settings = Settings()
        if from_home:
            done = rebuild.from_home(settings, acting_user(actor, reason))
        elif not is_empty(settings):
            raise RegistryError("registry: there is one; expected none to begin; see: abair-registry history")
        with open_registry(settings) as registry:
            sync_live_file(registry)
            keep_backup(registry)
        if not from_home:
            if json:
                reporter.result({"deployment": 1, "earlier": [], "lost": []})
            else:
                print("deployment 1 is live: the one that comes with ABAIR", flush=True)
            return
        if done.replaced is not None:
            reporter.log(f"the damaged database is now {done.replaced}")
        if json:
            reporter.result({"deployment": done.live, "earlier": list(done.earlier), "lost": list(done.lost)})
            return
        earlier = ", ".join(map(str, done.earlier)) or "none"
        print(f"deployment {done.live} is live, recorded from what serves; earlier deployments: {earlier}", flush=True)
        for line in done.lost:
            print(f"lost: {line}", flush=True)
