"""What the commands say and where: results on stdout, everything for people on stderr, each failure in one line.

With JSON lines stdout holds nothing else. No traceback reaches a user; with `ABAIR_DEBUG=1` it stands above the line.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import typer

from abair.errors import AbairError
from abair.text import one_line

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[int, int, str], None]
"""Called with what is done, how much there is, and the name of what was done last."""

program: ContextVar[str] = ContextVar("program", default="abair")
"""The command line that speaks: its name begins every line for people."""

_OUT_OF_MEMORY = ("out of memory", "not enough memory", "allocate memory")  # PyTorch's words, in a RuntimeError


class Reporter:
    """Says what one command has to say, and counts what failed.

    `json_lines` turns results and failures into one JSON object a line on stdout.
    """

    def __init__(self, *, json_lines: bool = False) -> None:
        self.json_lines = json_lines
        self.failures = 0
        self._console: Console | None = None

    def say(self, text: str) -> None:
        """One line for people, on stderr, above the progress bar if there is one."""
        line = f"{program.get()}: {one_line(text)}"
        with contextlib.suppress(OSError, ValueError):  # stderr may be closed; that must not end the work
            if self._console is not None:
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)
            else:
                print(line, file=sys.stderr, flush=True)

    def fail(self, error: BaseException, *sources: str, about: str = "") -> None:
        """Count a failure and say it in one line that names `about`; as JSON, once for each of the inputs it cost."""
        self.failures += 1
        text = one_line(explain(error, about))
        if debugging():
            traceback.print_exception(error)
        self.say(text)
        for source in sources if self.json_lines else ():
            self.result({"input": source, "error": text})

    @contextlib.contextmanager
    def guard(self, source: str) -> Iterator[None]:
        """What fails inside costs one line and the input `source`, nothing else; Ctrl-C goes through."""
        try:
            yield
        except Exception as error:
            self.fail(error, source, about=source)

    def result(self, record: Mapping[str, Any]) -> None:
        """One JSON object as one line on stdout, there at once for whoever reads it."""
        print(json.dumps(record), flush=True)

    @contextlib.contextmanager
    def progress(self, title: str, *, beside_stdout: bool = False) -> Iterator[Progress]:
        """A progress bar on stderr if that is a terminal, cleared at the end; else nothing.

        `beside_stdout`: the command writes to stdout while it works, so on a shared terminal there is no bar.
        """
        if not sys.stderr.isatty() or (beside_stdout and sys.stdout.isatty()):
            yield lambda _done, _total, _name: None
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import Progress as Bar

        self._console = Console(stderr=True)
        # redirecting would send the JSON lines to the console, which is stderr
        bar = Bar(console=self._console, transient=True, redirect_stdout=False, redirect_stderr=False)
        task = bar.add_task(title, total=None)

        def step(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{title} {escape(one_line(name)[-40:])}")

        try:
            with bar:
                yield step
        finally:
            self._console = None

    @contextlib.contextmanager
    def log_lines(self) -> Iterator[None]:
        """Warnings of the logger `abair` (16 bit reduced to 8, an unreadable EXIF block) as one line each."""
        logger, handler = logging.getLogger("abair"), _Lines(self)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


@contextlib.contextmanager
def reporting(*, json_lines: bool = False) -> Iterator[Reporter]:
    """A command's reporter, to which warnings of the log go too; at the end what failed becomes the exit code.

    Raises:
        typer.Exit: something failed.
    """
    reporter = Reporter(json_lines=json_lines)
    with reporter.log_lines():
        yield reporter
    if reporter.failures:
        raise typer.Exit(1)


class _Lines(logging.Handler):
    """Hands warnings to a reporter."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.WARNING)
        self.reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self.reporter.say(f"warning: {record.getMessage()}")


def explain(error: BaseException, about: str = "") -> str:
    """What went wrong, for people; it names `about` in any case."""
    text = str(error)
    if isinstance(error, AbairError):
        said = text
    elif isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text.lower() for words in _OUT_OF_MEMORY)
    ):
        said = "not enough memory; close other programs or use smaller tiles (--tile)"
    elif isinstance(error, OSError):
        # what has no name is a stream: nearly always stdout, on a disk that is full
        named = f"{error.filename}: " if error.filename else "writing: "
        said = f"{named}{error.strerror or text or type(error).__name__}"
    else:
        said = (
            f"unexpected {type(error).__name__}{f' ({text})' if text else ''}; ABAIR_DEBUG=1 shows where it came from"
        )
    return said if about in said or repr(about) in said else f"{about}: {said}"


def bars(weights: Mapping[str, float], width: int = 24) -> Iterable[str]:
    """The weights as bars, one line a label; in ASCII where stdout cannot show blocks."""
    block = "█" if (getattr(sys.stdout, "encoding", "") or "").lower().startswith("utf") else "#"
    longest = max(map(len, weights), default=0)
    for label, weight in weights.items():
        yield f"  {label:<{longest}}  {weight:4.2f}  {block * round(weight * width)}".rstrip()


def debugging() -> bool:
    """Whether `ABAIR_DEBUG` asks for tracebacks."""
    return os.environ.get("ABAIR_DEBUG", "") not in {"", "0"}


def settle_stdout() -> None:
    """Write out what is buffered for stdout; if that cannot be, drop it, or Python would complain at exit."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
