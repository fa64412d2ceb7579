"""Commands as they look from outside: exit code, both streams, and the photo that comes back.

Used by the campaigns of hostile packages, damaged homes, and MLflow away.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import selectors
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from markdown_it import MarkdownIt
from markdown_it.token import Token
from PIL import Image
from tests.support.campaign import Host, Parts, make_photo
from tests.support.kill import start

from abair.cli import app as restoring
from abair.locations import FILE_NAME
from abair_registry.cli import app as registering

MOST_LINES, LONGEST_LINE = 60, 1500
"""Of all that a command says: verdicts of a dozen labels, steps, a warning or two."""
UNFORESEEN = re.compile(r"Traceback|unexpected [A-Z]\w* \(")
"""What the program says of an error that nobody foresaw; MLflow has states that it calls unexpected."""
NOBODY = 65534
"""A user without rights, for whom read-only files are read-only though root runs the campaign."""
FORGED = "forged"
"""A word that is in no text of ours: hostile texts say it where they would be taken for ours."""


@dataclass(frozen=True)
class Said:
    """What a command said."""

    command: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        """The program's own lines on stderr, without its name."""
        lines = [line.partition(": ") for line in self.err.splitlines()]
        return [text for name, _, text in lines if name in {"abair", "abair-registry"}]

    def has(self, text: str) -> bool:
        """Whether the text is in a line of the program's own."""
        return any(text in line for line in self.complaints)

    def __str__(self) -> str:
        said = " | ".join([*self.err.splitlines()[-6:], *self.out.splitlines()[-3:]])
        return f"{' '.join(self.command)}: exit code {self.code}, {said[:1500]!r}"


def nothing() -> None:
    """Do nothing."""


def ask(
    host: Host,
    *arguments: str,
    before: Callable[[], object] = nothing,
    run: Callable[[Sequence[str]], int] | None = None,
) -> Said:
    """Run a command of `abair-registry`, or of `run`, in a process of its own, both streams pipes.

    `before` is called in that process first: it may take rights or room from it.
    """
    run = run or registering.run
    out, err = os.pipe(), os.pipe()

    def work() -> None:
        for (reading, writing), number in ((out, 1), (err, 2)):
            os.dup2(writing, number)
            os.close(reading)
            os.close(writing)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
        host.enter()
        before()
        code = run(arguments)
        sys.stdout.flush()
        os._exit(code)

    child = start(work)
    for _, writing in (out, err):
        os.close(writing)
    texts = {out[0]: b"", err[0]: b""}
    with selectors.DefaultSelector() as waiting:
        for reading in texts:
            waiting.register(reading, selectors.EVENT_READ)
        while waiting.get_map():
            for key, _ in waiting.select():
                piece = os.read(key.fd, 65536)
                texts[key.fd] += piece
                if not piece:
                    waiting.unregister(key.fd)
                    os.close(key.fd)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Said(arguments, code, texts[out[0]].decode(errors="replace"), texts[err[0]].decode(errors="replace"))


def restore(host: Host, before: Callable[[], object] = nothing) -> tuple[Said, bytes]:
    """Restore a photo with the public command; return what it said and the photo's file, if any."""
    folder = host.home.parent / "photos"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    photo, restored = folder / "photo.png", folder / "restored.png"
    if not photo.exists():
        Image.fromarray(make_photo()).save(photo)
    restored.unlink(missing_ok=True)
    said = ask(host, "restore", str(photo), "-o", str(restored), before=before, run=restoring.run)
    return said, restored.read_bytes() if restored.exists() else b""


@dataclass(frozen=True)
class Serving:
    """What a home serves: the bytes of its deployment's file, and of a photo restored with it."""

    file: bytes
    photo: bytes

    @classmethod
    def of(cls, host: Host) -> Serving:
        """Look at it."""
        file = host.home / FILE_NAME
        return cls(file.read_bytes() if file.is_file() else b"", restore(host)[1])


def manners(said: Said, most: int = MOST_LINES) -> list[str]:
    """Return how a command misbehaved on a terminal, whatever it was asked."""
    lines = [*said.out.splitlines(), *said.err.splitlines()]
    wrong = []
    if odd := sorted({c for c in said.out + said.err if not c.isprintable() and c != "\n"}):
        wrong.append(f"printed control characters {odd}")
    if len(lines) > most:
        wrong.append(f"printed {len(lines)} lines")
    if any(len(line) > LONGEST_LINE for line in lines):
        wrong.append(f"printed a line of {max(map(len, lines))} characters")
    wrong += [f"said {found!r}" for found in UNFORESEEN.findall(said.out + said.err)]
    if said.code not in (0, 1, 2):
        wrong.append("ended with no exit code of ours")
    if said.code and not said.complaints:
        wrong.append("failed without a line")
    return [f"{text}: {said}" for text in wrong]


