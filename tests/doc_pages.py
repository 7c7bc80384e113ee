"""Runs the fenced code blocks of a page of the documentation.

    python -P tests/doc_pages.py [--accept] README.md docs/language.md

What a block is for is said behind its opening fence:

- `mapsto`: a program, laid out by `mapsto fmt` and without mistakes; `mapsto wrong`: with mistakes.
- `python`: runs, with the names of the page's Python blocks before it.
- `sh`: its `mapsto` commands run; others may only be those that set an environment up.
- `text output`, `mlir output`, ...: what the block before it printed.  A line `...` stands for any
  lines, the word `...` for any text in a line.  With --accept blocks without are written anew.
- `c`: compiled and linked with the library that the page built, and run.
- `text`: prose; `text source=PATH`: the file of the project.

`file=NAME` gives a block to the page's folder under that name (a `python` block then is not run).
The folder has `examples/` in it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mapsto.cli import main as mapsto_command
from mapsto.dsl.formatter import format_source

ROOT = Path(__file__).resolve().parents[1]
_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ELISION = re.compile(r"(?<!\S)\.\.\.(?!\S)")
SETUP_COMMANDS = ("python3 -m venv", ".venv/bin/", "pip install", "python benchmarks/", ".ci/run")
"""How commands begin that are for the reader and not for the test."""


class WrongBlock(Exception):
    """A block does not do what it says."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the words behind it, its text and where the text is."""

    language: str
    words: tuple[str, ...]
    text: str
    start: int
    line: int

    def option(self, name: str) -> str:
        """The value of `name=value` among the words."""
        prefix = f"{name}="
        values = [word.removeprefix(prefix) for word in self.words if word.startswith(prefix)]
        return values[0] if values else ""


def blocks_of(text: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    for match in _FENCE.finditer(text):
        language, *words = match[1].split() or ["text"]
        line = text.count("\n", 0, match.start()) + 1
        yield Block(language, tuple(words), match[2], match.start(2), line)


@dataclass
class Page:
    """A page whose blocks run in order, in a folder of their own."""

    path: Path
    names: dict[str, object] = field(default_factory=lambda: {"__name__": "__page__"})
    printed: str = ""
    replacements: list[tuple[Block, str]] = field(default_factory=list)

    def run(self, accept: bool) -> list[str]:
        """The complaints about its blocks."""
        runners: dict[str, Callable[[Block], None]] = {
            "mapsto": self._program,
            "python": self._python,
            "sh": self._commands,
            "c": self._c,
        }
        complaints = []
        for block in blocks_of(self.path.read_text("utf-8")):
            try:
                source = block.option("source")
                if source:
                    self._compare(block, (ROOT / source).read_text("utf-8"), accept)
                elif "output" in block.words:
                    self._compare(block, self.printed, accept)
                elif block.language in runners:
                    self._capture(runners[block.language], block)
            except Exception as error:
                shown = error if isinstance(error, WrongBlock) else traceback.format_exc()
                complaints.append(f"{self.path}:{block.line}: {shown}")
        self._accept()
        return complaints

    def _capture(self, runner: Callable[[Block], None], block: Block) -> None:
        name = block.option("file")
        if name:
            Path(name).write_text(block.text, "utf-8")
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            runner(block)
        self.printed = output.getvalue()

    def _program(self, block: Block) -> None:
        name = block.option("file") or "example.mto"
        Path(name).write_text(block.text, "utf-8")
        code = mapsto_command(["check", name])
        if "wrong" in block.words:
            if code != 1:
                raise WrongBlock("`mapsto check` finds no mistake")
            return
        if code:
            raise WrongBlock(f"`mapsto check` finds mistakes:\n{_printed()}")
        laid_out = format_source(block.text, name)
        if laid_out != block.text:
            raise WrongBlock(f"`mapsto fmt` writes it as\n{laid_out}")

    def _python(self, block: Block) -> None:
        if not block.option("file"):
            # Errors then name the line of the page.
            code = "\n" * block.line + block.text
            exec(compile(code, str(self.path), "exec"), self.names)

    def _commands(self, block: Block) -> None:
        for line in block.text.splitlines():
            if line.startswith("mapsto "):
                words = shlex.split(line, comments=True)
                code = mapsto_command(words[1:])
                if code and "fails" not in block.words:
                    raise WrongBlock(f"`{line}` gives exit code {code}:\n{_printed()}")
            elif line and not line.startswith(("#", *SETUP_COMMANDS)):
                raise WrongBlock(f"neither run nor known: {line}")

    def _c(self, block: Block) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            return
        Path("main.c").write_text(block.text, "utf-8")
        library = next(Path().glob("lib*.so")).resolve()
        build = [
            compiler,
            "-Wall",
            "-Wextra",
            "-Werror",
            "main.c",
            str(library),
            "-Wl,-rpath,.",
            "-o",
            "main",
        ]
        for command in (build, ["./main"]):
            done = subprocess.run(command, capture_output=True, text=True)
            print(done.stdout, done.stderr)
            if done.returncode:
                raise WrongBlock(f"{command[0]} fails:\n{done.stderr}")

    def _compare(self, block: Block, text: str, accept: bool) -> None:
        expected, found = _lines(block.text), _lines(text)
        if _matches(expected, found):
            return
        if accept and not any(map(_ELISION.search, expected)):
            self.replacements.append((block, "\n".join(found) + "\n"))
            return
        shown = "\n".join(found)
        raise WrongBlock(f"expected is what follows:\n{shown}")

    def _accept(self) -> None:
        text = self.path.read_text("utf-8")
        for block, found in reversed(self.replacements):
            text = text[: block.start] + found + text[block.start + len(block.text) :]
        if self.replacements:
            self.path.write_text(text, "utf-8")


def _printed() -> str:
    return sys.stdout.getvalue() if isinstance(sys.stdout, io.StringIO) else ""


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def _line_pattern(line: str) -> str:
    if line.strip() == "...":
        return r"(?:.*\n)*"
    return ".*".join(map(re.escape, _ELISION.split(line))) + r"\n"


def _matches(expected: list[str], found: list[str]) -> bool:
    """Whether the lines are those expected; `...` stands for any."""
    pattern = "".join(map(_line_pattern, expected))
    return re.fullmatch(pattern, "".join(line + "\n" for line in found)) is not None


def main(arguments: list[str]) -> int:
    """Runs the pages; gives the number of complaints, at most 1."""
    accept = "--accept" in arguments
    pages = [Path(name).resolve() for name in arguments if name != "--accept"]
    complaints = []
    for path in pages:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            os.symlink(ROOT / "examples", "examples")
            complaints += Page(path).run(accept)
    print("\n".join(complaints), end="")
    return min(1, len(complaints))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
