"""A client of `abair serve`, by httpx of the extra `serve`.

from abair.client import Client

with Client("http://127.0.0.1:8000") as client:
    restored = client.restore("photo.jpg")
    restored.save("restored.jpg")
    print(restored.weights)
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from abair import errors
from abair.errors import AbairError, MissingExtraError, ServingError, WeightsError
from abair.text import error_text

try:
    import httpx
except ImportError as error:
    raise MissingExtraError("abair.client: httpx is missing; install it with: pip install 'abair[serve]'") from error

Policy = Literal["soft", "one-hot", "backbone"]
Quality = Literal["standard", "best"]
Format = Literal["jpeg", "png", "webp", "tiff", "bmp"]
_BUSY: Final = frozenset({429, 503})


@dataclass(frozen=True)
class RestoredFile:
    """A restored photo as the bytes of a file, and how it was restored.

    The fields are those of the JSON lines of `abair restore`.
    """

    data: bytes
    media_type: str
    deployment: str
    weights: dict[str, float]
    policy: str
    quality: str
    strength: float
    seconds: float
    megapixels: float
    unchanged: bool
    warnings: tuple[str, ...] = ()
    confidence: float | None = None
    unknown: float | None = None
    further_looks: tuple[dict[str, float], ...] = ()

    def save(self, path: Path | str) -> None:
        """Write the file as it came; its format does not follow the path's suffix.

        Raises:
            OSError: it cannot be written.
        """
        Path(path).write_bytes(self.data)


@dataclass(frozen=True)
class Estimate:
    """What the estimator sees in a photo; the weights sum to 1.

    `confidence` is how much of them lies on true labels, as is to be expected, `unknown` the part
    of known photos that are more like what was learnt; each is None where the deployment cannot
    tell.
    """

    deployment: str
    weights: dict[str, float]
    megapixels: float
    confidence: float | None = None
    unknown: float | None = None


@dataclass(frozen=True)
class ServedDeployment:
    """What serves; `details` is all that the server says of it."""

    deployment: str
    labels: tuple[str, ...]
    details: dict[str, Any] = field(repr=False)


Told = TypeVar("Told", RestoredFile, Estimate, ServedDeployment)


class Client:
    """A connection to a server; several threads may use it."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        token: str | None = None,
        timeout: float = 660.0,
        patience: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Prepare the connection; nothing is sent yet.

        Args:
            url: where the server is.
            token: the bearer token that it asks for, if it does.
            timeout: seconds for one answer.
            patience: seconds to go on asking while the server has no place.
            transport: how httpx sends, for tests.
        """
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)
        self._patience = patience

    def __enter__(self) -> Self:
        """Return this client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def restore(
        self,
        photo: Path | str | bytes,
        *,
        weights: Mapping[str, float] | None = None,
        policy: Policy | None = None,
        strength: float = 1.0,
        quality: Quality = "standard",
        looks: int | None = None,
        format: Format | None = None,
        jpeg_quality: int | None = None,
    ) -> RestoredFile:
        """Restore a photo: a file, or its bytes. The options are those of `abair restore`.

        Raises:
            AbairError: what `Restorer` would raise, of the same class.
            ServingError: the server cannot be reached, or has no place for longer than `patience`.
            OSError: the file cannot be read.
        """
        options = {
            "weights": None if weights is None else _weights_text(weights),
            "policy": policy,
            "strength": None if strength == 1 else strength,
            "quality": None if quality == "standard" else quality,
            "looks": looks,
            "format": format,
            "jpeg_quality": jpeg_quality,
        }
        answer = self._send("/v1/restore", photo, {key: value for key, value in options.items() if value is not None})
        media_type = answer.headers.get("content-type", "")
        return _read(answer, RestoredFile, "ABAIR-Result", data=answer.content, media_type=media_type)

    def estimate(self, photo: Path | str | bytes) -> Estimate:
        """Estimate what is wrong with a photo: a file, or its bytes.

        Raises:
            AbairError: as for restoring.
        """
        return _read(self._send("/v1/estimate", photo, {}), Estimate)

    def deployment(self) -> ServedDeployment:
        """Return what serves.

        Raises:
            ServingError: the server cannot be reached, or asks for another token.
        """
        answer = self._ask("GET", "/v1/deployment")
        return replace(_read(answer, ServedDeployment, details={}), details=answer.json())

    def _send(self, route: str, photo: Path | str | bytes, options: Mapping[str, Any]) -> httpx.Response:
        if isinstance(photo, bytes):
            name, data = "photo", photo
        else:
            name, data = Path(photo).name, Path(photo).read_bytes()
        end = time.monotonic() + self._patience
        while True:
            try:
                return self._ask("POST", route, params=dict(options), files={"file": (name, data)})
            except ServingError as error:
                wait = error.retry_after
                if error.status not in _BUSY or wait is None or time.monotonic() + wait > end:
                    raise
            time.sleep(wait)

    def _ask(self, method: str, route: str, **content: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, route, **content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServingError(
                f"{self._http.base_url}: cannot be reached ({error_text(error)}), expected abair serve there"
            ) from error
        if answer.is_success:
            return answer
        raise _error_of(answer)


def _weights_text(weights: Mapping[str, float]) -> str:
    """Return weights as the server takes them.

    Raises:
        WeightsError: they are no numbers by label.
    """
    if not isinstance(weights, Mapping):
        raise WeightsError(f"weights: found {weights!r}, expected numbers by label, as in {{'noise': 0.7}}")
    for label, weight in weights.items():
        if not isinstance(weight, Real):
            raise WeightsError(f"weights: {label}={weight!r}: expected a number from 0 to 1")
    # without any label, all is left alone
    return ",".join(f"{label}={float(weight)!r}" for label, weight in weights.items()) or "clean=1"


def _read(answer: httpx.Response, kind: type[Told], header: str | None = None, **known: Any) -> Told:
    """Return what an answer tells, in its JSON or in a header with JSON, beside what is known.

    What a newer server tells beside that is passed over.

    Raises:
        ServingError: it tells something else.
    """
    try:
        found = json.loads(answer.headers[header] if header else answer.content)
        names = {one.name for one in fields(kind)} - set(known)
        told: dict[str, Any] = {name: value for name, value in found.items() if name in names}
        told = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
        return kind(**known, **told)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ServingError(
            f"{answer.url}: found an answer without what abair serve tells, expected its; correct the address"
        ) from None


def _error_of(answer: httpx.Response) -> AbairError:
    """Return the error that an answer tells of, of its class."""
    try:
        problem = answer.json()
        name, detail = str(problem["error"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        name, detail = "", f"{answer.url}: found the answer {answer.status_code}, expected one of abair serve"
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, AbairError) and kind is not ServingError:
        return kind(detail)
    after = answer.headers.get("retry-after", "")
    return ServingError(detail, answer.status_code, int(after) if after.isdecimal() else None)