def pages(home: Path) -> list[str]:
    """Return all texts that MLflow's page shows as Markdown: of runs, versions, the model."""
    store = home / "mlflow.db"
    if not store.is_file():
        return []
    with closing(sqlite3.connect(f"file:{quote(str(store))}?mode=ro", uri=True)) as database:
        query = (
            "SELECT value FROM tags WHERE key = 'mlflow.note.content' UNION ALL SELECT description FROM model_versions"
        )
        return [text for (text,) in database.execute(query) if text]


def forged(page: str) -> list[str]:
    """Return what in a page is more than text, and not ours: headings, links, pictures, HTML."""
    found = []
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(page)
    for place, token in enumerate(tokens):
        if token.type == "heading_open" and (token.map or [1])[0] > 0:
            found.append(f"a heading: {tokens[place + 1].content[:60]!r}")
        for part in _tree(token):
            code = part.type in {"code_inline", "code_block", "fence"} and FORGED in part.content
            if code or part.type in {"link_open", "image", "html_inline", "html_block"}:
                found.append(f"{part.type}: {part.content[:60]!r}")
    return found


def _tree(token: Token) -> Iterator[Token]:
    yield token
    for child in token.children or []:
        yield from _tree(child)


def become_nobody() -> None:
    """Give up root's rights, if this process has them."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def give_away(folder: Path) -> None:
    """Let a folder and all below it be nobody's, if this process is root."""
    if os.geteuid() == 0:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


class WrongError(Exception):
    """Something does not hold."""


@dataclass
class Tally:
    """Cases that ran, and how each ended; a line is printed for each wrong one."""

    script: str
    verbose: bool
    ran: int = 0
    wrong: int = 0

    def __post_init__(self) -> None:
        self.ends: Counter[str] = Counter()

    def run(self, name: str, case: Callable[[], str]) -> None:
        """Run a case, which returns how it ended, or raises WrongError."""
        began = time.monotonic()
        try:
            end = case()
        except WrongError as error:
            self.wrong += 1
            end = "wrong"
            print(f"wrong: {name}: {error}; to repeat it: python {self.script} --case {name!r}", flush=True)
        self.ran += 1
        self.ends[end] += 1
        if self.verbose:
            print(f"{name}: {end}, {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)

    def conclude(self, expected: int) -> int:
        """Print the counts; return the exit code."""
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.ends.items()) if end != "wrong")
        print(f"{self.ran - self.wrong} of {self.ran} right; {ends}", flush=True)
        return int(self.wrong > 0 or self.ran < expected)


def parse(description: str, script: str, argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, Tally]:
    """Return a campaign's options, which are those of all three, and its tally."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, help="draw so many of the cases (all)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    parser.add_argument("--case", help="run this case alone, as a line about a wrong one says")
    parser.add_argument("--only", help="run the cases with this text in their names alone")
    parser.add_argument("--verbose", action="store_true", help="tell of right cases, too, on stderr")
    parser.add_argument("--parts", type=Path, help="folder that keeps bundles and adapters for the next campaign")
    given = parser.parse_args(argv)
    return given, Tally(script, given.verbose)


def chosen(names: Iterable[str], given: argparse.Namespace) -> list[str]:
    """Return the names of the cases that were asked for."""
    names = list(names)
    if given.case is not None:
        return [name for name in names if name == given.case]
    names = [name for name in names if given.only is None or given.only in name]
    if given.count is not None and given.count < len(names):
        picked = set(random.Random(given.seed).sample(names, given.count))
        names = [name for name in names if name in picked]
    return names


@contextmanager
def workplace(prefix: str, parts: Path | None) -> Iterator[tuple[Path, Parts]]:
    """Yield a folder that everybody may enter, and what homes are made of."""
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        root = Path(folder).resolve()
        root.chmod(0o755)
        made = Parts.make((parts or root / "parts").resolve())
        yield root, made
        with suppress(OSError):
            for path in root.rglob("*"):  # what was made read-only can be deleted
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o755)
