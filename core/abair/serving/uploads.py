"""Uploads: counted while they arrive, kept in a file whose name no client chooses."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import BinaryIO, Final

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from abair.errors import ServingError
from abair.serving.options import Limits
from abair.text import quote_foreign

FILE: Final = "file"
"""The field of a form that holds the photo."""
UNNAMED: Final = "photo"
_LARGEST_FIELD: Final = 4096
_MOST_FIELDS: Final = 16
_LINGER_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Upload:
    """A photo that arrived: its file, what the client calls it, and the form's other fields."""

    path: Path
    name: str = UNNAMED
    fields: dict[str, str] = field(default_factory=dict)


async def receive(request: Request, folder: Path, limits: Limits) -> Upload:
    """Write a request's photo into `folder`: the body itself, or the field `file` of a form.

    It has some seconds to arrive, and more for each byte that did.

    Raises:
        ServingError: it is too large (413), takes too long (408) or is no right form (400, 422).
    """
    if (declared := request.headers.get("content-length", "")).isdecimal() and int(declared) > limits.max_body:
        raise _too_large(int(declared), limits.max_body)
    path = folder / "upload"
    try:
        async with asyncio.timeout(limits.upload_seconds) as end:
            chunks = _counted(request, limits, end)
            if request.headers.get("content-type", "").lower().startswith("multipart/"):
                return await _receive_form(request, chunks, path)
            with path.open("xb") as file:
                async for chunk in chunks:
                    file.write(chunk)
            return Upload(path)
    except TimeoutError:
        raise ServingError(
            f"found a request that did not arrive in time, expected it within "
            f"{limits.upload_seconds:g} seconds or at {limits.slowest_upload / 1000:g} kB a "
            "second; send a smaller photo, or by a faster connection",
            408,
        ) from None
    except ClientDisconnect:
        raise ServingError("the client is gone", 400) from None


async def _receive_form(request: Request, chunks: AsyncGenerator[bytes, None], path: Path) -> Upload:
    parser = MultiPartParser(
        request.headers,
        chunks,
        max_files=1,
        max_fields=_MOST_FIELDS,
        max_part_size=_LARGEST_FIELD,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise ServingError(
            f"found a form that cannot be read ({getattr(error, 'message', error)}), expected multipart/form-data "
            f"with one photo as {FILE}",
            400,
        ) from None
    try:
        photo = form.get(FILE)
        if not isinstance(photo, UploadFile):
            raise ServingError(f"found no file named {FILE} in the form, expected one photo as {FILE}", 422)
        await asyncio.to_thread(_copy, photo.file, path)
        fields = {key: value for key, value in form.multi_items() if isinstance(value, str)}
        # the last part of a path, of either system
        return Upload(path, quote_foreign(PureWindowsPath(photo.filename or "").name, 100) or UNNAMED, fields)
    finally:
        await form.close()


def _copy(source: BinaryIO, path: Path) -> None:
    source.seek(0)
    with path.open("xb") as file:
        shutil.copyfileobj(source, file)


async def _counted(request: Request, limits: Limits, end: asyncio.Timeout) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limits.max_body:
            raise _too_large(size, limits.max_body)
        if (when := end.when()) is not None and not end.expired():
            end.reschedule(when + len(chunk) / limits.slowest_upload)
        yield chunk


async def drain(request: Request, most: int) -> None:
    """Read what is left of a refused request, within bounds; else the client may miss the answer.

    A client that waits for "100 Continue" has sent nothing yet.
    """
    if "100-continue" in request.headers.get("expect", "").lower():
        return
    size, end = 0, time.monotonic() + _LINGER_SECONDS
    with suppress(TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: it was read to its end
        async with asyncio.timeout(_LINGER_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > most or time.monotonic() > end:
                    return


def _too_large(size: int, max_body: int) -> ServingError:
    return ServingError(
        f"found a request of {size / 1e6:.1f} MB or more, expected at most {max_body / 1e6:.1f} MB; send a smaller "
        "photo, or start abair serve with a larger --max-body",
        413,
    )
