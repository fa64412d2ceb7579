"""Errors as problem details (RFC 9457), in the words of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, cast

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError

from abair.errors import AbairError, DeploymentError, ServingError
from abair.text import describe_fields, one_line

MEDIA_TYPE: Final = "application/problem+json"
_OUT_OF_MEMORY: Final = ("out of memory", "not enough memory", "allocate memory")  # PyTorch's words, in a RuntimeError


class Problem(BaseModel):
    """What went wrong; `error` is the name of ABAIR's class for it."""

    type: str = "about:blank"
    title: str = Field(description="the meaning of the status")
    status: int
    detail: str = Field(description="one line: the thing, what was found, what was expected, what to do")
    error: str = Field(description="the class of abair.errors, or that of another error")


def answer(status: int, detail: str, error: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer for a problem."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    problem = Problem(title=title, status=status, detail=one_line(detail), error=error)
    return JSONResponse(problem.model_dump(), status, dict(headers or {}), MEDIA_TYPE)


def of_error(error: BaseException, aliases: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer for an error; `aliases` replace paths that mean nothing to clients.

    What is not meant for people is called unexpected and says no more.
    """
    name = type(error).__name__
    if isinstance(error, ServingError):
        headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        if error.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return answer(error.status, str(error), name, headers)
    if isinstance(error, RequestValidationError | ValidationError):
        return answer(422, _fields(error), "WeightsError")
    if isinstance(error, AbairError):
        text = str(error)
        for path, alias in (aliases or {}).items():
            text = text.replace(path, alias)
        return answer(503 if isinstance(error, DeploymentError) else 422, text, name)
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY):
        return answer(507, "not enough memory; send a smaller photo", "MemoryError")
    return answer(500, f"unexpected {name}; the server's log says more", name)


def _fields(error: RequestValidationError | ValidationError) -> str:
    def name(place: tuple[int | str, ...]) -> str:
        return ".".join(str(part) for part in place if part != "query") or "options"

    return describe_fields(cast("ValidationError", error), name)  # both have the same `errors()`


RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    status: {
        "description": HTTPStatus(status).phrase,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status in (400, 401, 403, 408, 413, 421, 422, 429, 500, 503, 504, 507)
}
"""The problems of the routes that take photos, for the OpenAPI document."""
