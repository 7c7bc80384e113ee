"""Checking answers any text: mutations of programs that mean something reach the type checker."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
from texts import mutate

from mapsto.dsl.checking import check
from mapsto.dsl.parser import parse
from mapsto.dsl.render import render_all
from mapsto.dsl.source import Source

ROOT = Path(__file__).parents[2]
TOKEN = re.compile(r"[A-Za-z_]\w*|\d[\d.e-]*|[-+*/@^]|[<>=]=?")
KINDS = (
    (re.compile(r"\d.*"), ["0", "1", "2", "7", "1e-3", "-1", "1000000000000"]),
    (re.compile(r"[-+*/@^]"), ["+", "-", "*", "/", "@", "^"]),
    (re.compile(r"[<>]=?|=="), ["<", "<=", "==", ">"]),
    (re.compile(r"f32|f64|i32|bool|T"), ["f32", "f64", "i32", "bool", "u8", "T"]),
)
NAMES = (
    "n",
    "d",
    "x",
    "w",
    "b",
    "s",
    "i",
    "relu",
    "softmax",
    "sum",
    "max",
    "argmax",
    "mean",
    "grad",
)
NAMES += ("Dense", "Adam", "MLP", "chain", "zeros", "len")
FIXED = {"map", "module", "train", "param", "state", "let", "if", "then", "else", "for", "in"}
FIXED |= {"import", "from", "loss"}


def corpus() -> list[str]:
    """Small programs: the examples, the library, and programs with one mistake each."""
    files = [*(ROOT / "examples").glob("*.mto"), *(ROOT / "dsl" / "stdlib").glob("*.mto")]
    texts = [file.read_text("utf-8") for file in sorted(files)]
    for file in sorted((Path(__file__).parent / "diagnostics").glob("*.mto")):
        texts.append(file.read_text("utf-8").partition("#! expected")[0])
    definitions = [part for text in texts for part in re.split(r"\n(?=map|module|train)", text)]
    return [text for text in definitions if not parse(Source("corpus", text))[1]]


CORPUS = corpus()


def program(random: Random) -> str:
    """A few definitions, with some tokens exchanged for others of their kind."""
    text = "\n".join(random.choices(CORPUS, k=random.randint(1, 3))) + "\n"
    for _ in range(random.randint(0, 4)):
        token = random.choice(list(TOKEN.finditer(text)))
        text = text[: token.start()] + exchanged(random, token[0]) + text[token.end() :]
    return mutate(random, text) if random.random() < 0.1 else text


def exchanged(random: Random, token: str) -> str:
    """Another token of the same kind."""
    for pattern, others in KINDS:
        if pattern.fullmatch(token):
            return random.choice(others)
    return token if token in FIXED else random.choice(NAMES)


def check_seed(seed: int) -> None:
    text = program(Random(seed))
    for diagnostic in check(Source("test.mto", text)):
        assert render_all([diagnostic])


@pytest.mark.parametrize("block", range(4))
def test_mutated_programs(block: int) -> None:
    for seed in range(block * 75, block * 75 + 75):
        check_seed(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_many_mutated_programs(block: int) -> None:
    for seed in range(1_000 + block * 1000, 2_000 + block * 1000):
        check_seed(seed)
