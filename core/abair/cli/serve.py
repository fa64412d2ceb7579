"""`abair serve`: the page and the HTTP API."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Annotated, Final

import typer

from abair.cli.console import Reporter, debug_enabled, explain, reporting
from abair.cli.loading import warn_of_live
from abair.cli.options import Bundle, Device, MaxMegapixels, Precision, PrecisionOption
from abair.errors import MissingExtraError, ServingError

TOKEN: Final = "ABAIR_SERVE_TOKEN"
"""The variable with the bearer token; an argument could be read by every user of the machine."""
SMALLEST_TOKEN: Final = 16


def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Listen on this address; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Listen on this port; 0 is any free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=f"Ask for the bearer token in this file; {TOKEN} is another way to give one."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Also answer requests for this host, such as a reverse proxy's; may be repeated."
        ),
    ] = None,
    max_body: Annotated[int, typer.Option(min=1, metavar="MIB", help="Refuse larger requests.")] = 200,
    queue: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Let so many requests wait; further ones are told when to ask again."),
    ] = 32,
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Restore so many photos at a time.")] = 1,
    time_limit: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="End a photo's work after that.")] = 600,
    grace: Annotated[
        int, typer.Option(min=0, metavar="SECONDS", help="At the end, wait so long for requests under way.")
    ] = 60,
    tile: Annotated[
        int | None,
        typer.Option(
            min=64, metavar="N", help="Width in pixels of the panels of a wide photo; less needs less memory."
        ),
    ] = None,
    device: Device = "cpu",
    precision: PrecisionOption = Precision.auto,
    deployment: Bundle = None,
    max_megapixels: MaxMegapixels = 100.0,
) -> None:
    """Serve a page and an HTTP API that restore photos, until Ctrl-C or SIGTERM.

    A deployment that goes live in the registry serves from the next request on. The API is
    described at /openapi.json. It needs the extra serve.
    """
    with reporting() as reporter:
        try:
            from abair.serving.live import LiveRestorer
            from abair.serving.options import Limits
            from abair.serving.server import listen
            from abair.serving.server import serve as run
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("abair"):
                raise
            raise MissingExtraError(
                f"abair serve: {error.name} is missing; install it with: pip install 'abair[serve]'"
            ) from error
        token = _read_token(token_file)
        warn_of_live(deployment, reporter)
        listener = listen(host, port)
        live = LiveRestorer(deployment, device=device, precision=precision.value, log=reporter.log)
        limits = Limits(
            max_megapixels=max_megapixels,
            max_body=max_body * 2**20,
            queue=queue,
            workers=workers,
            seconds=time_limit,
            tile=tile,
        )
        if token is None and not _is_loopback(host):
            reporter.log(f"warning: everybody who reaches {host} may use it; {TOKEN} or --token-file asks for a token")
        run(
            live,
            limits,
            listener,
            token=token,
            allowed=allow_host or (),
            grace=grace,
            log=reporter.log,
            log_error=lambda error: _log_error(error, reporter),
        )


def _is_loopback(host: str) -> bool:
    from abair.serving.guard import is_loopback

    return is_loopback(host)


def _log_error(error: Exception, reporter: Reporter) -> None:
    if debug_enabled():
        traceback.print_exception(error)
    reporter.log(explain(error))


def _read_token(file: Path | None) -> str | None:
    """Return the token that requests must bring, or None.

    Raises:
        ServingError: it cannot be read or is too short.
    """
    place = TOKEN if file is None else str(file)
    try:
        token = os.environ.get(TOKEN) if file is None else file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise ServingError(f"{file}: cannot be read ({reason}), expected a file with a token") from None
    if token is None:
        return None
    if len(token) < SMALLEST_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise ServingError(
            f"{place}: found a token of {len(token)} characters, expected at least {SMALLEST_TOKEN} of ASCII without "
            "spaces; make one with: openssl rand -hex 32"
        )
    return token
