"""Around every request: who may ask, what every answer says, and no error without an answer."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Collection
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from abair.errors import ServingError
from abair.serving import problems
from abair.serving.forms import DEPLOYMENT
from abair.serving.live import LiveRestorer
from abair.serving.metrics import Metrics

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_FOREIGN: Final = ("cross-site", "same-site")
"""What browsers say of requests from pages of other sites, or of other ports of this machine."""


class Guard:
    """Middleware: refuses foreign hosts and origins, adds headers, counts, answers for errors.

    HEAD is answered as GET, without the body.

    `names` are the hosts that a request may be for, or empty for any. A page of another site that a
    user visits could otherwise reach a server on the same machine.
    """

    def __init__(
        self,
        app: ASGIApp,
        live: LiveRestorer,
        metrics: Metrics,
        names: Collection[str],
        log_error: Callable[[Exception], object],
    ) -> None:
        self._app, self._live, self._metrics, self._names, self._log_error = app, live, metrics, names, log_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        head = scope["method"] == "HEAD"
        if head:
            scope = {**scope, "method": "GET"}
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault(DEPLOYMENT, header_text(self._live.restorer.deployment.name))
            elif head:
                message = {**message, "body": b""}
            await send(message)

        try:
            refused = refuse_foreign(Headers(scope=scope), self._names)
            if refused is not None:
                await problems.of_error(refused)(scope, receive, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        except Exception as error:
            self._log_error(error)
            if status:  # too late for another answer
                raise
            await problems.of_error(error)(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", None) or "other"
            self._metrics.requests.labels(route, str(status)).inc()


def refuse_foreign(headers: Headers, names: Collection[str]) -> ServingError | None:
    """Return why a request is refused that is for another host, or comes from another site."""
    host = urlsplit(f"//{headers.get('host', '')}")
    try:
        name, _ = host.hostname or "", host.port
    except ValueError:
        name = ""
    if names and name not in names:
        return ServingError(
            f"found a request for the host {name!r}, expected {' or '.join(sorted(names))}; start abair serve with "
            "--allow-host NAME",
            421,
        )
    if (origin := headers.get("origin")) and urlsplit(origin).netloc.lower() != host.netloc.lower():
        return ServingError(f"found a request from a page of {origin!r}, expected one from this server's page", 403)
    # without an origin, as for pictures in a page; who follows a link to this page navigates
    if headers.get("sec-fetch-site") in _FOREIGN and headers.get("sec-fetch-mode") != "navigate":
        return ServingError("found a request from a page of another site, expected one from this server's page", 403)
    return None


def expected_names(host: str, allowed: Collection[str]) -> frozenset[str]:
    """Return the names that a server on `host` is called by, or none if they cannot be known.

    This machine's own names are among them, for those that ask how the server is; no page of
    another site is called so.
    """
    if not allowed and not is_loopback(host):
        return frozenset()
    return frozenset({"localhost", "127.0.0.1", "::1", *(name.lower() for name in allowed)})


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a server on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_token(request: Request, token: str | None) -> None:
    """Compare the bearer token of a request, in a time that does not depend on it.

    Raises:
        ServingError: one is expected, and none or another was found.
    """
    if token is None:
        return
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(given.strip().encode(), token.encode())
    if kind.lower() != "bearer" or not right:
        found = "another token" if given else "no token"
        raise ServingError(f"found {found}, expected the server's, as in: Authorization: Bearer TOKEN", 401)


def header_text(text: str) -> str:
    """Return text as a header can hold it: printable ASCII."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
