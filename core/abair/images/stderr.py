"""Keep libraries in C from writing to stderr: the photo's own line says once what is wrong."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

_STDERR: Final = threading.Lock()
_MESSAGE: Final = re.compile(
    rb"(.*: (unexpected end of file|data corrupted at -?\d+)|Unrecognized WMPTag: .*)\r?\n", re.IGNORECASE
)
"""What LibRaw says of damaged data by default, and jxrlib of tags that it does not know."""


@contextmanager
def without_messages() -> Iterator[None]:
    """Keep LibRaw and jxrlib from writing to stderr, which they do beside their errors.

    What other threads write there meanwhile follows afterwards. One file is read at a time: two
    threads that exchange stderr would restore it in the wrong order.
    """
    with _STDERR, tempfile.TemporaryFile() as written:
        try:
            kept = os.dup(2)
        except OSError:  # stderr is closed
            yield
            return
        try:
            os.dup2(written.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            written.seek(0)
            with suppress(OSError):  # nobody reads it
                os.write(2, b"".join(line for line in written if not _MESSAGE.fullmatch(line)))
