"""Any text is accepted by the check or gets diagnostics: never an exception, never a hang.

Definitions of the library, the examples and the tests of diagnostics are put together and changed
by exchanging names, numbers and operators, so that most of them still parse and go wrong in
elaboration.  A seed names a text.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from random import Random

import pytest
from texts import mutate

from mapsto.dsl.checking import check
from mapsto.dsl.library import library_files
from mapsto.dsl.parser import parse
from mapsto.dsl.render import render_all
from mapsto.dsl.source import Source

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.mto"))
DIAGNOSTICS = sorted(Path(__file__).with_name("diagnostics").iterdir())
PROGRAMS = [
    *(path.read_bytes().decode().partition("#! expected")[0] for path in DIAGNOSTICS),
    *library_files().values(),
    *(path.read_text("utf-8") for path in EXAMPLES),
    "map f(x: f32[n, d], ids: i32[n]): [i, j] |-> sum[k](x[ids[i], k] * x[j, 2*k + 1])\n",
    "map g(x: f32[n]) -> f32: sum(x^3)\nmap f(x: f32[n]): jvp(grad(g))(x, x)[1] + vmap(exp)(x)\n",
    "map f(x: f32[n], r: (a: f32, b: f32[n]) = (a = 1, b = x)): [r.b * r.a for i in r]\n",
    "map g(net: module, x: f32[n, d]) -> f32: sum(net(x)) + norm(parameters(net))\n"
    "net = Dense(2)\nmap f(x: f32[n, 3]):\n    let t = grad(g)(net, x)\n"
    "    update(Adam(), net, t * 2 - t)\n    tree_map(relu, t).w\n",
    "module N():\n    state key: i64 ~ fresh_key\n    map (x: f32[n], y: f32[n] = none):\n"
    "        key <- next_key(key)\n        if training and y == none then x * normal(key) else x\n",
    "map f(x: f32[...s, n]): [...s] |-> max[j](x[...s, j]) - mean(x[..., 1:], axis=-1)[...s]\n",
]
TOKEN = re.compile(r"[A-Za-z_]\w*|\d[\d.e^-]*|[-+*/%@^]|[<>=]=?")
NUMBERS = ("0", "1", "2", "7", "64", "-1", "0.5", "1e-3", "10^6", "1000000000000")
DTYPES = ("f32", "f64", "i32", "bool", "u8", "T")
KINDS = (
    (re.compile(r"\d.*"), NUMBERS),
    (re.compile(r"[-+*/%@^]"), tuple("-+*/%@^")),
    (re.compile(r"[<>]=?|=="), ("<", "<=", "==", ">")),
    (re.compile("|".join(DTYPES)), DTYPES),
)
WORDS = re.compile(r"\w+")
KEYWORDS = frozenset(
    WORDS.findall("map module train import from param state loss metric let for in if then else")
)
NAMES = WORDS.findall(
    "x n f d i k s g w b T nn pi relu softmax Dense Adam MLP sum max mean argmax grad jvp vmap "
    "chain range len size reshape concat random exp where zeros true none training tree_map "
    "parameters update norm key bernoulli split_key train_mode y"
)
VALUES = (
    "(x,x)",
    "(a=x,b=2)",
    "[1,2]",
    "[x for i in x]",
    "none",
    "parameters(net)",
    "x[0]",
    "x[i]",
    "normal(key)",
    *NUMBERS,
    *DTYPES,
)


def corpus() -> list[str]:
    """Definitions that parse, each on its own or with the file around it."""
    parts = [part for text in PROGRAMS for part in re.split(r"\n(?=map|module|train)", text)]
    texts = dict.fromkeys([*PROGRAMS, *parts])
    return [text for text in texts if text.strip() and not parse(Source("corpus", text))[1]]


CORPUS = corpus()


def program(random: Random) -> str:
    """Some definitions, with a few tokens exchanged; now and then with other damage too."""
    text = "\n".join(random.choices(CORPUS, k=random.randint(1, 3))) + "\n"
    for _ in range(random.randint(0, 4)):
        tokens = list(TOKEN.finditer(text))
        if tokens:
            token = random.choice(tokens)
            text = text[: token.start()] + exchanged(random, token[0]) + text[token.end() :]
    return mutate(random, text) if random.random() < 0.1 else text


def exchanged(random: Random, token: str) -> str:
    """Another token: of the same kind, a word of this corpus, or a value of any kind."""
    if token in KEYWORDS:
        return token
    for pattern, others in KINDS:
        if pattern.fullmatch(token):
            return random.choice(others)
    return random.choice(NAMES if random.random() < 0.7 else VALUES)


def check_answers(text: str) -> None:
    start = time.process_time()
    for diagnostic in check(Source("test.mto", text)):
        assert render_all([diagnostic])
    assert time.process_time() - start < 10, text


@pytest.mark.parametrize("block", range(6))
def test_changed_programs(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        check_answers(program(Random(seed)))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_many_changed_programs(block: int) -> None:
    for seed in range(1000 + block * 1000, 2000 + block * 1000):
        check_answers(program(Random(seed)))


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
    check_answers(text)
