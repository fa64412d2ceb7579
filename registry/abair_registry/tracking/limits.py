"""What MLflow takes in keys, values and batches; what is longer is cut where one sees it.

MLflow itself cuts long values without a word, and refuses a whole request for one long key.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

PARAM_VALUE: Final = 6000
"""Characters of a parameter's value."""
TAG_VALUE: Final = 8000
"""Characters of a tag's value; a run's description is a tag."""
NOTE: Final = TAG_VALUE - 500
"""Characters of a description, whose first line is replaced at the run's end by another."""
KEY: Final = 250
"""Characters of a key."""
VERSION_TEXT: Final = 5000
"""Characters of a model version's description, and of its tags' values on older servers."""
BATCH: Final = 100
"""Parameters, or tags, in one request."""
METRICS: Final = 500
"""Metrics in one request; MLflow takes a thousand, and a megabyte."""

T = TypeVar("T")


def fit_key(name: str) -> str:
    """Return a name as a key: the characters, the form and the length that MLflow takes."""
    key = posixpath.normpath(re.sub(r"[^/\w.\- ]", "_", name)).lstrip("/.") or "_"
    if len(key) <= KEY:
        return key
    return f"{key[: KEY - 13]} {hashlib.sha256(name.encode()).hexdigest()[:12]}"


def fit_value(text: str, limit: int, whole: str) -> str:
    """Return a text, or its beginning with the place of the whole: the artifact `whole`."""
    if len(text) <= limit:
        return text
    mark = f" ... (cut: all {len(text)} characters are in the artifact {whole})"
    return text[: limit - len(mark)] + mark


def fit_markdown(text: str, limit: int, whole: str) -> str:
    """Return a Markdown text, or its first lines with the place of the whole."""
    if len(text) <= limit:
        return text
    mark = f"\n\n**Cut here:** the whole text is in the artifact `{whole}`."
    head = text[: limit - len(mark) + 1]
    return (head.rpartition("\n")[0].rstrip() or head[:-1]) + mark


def batches(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the values in parts of at most `size`."""
    for begin in range(0, len(values), size):
        yield values[begin : begin + size]
