"""Output of the commands: results on stdout, messages and failures on stderr, one line each.

With `--json`, stdout holds JSON lines and nothing else. Users see no tracebacks; with
`ABAIR_DEBUG=1` a traceback precedes each failure's line.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import typer

from abair import signals
from abair.errors import AbairError
from abair.labels import UNKNOWN
from abair.text import one_line

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[int, int, str], None]
"""Called with the number of items done, the number of all, and the name of the last one."""

program: ContextVar[str] = ContextVar("program", default="abair")
"""The name of the command line, which begins every message."""
command_line: ContextVar[tuple[str, ...]] = ContextVar("command_line", default=())
"""The arguments that the command line was called with."""

LINE_SECONDS: Final = 10.0
"""Seconds from one line of progress to the next, where there is no terminal for a bar."""
SURE: Final = 0.6
"""Confidence below which an estimate is shown as doubtful."""
_OUT_OF_MEMORY = ("out of memory", "not enough memory", "allocate memory")  # PyTorch's words, in a RuntimeError


class Reporter:
    """Writes the messages of one command and counts its failures.

    With `json_lines`, results and failures are also JSON objects on stdout, one per line. `aliases`
    replace paths that mean nothing to users.
    """

    def __init__(self, *, json_lines: bool = False) -> None:
        self.json_lines = json_lines
        self.failures = 0
        self.aliases: dict[str, str] = {}
        self._console: Console | None = None

    def log(self, text: str) -> None:
        """Write one line to stderr, above the progress bar if there is one."""
        if sys.stderr is None:  # closed; print would write to stdout instead
            return
        line = f"{program.get()}: {self._with_aliases(one_line(text))}"
        with contextlib.suppress(OSError, ValueError):  # a closed stderr must not end the work
            if self._console is not None:
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)
            else:
                print(line, file=sys.stderr, flush=True)

    def fail(self, error: BaseException, *sources: str, about: str = "") -> None:
        """Count a failure and log it in one line that names `about`.

        With `json_lines`, also write one JSON object for each input in `sources`.

        Raises:
            KeyboardInterrupt: the program was told to stop, and a library made an error of that.
        """
        signals.raise_if_received()
        self.failures += 1
        text = one_line(explain(error, about))
        if debug_enabled():
            traceback.print_exception(error)
        self.log(text)
        for source in sources if self.json_lines else ():
            self.result({"input": source, "error": text})

    @contextlib.contextmanager
    def guard(self, source: str) -> Iterator[None]:
        """Turn an exception into a failure of the input `source`; Ctrl-C passes through."""
        try:
            yield
        except Exception as error:
            self.fail(error, source, about=source)

    def result(self, record: Mapping[str, Any]) -> None:
        """Write one JSON object as one line to stdout, without buffering."""
        named = {key: self._with_aliases(value) if isinstance(value, str) else value for key, value in record.items()}
        print(json.dumps(named), flush=True)

    def _with_aliases(self, text: str) -> str:
        for path, alias in self.aliases.items():
            text = text.replace(path, alias)
        return text

    @contextlib.contextmanager
    def progress(
        self, title: str, *, beside_stdout: bool = False, lines_every: float | None = None
    ) -> Iterator[Progress]:
        """Show a progress bar on stderr and clear it at the end.

        Without a terminal, do nothing, or say after each `lines_every` seconds how far it is. Set
        `beside_stdout` if the command writes to stdout while it works: then there is no bar on a
        terminal that shows both.
        """
        if lines_every is not None and sys.stderr is not None and not sys.stderr.isatty():
            yield self._progress_lines(title, lines_every)
            return
        if sys.stderr is None or not sys.stderr.isatty() or (beside_stdout and sys.stdout.isatty()):
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

    def _progress_lines(self, title: str, seconds: float) -> Progress:
        """Return what logs a line after each so many seconds."""
        told = time.monotonic()

        def step(done: int, total: int, _name: str) -> None:
            nonlocal told
            if time.monotonic() - told >= seconds:
                told = time.monotonic()
                self.log(f"{title}: {done} of {total}")

        return step


@contextlib.contextmanager
def reporting(*, json_lines: bool = False) -> Iterator[Reporter]:
    """Yield a command's reporter; at the end set the exit code.

    Raises:
        typer.Exit: something failed.
    """
    reporter = Reporter(json_lines=json_lines)
    yield reporter
    if reporter.failures:
        raise typer.Exit(1)


def explain(error: BaseException, about: str = "") -> str:
    """Return an error's text for users; it always names `about`."""
    text = str(error)
    if isinstance(error, AbairError):
        message = text
    elif isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text.lower() for words in _OUT_OF_MEMORY)
    ):
        message = "not enough memory; close other programs or use narrower tiles (--tile)"
    elif isinstance(error, ModuleNotFoundError) and (extra := _extra_with(error.name or "")):
        message = f"{error.name} is missing; install it with: pip install 'abair[{extra}]'"
    elif isinstance(error, OSError):
        # an error without a file name comes from a stream: nearly always stdout, on a full disk
        prefix = f"{error.filename}: " if error.filename else "writing: "
        message = f"{prefix}{error.strerror or text or type(error).__name__}"
    else:
        detail = f" ({text})" if text else ""
        message = f"unexpected {type(error).__name__}{detail}; set ABAIR_DEBUG=1 to see the traceback"
    return message if about in message or repr(about) in message else f"{about}: {message}"


def _extra_with(module: str) -> str:
    """Return the first extra of ABAIR that brings a module, which has its distribution's name."""
    from importlib.metadata import PackageNotFoundError, requires

    with contextlib.suppress(PackageNotFoundError):
        for requirement in requires("abair") or ():
            name, _, condition = requirement.partition(";")
            extra = re.search(r"extra == ['\"]([\w-]+)['\"]", condition)
            distribution = re.match(r"[\w.-]+", name)
            if extra and distribution and distribution[0].lower() == module.lower().replace("_", "-"):
                return extra[1]
    return ""


def tell_doubt(confidence: float | None, unknown: float | None) -> str:
    """Return what follows a photo's name where the estimate is not sure or does not know it."""
    doubts = [] if confidence is None or confidence >= SURE else [f"not sure: {confidence:.2f}"]
    doubts += [] if unknown is None or unknown <= UNKNOWN else [f"unlike what was learnt: {unknown:.2f}"]
    return f" ({', '.join(doubts)})" if doubts else ""


def weight_bars(weights: Mapping[str, float], width: int = 24) -> Iterable[str]:
    """Yield one bar per label, of at most `width` characters; in ASCII if stdout is not UTF-8."""
    block = "█" if (getattr(sys.stdout, "encoding", "") or "").lower().startswith("utf") else "#"
    longest = max(map(len, weights), default=0)
    for label, weight in weights.items():
        yield f"  {label:<{longest}}  {weight:4.2f}  {block * round(weight * width)}".rstrip()


def debug_enabled() -> bool:
    """Return whether `ABAIR_DEBUG` asks for tracebacks."""
    return os.environ.get("ABAIR_DEBUG", "") not in {"", "0"}


def flush_stdout() -> None:
    """Flush stdout; if that fails, drop its buffer, or Python would complain at exit."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, sys.stdout.fileno())
            os.close(devnull)
