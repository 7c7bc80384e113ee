"""The table of lines of code: it is current, and counts programs that say what they are."""

import importlib.util
import runpy
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def counter() -> ModuleType:
    """benchmarks/lines/count.py"""
    path = ROOT / "benchmarks" / "lines" / "count.py"
    spec = importlib.util.spec_from_file_location("count_lines", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


count = counter()


def test_the_table_is_current() -> None:
    text = count.PAGE.read_text("utf-8")
    assert text == count.page(), "run `python benchmarks/lines/count.py`"


@pytest.mark.parametrize("peer", count.PEERS)
def test_a_peer_has_every_example_and_no_other(peer: str) -> None:
    present = {path.stem for path in (count.HERE / peer).glob("*.py")}
    assert present == set(count.EXAMPLES)


@pytest.mark.parametrize("example", count.EXAMPLES)
def test_programs_of_an_example(example: str) -> None:
    own, *peers = count.sources(example).values()
    assert own[0].suffix == ".mto"
    for (path,), name in zip(peers, count.PEERS.values(), strict=True):
        text = path.read_text("utf-8")
        program = compile(text, str(path), "exec", dont_inherit=True)
        first = (program.co_consts[0] or "").splitlines()[0]
        assert first.startswith(f"examples/{example}.mto in {name}".removesuffix(".")), path
        assert count.lines_of_code(path) > 10


MARKED = '''\
"""A program."""

import numpy as np

# [counted]
def double(x):
    """Twice x,

    which is x + x.
    """
    # A comment.
    y = [
        x,  # another

        x,
    ]
    return sum(y)


text = """two
lines"""
# [end]
print(double(np.pi))
    # [counted]
print(text)
    # [end]
'''

PROGRAM = '''\
# A comment.

map double(x: f32) -> f32:
    """Twice x,

    which is x + x.
    """
    x + x  # one more
'''


def test_the_rule(tmp_path) -> None:
    marked, program = tmp_path / "marked.py", tmp_path / "program.mto"
    marked.write_text(MARKED, "utf-8")
    program.write_text(PROGRAM, "utf-8")
    assert count.lines_of_code(marked) == 1 + 4 + 1 + 2 + 1
    assert count.lines_of_code(program) == 2


@pytest.mark.parametrize(
    "text",
    ["x = 1\n", "# [counted]\nx = 1\n", "# [end]\nx = 1\n# [counted]\n"],
    ids=["without marks", "without an end", "the wrong way round"],
)
def test_marks_come_in_pairs(text: str, tmp_path) -> None:
    path = tmp_path / "marked.py"
    path.write_text(text, "utf-8")
    with pytest.raises(count.Unmarked):
        count.lines_of_code(path)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("example", "least"), [("linear_regression", 0.9), ("digits", 0.95), ("custom_layer", 0.93)]
)
def test_programs_in_pytorch_learn(example: str, least: float, monkeypatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(ROOT)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        names = runpy.run_path(str(count.HERE / "pytorch" / f"{example}.py"))
    finally:
        torch.set_num_threads(threads)
    assert float(names["accuracy"]) > least
