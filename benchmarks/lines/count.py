"""Counts the lines of the examples and of the same programs in PyTorch, JAX and Keras.

    python benchmarks/lines/count.py

Writes docs/lines-of-code.md.  What is counted of a Python file stands between the comments of
`MARKS`, of a program of mapsto everything.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

__all__ = ["EXAMPLES", "MARKS", "PAGE", "PEERS", "Unmarked", "lines_of_code", "page", "sources"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "lines-of-code.md"

EXAMPLES = (
    "linear_regression",
    "digits",
    "mnist_cnn",
    "detection",
    "mnist_rows_lstm",
    "kjv_gpt",
    "packages_recommender",
    "custom_layer",
    "custom_loop",
    "physics",
    "variational_autoencoder",
    "fine_tune",
)
PEERS = {"pytorch": "PyTorch", "jax": "JAX", "keras": "Keras"}
"""The folders of the peers' programs, and what the peers are called."""

MARKS = ("# [counted]", "# [end]")
"""The comments before and behind a part that is counted."""

_DOCSTRING = re.compile(r'^[ \t]*""".*?"""[ \t]*$', re.MULTILINE | re.DOTALL)
_LAYOUT = frozenset(
    {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
)
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

_INTRODUCTION = """\
# Lines of code

Written by `python benchmarks/lines/count.py`; do not edit.

Each example of mapsto beside the same program in PyTorch, in JAX (with Flax and Optax) and in Keras
3: the same model, loss, optimizer, budget and figure on the same data, written as one writes with
that library and laid out by its formatter (`mapsto fmt`, `ruff format`, 100 columns).

The rule: a line counts if it has code on it, so that blank lines, comments and docstrings do not.
Of a program of mapsto all is counted. Of the Python program beside it, where there is one, and of
the peers' programs it is what builds the model, trains it and evaluates it: what stands between the
comments `{}` and `{}`. Reading files, preparing arrays, options, printing and
drawing are left out, and so are the imports of Python. Where `mapsto train` runs the example no
loop is written out, as with `fit` in Keras.

"""


class Unmarked(Exception):
    """A Python program does not say what of it counts."""


def lines_of_code(path: Path) -> int:
    """How many lines of a program count."""
    text = path.read_text("utf-8")
    if path.suffix == ".mto":
        code = _DOCSTRING.sub("", text).splitlines()
        return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in code)
    lines = _python_lines(text)
    return sum(len(lines & set(part)) for part in _marked(text, path))


def _python_lines(text: str) -> set[int]:
    """The numbers of the lines of a Python program that have code on them."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    spans = (range(t.start[0], t.end[0] + 1) for t in tokens if t.type not in _LAYOUT)
    return set(chain.from_iterable(spans)) - set(chain.from_iterable(_docstrings(text)))


def _docstrings(text: str) -> Iterator[range]:
    """The lines of each docstring of a Python program."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
            first = node.body[0]
            assert first.end_lineno is not None
            yield range(first.lineno, first.end_lineno + 1)


def _marked(text: str, path: Path) -> list[range]:
    """The lines between each pair of marks; pairs do not overlap."""
    found = [
        (number, line.strip())
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() in MARKS
    ]
    expected = MARKS * (len(found) // 2)
    if not found or tuple(mark for _, mark in found) != expected:
        raise Unmarked(f"{path}: `{MARKS[0]}` and `{MARKS[1]}` do not alternate")
    numbers = [number for number, _ in found]
    return [range(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]


def sources(example: str) -> dict[str, list[Path]]:
    """The files of an example, by the folder of the peer or "mapsto"."""
    own = [ROOT / "examples" / f"{example}{suffix}" for suffix in (".mto", ".py")]
    peers = {peer: [HERE / peer / f"{example}.py"] for peer in PEERS}
    return {"mapsto": [path for path in own if path.exists()], **peers}


def page() -> str:
    """The text of docs/lines-of-code.md."""
    files = {example: sources(example) for example in EXAMPLES}
    counts = {
        example: [sum(map(lines_of_code, paths)) for paths in columns.values()]
        for example, columns in files.items()
    }
    totals = [sum(column) for column in zip(*counts.values(), strict=True)]
    ratios = [f"{total / totals[0]:.1f}" for total in totals]
    rows = [
        ["example", "mapsto", *PEERS.values()],
        ["---"] + ["--:"] * len(totals),
        *([_link(example, files[example]), *map(str, counts[example])] for example in EXAMPLES),
        ["together", *map(str, totals)],
        ["times the lines of mapsto", *ratios],
    ]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return _INTRODUCTION.format(*MARKS) + table + _CONCLUSION


_CONCLUSION = """
The peers' programs are in `benchmarks/lines/`. They run from the root of the project, with mapsto
installed (some take their scenes or their alphabet from the example) and the extra `lines`:

```sh
pip install -e '.[lines]'
python benchmarks/lines/pytorch/digits.py
```

Those in Keras take `KERAS_BACKEND=jax` from the environment or another backend. Three of
them need the gradients of one: `custom_loop` those of PyTorch, `linear_regression` and `physics`
those of JAX.
"""


def _link(example: str, files: dict[str, list[Path]]) -> str:
    """The name of an example, leading to its files."""
    names = (f"[{path.suffix}](../{path.relative_to(ROOT).as_posix()})" for path in files["mapsto"])
    return f"`{example}` {' '.join(names)}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
