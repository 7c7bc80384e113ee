"""Random programs of the language: well-typed files, named by a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

from array_steps import ARRAYS
from derivative_steps import DERIVATIVES
from elementwise_steps import ELEMENTWISE
from flow_steps import EFFECTS, FLOW
from index_steps import INDEX_NOTATION
from module_steps import write_learning, write_module, write_train
from structure_steps import STRUCTURES
from writing import SIZES, Shared, Step, Var, Writer, grow, m, n

__all__ = ["STEPS", "Program", "write_program"]

FAMILIES: tuple[tuple[Step, ...], ...] = (
    *(ELEMENTWISE, ELEMENTWISE, INDEX_NOTATION, INDEX_NOTATION, ARRAYS, ARRAYS),
    *(STRUCTURES, STRUCTURES, FLOW, DERIVATIVES),
)


def _any_step(w: Writer, x: Var) -> Var | None:
    """A step of a family; families are as likely as they stand in the list."""
    return w.random.choice(w.random.choice(FAMILIES))(w, x)


STEPS: tuple[Step, ...] = (*[_any_step] * 12, *EFFECTS[:2])


@dataclass(frozen=True)
class Program:
    """A file whose entry is a map `f`, a module `F` or a `train` block `Fit`."""

    seed: int
    text: str
    entry: str
    inputs: tuple[Var, ...]
    sizes: Mapping[str, int]
    dtype: str
    is_gradient: bool = False
    """Whether the map `f` gives a derivative in forward mode and the same in reverse mode."""


def write_program(seed: int) -> Program:
    """The program of a seed."""
    random = Random(seed)
    is_symbolic = random.random() < 0.5
    sizes = {"n": random.choice(SIZES), "m": random.choice(SIZES)}
    dims = random.choice([(1, 2, 3, 4), (2, 3, 5), (3, 4, 6), (1, 7, 8), (4, 17), (33,)])
    named = random.choice([(n,), (n, m)]) if is_symbolic else ()
    dtype = random.choices(["f64", "f32", "f16", "bf16"], [14, 3, 1, 1])[0]
    kind = random.choices(["map", "gradient", "module", "train"], [12, 6, 2, 1])[0]
    if kind == "gradient":
        dtype = "f64"
    shared = Shared(random, sizes, (*named, *dims), dtype, kind == "gradient", STEPS)
    if kind in ("module", "train"):
        return _with_parameters(seed, kind, shared)
    inputs = _inputs(shared)
    if kind == "gradient":
        return _gradient(seed, shared, inputs)
    return _map(seed, shared, inputs)


def _inputs(shared: Shared) -> list[Var]:
    random = shared.random
    found = []
    for number in range(random.randint(1, 3)):
        shape = tuple(random.choice(shared.dims) for _ in range(random.randint(0, 3)))
        found.append(Var(f"x{number}", shared.dtype, shape if number or shape else (3,)))
    extra = random.random()
    if extra < 0.5:
        dtype = random.choice(["i32", "i32", "i64", "bool", "i8", "i16", "u8"])
        shape = tuple(random.choice(shared.dims) for _ in range(random.randint(0, 2)))
        found.append(Var(f"x{len(found)}", dtype, shape))
    w = Writer(shared, [])
    for axis, dim in enumerate(shared.dims):
        if not isinstance(dim, int) and not any(dim in v.shape for v in found):
            found.append(Var(f"x{len(found)}", shared.dtype, (dim,) * (1 + axis % 2)))
    found = [v for v in found if w.fits(v.shape)]
    return found if found and found[0].is_float else [Var("x9", shared.dtype, (3,)), *found]


def _declared(inputs: list[Var]) -> str:
    return ", ".join(f"{v.text}: {v.type}" for v in inputs)


def _known(shared: Shared, inputs: list[Var]) -> Shared:
    """Without the named sizes that no input fixes."""
    there = {dim for v in inputs for dim in v.shape}
    dims = tuple(dim for dim in shared.dims if isinstance(dim, int) or dim in there)
    return replace(shared, dims=dims)


def _map(seed: int, shared: Shared, inputs: list[Var]) -> Program:
    shared = _known(shared, inputs)
    w = Writer(shared, inputs)
    given = [_passed(w, v) for v in inputs]
    grow(w, w.random.choice(inputs), w.random.randint(2, 10))
    results = [_returned(w.random.choice(w.scope[-6:])) for _ in range(w.random.randint(1, 3))]
    if len(results) == 1:
        value, type_ = results[0].text, results[0].type
    elif w.chance(0.5):
        value = f"({', '.join(v.text for v in results)})"
        type_ = f"({', '.join(v.type for v in results)})"
    else:
        value = f"({', '.join(f'r{i} = {v.text}' for i, v in enumerate(results))})"
        type_ = f"({', '.join(f'r{i}: {v.type}' for i, v in enumerate(results))})"
    arrow = f" -> {type_}" if w.chance(0.6) else ""
    body = w.block(w, value)
    text = f"map f({_declared(given)}){arrow}:{body}\n"
    return Program(seed, _file(shared, text), "f", tuple(given), shared.sizes, shared.dtype)


def _passed(w: Writer, x: Var) -> Var:
    """An argument; NumPy has no bf16, so that is made inside."""
    if x.dtype != "bf16":
        return x
    w.line(f"let {x.text} = bf16(given_{x.text})")
    return replace(x, text=f"given_{x.text}", dtype="f32")


def _returned(x: Var) -> Var:
    return replace(x, text=f"f32({x.text})", dtype="f32") if x.dtype == "bf16" else x


def _gradient(seed: int, shared: Shared, inputs: list[Var]) -> Program:
    """Derivatives along a direction, forward and reverse; of the first order or the second."""
    shared = _known(shared, inputs)
    w = Writer(shared, inputs)
    x = inputs[0]
    found = grow(w, x, w.random.randint(2, 6))
    last = found.text if found.dtype == "f64" else f"f64({found.text})"
    loss = f"mean(sin({last} + 0.3)) + mean({w.floats().text}^2) + mean({x.text}^3) / 9"
    text = f"map loss({_declared(inputs)}) -> f64:{w.block(w, loss)}\n"
    names = ", ".join(v.text for v in inputs)
    function = "loss"
    if w.chance(0.3):
        function = "slope"
        head = f"map slope({_declared(inputs)}) -> f64:"
        text += f"{head}\n    sum(sin(grad(loss)({names})))\n"
    text += (
        f"map f({_declared([*inputs, replace(x, text='d')])}):\n"
        f"    let (value, reverse) = value_and_grad({function})({names})\n"
        f"    let (same, forward) = jvp({function}, argnums=0)({names}, d)\n"
        "    (value = value, same = same, forward = forward, reverse = sum(reverse * d))\n"
    )
    given = (*inputs, replace(x, text="d"))
    return Program(seed, _file(shared, text), "f", given, shared.sizes, "f64", True)


def _with_parameters(seed: int, kind: str, shared: Shared) -> Program:
    random = shared.random
    shared = replace(shared, dtype=random.choice(["f64", "f64", "f32"]), reverse=True)
    rows = random.choice(shared.dims)
    shared = replace(shared, dims=tuple(d for d in shared.dims if isinstance(d, int) or d == rows))
    width = random.randint(1, 4)
    x = Var("x0", shared.dtype, (rows, width))
    if kind == "train":
        inputs = [replace(x, text="x")]
        text, entry = write_train(shared, x), "Fit"
    elif random.random() < 0.3:
        inputs, entry, text = [x], "F", write_learning(shared, x)
    else:
        inputs, entry, text = [x], "F", write_module(shared, [x])
    return Program(seed, _file(shared, text), entry, tuple(inputs), shared.sizes, shared.dtype)


def _file(shared: Shared, text: str) -> str:
    """The definitions in any order, with a head."""
    parts = [*dict.fromkeys(shared.definitions), text]
    shared.random.shuffle(parts)
    heads = ["", "", '"""A file."""\n', "# A comment.\n", "import activation\n", ""]
    heads += ["from activation import relu as rectified\n", "import math as arithmetic\n"]
    return shared.random.choice(heads) + "\n".join(parts)
