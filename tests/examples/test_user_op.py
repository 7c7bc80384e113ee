"""The op of `examples/custom_pass.py` in programs other than its own, and passes with mistakes."""

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import mapsto as mt

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "custom_pass.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("custom_pass", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["custom_pass"] = module
    spec.loader.exec_module(module)
    return module


def test_programs_with_the_op_are_checked() -> None:
    check = (sys.executable, "-m", "mapsto.cli", "check", "examples/custom_pass.mto")
    for options, code in (((), 1), (("--plugin", "examples/custom_pass.py"), 0)):
        done = subprocess.run(
            [*check, *options], capture_output=True, text=True, timeout=60, cwd=ROOT
        )
        assert done.returncode == code
        assert ("unknown name `squash`" in done.stderr) == bool(code)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_values_and_derivatives(example: ModuleType, dtype: str) -> None:
    lib = mt.loads(f"""
map values(x: {dtype}[n, m]) -> {dtype}[n, m]:
    squash(x)

map total(x: {dtype}[n, m]) -> {dtype}:
    sum(squash(x)^2)

map curvature(x: {dtype}[n, m], dx: {dtype}[n, m]) -> {dtype}[n, m]:
    let (slope, product) = jvp(grad(total))(x, dx)
    product
""")
    tolerance = 1e-6 if dtype == "f32" else 1e-13
    x, dx = np.random.default_rng(2).normal(size=(2, 5, 33)).astype(dtype.replace("f", "float"))
    one = 1 + np.abs(x)
    np.testing.assert_allclose(lib.values(x), x / one, rtol=tolerance)
    np.testing.assert_allclose(lib.values.reference(x), x / one, rtol=tolerance)
    np.testing.assert_allclose(mt.grad(lib.total)(x), 2 * x / one**3, rtol=10 * tolerance)
    second = (2 * one - 6 * np.abs(x)) / one**4 * dx
    np.testing.assert_allclose(lib.curvature(x, dx), second, rtol=1e-3, atol=50 * tolerance)


def test_training_with_the_op(example: ModuleType) -> None:
    """The op as the activation of a layer, in a fused step."""
    lib = mt.loads("""
module Net():
    layers = [Dense(16, squash), Dense(3)]

    map (x: f32[n, d]) -> f32[n, 3]:
        chain(layers)(x)

train Task(net = Net(), optimizer = Adam(lr=1e-2)):
    loss(x: f32[n, d], y: i32[n]) = cross_entropy(net(x), y)
""")
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 64).astype(np.int32)
    x = (random.normal(size=(64, 4)) + 2 * np.eye(3, 4)[y]).astype(np.float32)
    run = lib.Task()
    losses = [run.step(x=x, y=y) for _ in range(100)]
    assert losses[-1] < losses[0] / 2


def test_what_an_op_lacks_is_named() -> None:
    class Bare(mt.ir.FloatUnary):
        """x + 1, without derivative and native code."""

        name = "bare"

        def evaluate(self, *operands: mt.ir.Array) -> tuple[mt.ir.Array]:
            return (operands[0] + 1,)

    lib = mt.loads("map f(x: f32[n]) -> f32:\n    sum(bare(x))\n", name="bare.mto")
    x = np.ones(3, np.float32)
    with pytest.raises(mt.MissingLowering, match="2:9: the op `bare` has no lowering"):
        lib.f(x)
    with pytest.raises(mt.MissingDerivative, match="2:9: the op `bare` has no deriva"):
        mt.grad(lib.f)(x)
    assert lib.f.reference(x) == 6


def test_ops_of_one_name_are_refused(example: ModuleType) -> None:
    with pytest.raises(ValueError, match="an op named 'squash' exists already"):

        class Another(mt.ir.FloatUnary):
            name = "squash"


@mt.rewrite
def never_ends(op: mt.ir.Add, rewriter: mt.Rewriter) -> mt.ir.Value:
    """x + y = y + x"""
    return rewriter.emit(mt.ir.Add, *reversed(op.operands))


@mt.rewrite
def has_a_bug(op: mt.ir.Add, rewriter: mt.Rewriter) -> mt.ir.Value:
    """Fails."""
    return op.result.operands  # type: ignore[attr-defined]


@dataclass(frozen=True)
class DropEverything(mt.Pass):
    """Leaves functions without a body."""

    name = "drop-everything"

    def run(self, module: mt.ir.Module) -> mt.ir.Module:
        empty = {
            name: f.with_block(mt.ir.Block([a.type for a in f.arguments]))
            for name, f in module.functions.items()
        }
        return mt.ir.Module(empty)


@dataclass(frozen=True)
class GiveNothing(mt.Pass):
    """Forgets its result."""

    name = "give-nothing"

    def run(self, module: mt.ir.Module) -> mt.ir.Module:
        return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("never-ends", "the pass `never-ends` failed: rewriting does not come to an end"),
        ("has-a-bug", "the pass `has-a-bug` failed: AttributeError"),
        ("drop-everything", "the pass `drop-everything` gave an ill-formed module: @f"),
        ("give-nothing", "the pass `give-nothing` gave no module"),
    ],
)
def test_passes_with_a_mistake_are_named(name: str, message: str) -> None:
    lib = mt.loads("map f(x: f32[n]) -> f32[n]:\n    x + exp(x)\n")
    with pytest.raises(mt.PassError, match=message):
        lib.f.with_passes(f"default,{name}")(np.ones(3, np.float32))
