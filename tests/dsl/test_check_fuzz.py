"""Any program that parses is accepted or gets diagnostics: never an exception, never a hang.

Programs of the tests and of the library are changed by exchanging names, numbers and operators, so
that most of them still parse and go wrong in elaboration.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from random import Random

import pytest

from mapsto.dsl.checking import check
from mapsto.dsl.library import library_files
from mapsto.dsl.render import render_all
from mapsto.dsl.source import Source

FOLDER = Path(__file__).with_name("diagnostics")
EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.mto"
PROGRAMS = [
    *(path.read_bytes().decode().partition("#! expected")[0] for path in sorted(FOLDER.iterdir())),
    *library_files().values(),
    EXAMPLE.read_text("utf-8"),
    "map f(x: f32[n, d], ids: i32[n]): [i, j] |-> sum[k](x[ids[i], k] * x[j, 2*k + 1])\n",
    "map g(x: f32[n]) -> f32: sum(x^3)\nmap f(x: f32[n]): jvp(grad(g))(x, x)[1] + vmap(exp)(x)\n",
    "map f(x: f32[...s, n]): [...s] |-> max[j](x[...s, j]) - mean(x[..., 1:], axis=-1)[...s]\n",
]
KEYWORDS = frozenset(
    [
        "map",
        "module",
        "param",
        "state",
        "let",
        "for",
        "in",
        "if",
        "then",
        "else",
        "train",
        "loss",
        "metric",
    ]
)
WORDS = [
    "x",
    "n",
    "f",
    "d",
    "i",
    "k",
    "s",
    "g",
    "T",
    "relu",
    "Dense",
    "Adam",
    "sum",
    "max",
    "mean",
    "argmax",
    "grad",
    "jvp",
    "vmap",
    "chain",
    "range",
    "f32",
    "f64",
    "i32",
    "bool",
    "len",
    "size",
    "reshape",
    "concat",
    "random",
    "exp",
    "where",
    "softmax",
    "0",
    "1",
    "2",
    "-1",
    "0.5",
    "64",
    "10^6",
    "true",
    "(x,x)",
    "x[0]",
    "x[i]",
    "nn",
    "pi",
    "zeros",
    "normal(key)",
    "[1,2]",
]
OPERATORS = (" + ", " - ", " * ", " / ", " @ ", " % ", " ^ ", " < ", " == ")


def mutated(random: Random) -> str:
    """A program with some of its words and operators exchanged."""
    text = random.choice(PROGRAMS)
    for _ in range(random.randint(1, 3)):
        words = [m for m in re.finditer(r"\b\w+\b", text) if m[0] not in KEYWORDS]
        place = random.choice(words)
        other = random.choice(WORDS) if random.random() < 0.5 else random.choice(words)[0]
        text = text[: place.start()] + other + text[place.end() :]
        operators = list(re.finditer(r" [-+*/@%^<] ", text))
        if operators and random.random() < 0.3:
            place = random.choice(operators)
            text = text[: place.start()] + random.choice(OPERATORS) + text[place.end() :]
    return text


def check_seed(seed: int) -> None:
    text = mutated(Random(seed))
    start = time.process_time()
    render_all(check(Source("test.mto", text)))
    assert time.process_time() - start < 10, text


@pytest.mark.parametrize("block", range(5))
def test_changed_programs(block: int) -> None:
    for seed in range(block * 60, block * 60 + 60):
        check_seed(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_many_changed_programs(block: int) -> None:
    for seed in range(1000 + block * 500, 1500 + block * 500):
        check_seed(seed)


TWICE = "map f0(x: f32[n]): x + x\n" + "".join(
    f"map f{i}(x: f32[n]): f{i - 1}(f{i - 1}(x))\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    "text",
    [
        TWICE,
        "map f(x: f32[n]): f(x) + f(x)\n",
        "map f(g: map, x: f32[n]): g(g, x) + g(g, x)\nmap h(x: f32[n]): f(f, x)\n",
        "module A(k: int = 3):\n    l = A(k - 1)\n    r = A(k - 1)\n    map (x: f32[n]): x\n",
        "map f(x: f32[n]):\n    for i in range(9999):\n        for j in range(9999):\n"
        "            let x = x + 1\n    x\n",
        "map f(x: f32[a, b, c, d]): full([(a + b + c + d)^60], 1.0)\n",
        "k = ((10^18)^9)^9\n",
        "map f(x: f32[10^12, 10^12]): sum(x @ x)\n",
        f"net = chain([{', '.join(['Dense(3)'] * 2000)}])\nmap f(x: f32[n, 3]): net(x)\n",
    ],
)
def test_large_and_endless_programs_get_an_answer(text: str) -> None:
    start = time.process_time()
    render_all(check(Source("test.mto", text)))
    assert time.process_time() - start < 10
