"""Steps of whole arrays: slices, shapes, products, padding, sorting, scattering, running sums."""

from __future__ import annotations

from elementwise_steps import tame
from writing import Step, Var, Writer, brackets

__all__ = ["ARRAYS"]


def _with(shape: tuple, axis: int, dim: object) -> tuple:
    return (*shape[:axis], dim, *shape[axis + 1 :])


def _axis_text(w: Writer, x: Var, axis: int) -> int:
    return axis - x.rank if w.chance(0.3) else axis


def part(w: Writer, x: Var) -> Var | None:
    """Slices with strides and negative steps, positions, dots."""
    if not x.rank:
        return None
    axis = w.random.randrange(x.rank)
    extent = x.shape[axis]
    forms = [(":", extent), ("::-1", extent), ("1:", extent - 1), (":-1", extent - 1)]
    forms += [("0", None), ("-1", None), ("::2", (extent + 1) // 2), ("-2:", 2), (":1", 1)]
    form, size = w.random.choice(forms)
    if form == "-2:" and w.size(extent) < 2:
        return None
    shape = (*x.shape[:axis], *(() if size is None else (size,)), *x.shape[axis + 1 :])
    if not w.fits(shape):
        return None
    items = [":"] * axis + [form]
    if w.chance(0.3):
        items = ["...", form, *[":"] * (x.rank - axis - 1)]
    return w.let(f"{x.text}{brackets(items)}", x.dtype, shape)


def joined(w: Writer, x: Var) -> Var | None:
    if not x.rank:
        return None
    axis = w.random.randrange(x.rank)
    y = w.pick(lambda v: v.dtype == x.dtype and v.rank == x.rank and _fits(x, v, axis)) or x
    shape = _with(x.shape, axis, x.shape[axis] + y.shape[axis])
    return w.let(f"concat([{x.text}, {y.text}], axis={axis})", x.dtype, shape)


def _fits(x: Var, y: Var, axis: int) -> bool:
    return _with(x.shape, axis, 0) == _with(y.shape, axis, 0)


def stacked(w: Writer, x: Var) -> Var | None:
    if x.rank > 2:
        return None
    axis = w.random.randint(0, x.rank)
    shape = (*x.shape[:axis], 2, *x.shape[axis:])
    return w.let(f"stack([{x.text}, {w.like(x).text}], axis={axis})", x.dtype, shape)


def taken_apart(w: Writer, x: Var) -> Var | None:
    """A split in equal parts, or in parts of given sizes."""
    axis = next((a for a in range(x.rank) if isinstance(x.shape[a], int) and x.shape[a] > 1), None)
    if axis is None:
        return None
    extent = x.shape[axis]
    first = w.random.randint(1, extent - 1)
    sizes = [first, extent - first]
    names = [w.fresh("v"), w.fresh("v")]
    counts = "2" if sizes[0] == sizes[1] else str(sizes)
    w.line(f"let ({', '.join(names)}) = split({x.text}, {counts}, axis={axis})")
    first_part, last = (
        Var(v, x.dtype, _with(x.shape, axis, s)) for v, s in zip(names, sizes, strict=True)
    )
    w.scope.append(first_part)
    return last


def transposed(w: Writer, x: Var) -> Var | None:
    if x.rank < 2:
        return None
    order = list(range(x.rank))
    w.random.shuffle(order)
    if order == list(range(x.rank))[::-1] and w.chance(0.5):
        return w.let(f"transpose({x.text})", x.dtype, x.shape[::-1])
    if w.chance(0.3):
        shape = list(x.shape)
        shape[0], shape[-1] = shape[-1], shape[0]
        return w.let(f"swap_axes({x.text}, 0, -1)", x.dtype, shape)
    if w.chance(0.2):
        return w.let(f"move_axis({x.text}, 0, -1)", x.dtype, (*x.shape[1:], x.shape[0]))
    text = f"transpose({x.text}, {order})"
    return w.let(text, x.dtype, [x.shape[a] for a in order])


def reshaped(w: Writer, x: Var) -> Var | None:
    if not x.rank:
        return None
    total = 1
    for dim in x.shape:
        total = total * dim
    forms: list[tuple[str, tuple]] = [(f"flatten({x.text})", (total,))]
    forms.append((f"reshape({x.text}, [{total}])", (total,)))
    if x.rank < 3:
        forms.append((f"expand_dims({x.text}, [0])", (1, *x.shape)))
        forms.append((f"squeeze(expand_dims({x.text}, [-1]), axis=-1)", x.shape))
    if x.rank == 2:
        forms.append((f"reshape({x.text}, {brackets(x.shape[::-1])})", x.shape[::-1]))
    if isinstance(x.shape[-1], int) and x.shape[-1] % 2 == 0 and x.rank < 3:
        shape = (*x.shape[:-1], 2, x.shape[-1] // 2)
        forms.append((f"reshape({x.text}, {brackets(shape)})", shape))
    text, shape = w.random.choice(forms)
    return w.let(text, x.dtype, shape)


def repeated(w: Writer, x: Var) -> Var | None:
    if not x.rank:
        return None
    axis, count = w.random.randrange(x.rank), w.random.randint(1, 3)
    if w.chance(0.4):
        shape = _with(x.shape, axis, x.shape[axis] * count)
        return w.let(f"repeat({x.text}, {count}, axis={axis})", x.dtype, shape)
    if w.chance(0.5):
        counts = [count if a == axis else 1 for a in range(x.rank)]
        shape = _with(x.shape, axis, x.shape[axis] * count)
        return w.let(f"tile({x.text}, {counts})", x.dtype, shape)
    if x.rank < 3:
        dim = w.random.choice(w.shared.dims)
        shape = (dim, *x.shape)
        return w.let(f"broadcast({x.text}, {brackets(shape)})", x.dtype, shape)
    return None


def moved(w: Writer, x: Var) -> Var | None:
    if not x.rank:
        return None
    axis = w.random.randrange(x.rank)
    shift = w.random.choice(["1", "-1", "2", "-7", "17"])
    forms = [f"flip({x.text}, axis={axis})", f"flip({x.text})"]
    forms.append(f"roll({x.text}, {shift}, axis={_axis_text(w, x, axis)})")
    return w.let(w.random.choice(forms), x.dtype, x.shape)


def padded(w: Writer, x: Var) -> Var | None:
    if not x.rank or x.dtype == "bool":
        return None
    mode = w.random.choice(["constant", "constant", "reflect", "edge", "wrap"])
    if mode in ("reflect", "wrap") and min(w.size(d) for d in x.shape) < 2:
        return None
    if mode in ("reflect", "wrap") and w.symbolic(x.shape):
        return None
    shape = tuple(d + 2 for d in x.shape)
    if mode != "constant":
        return w.let(f'pad({x.text}, 1, mode="{mode}")', x.dtype, shape)
    if w.chance(0.5):
        widths = [[w.random.randint(0, 2), w.random.randint(0, 1)] for _ in x.shape]
        shape = tuple(d + low + high for d, (low, high) in zip(x.shape, widths, strict=True))
        return w.let(f"pad({x.text}, {widths}, value={w.number(x.dtype)})", x.dtype, shape)
    return w.let(f"pad({x.text}, 1)", x.dtype, shape)


def whole_reduction(w: Writer, x: Var) -> Var | None:
    if not x.rank or not x.is_float:
        return None
    name = w.reduction(x, ["sum", "mean", "max", "min", "prod", "norm", "logsumexp", "var"])
    axis = w.random.randrange(x.rank)
    if name == "logsumexp":
        return w.let(f"tanh(logsumexp({x.text}))", x.dtype, x.shape[:-1])
    if w.chance(0.3) and name != "norm":
        shape = _with(x.shape, axis, 1)
        text = tame(w, f"{name}({x.text}, axis={axis}, keepdims=true)")
        return w.let(text, x.dtype, shape)
    if w.chance(0.3):
        return w.let(tame(w, f"{name}({x.text} + 0.1)"), x.dtype)
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    text = f"{name}({x.text} + 0.1, axis={_axis_text(w, x, axis)})"
    return w.let(tame(w, text), x.dtype, shape)


def product(w: Writer, x: Var) -> Var | None:
    """A product of matrices, of stacks of them, or of vectors."""
    if not x.rank or not x.is_float:
        return None
    inner = x.shape[-1]
    y = w.pick(lambda v: v.dtype == x.dtype and _multiplies(x, v, inner))
    if y is None:
        if x.rank != 2:
            return None
        text = f"{x.text} @ transpose({x.text})"
        return w.let(tame(w, text), x.dtype, (x.shape[0], x.shape[0]))
    shape = (*x.shape[:-1], *(y.shape[1:] if y.rank == 2 else ()))
    return w.let(tame(w, f"{x.text} @ {y.text}"), x.dtype, shape)


def _multiplies(x: Var, y: Var, inner: object) -> bool:
    return y.rank in (1, 2) and y.shape[0] == inner


def running(w: Writer, x: Var) -> Var | None:
    if not x.rank or not x.is_float:
        return None
    axis = w.random.randrange(x.rank)
    name = w.random.choice(["cumsum", "cumprod", "cummax", "cummin"])
    options = w.random.choice(["", ", reverse=true", ", exclusive=true", ""])
    if name in ("cummax", "cummin"):
        options = options.replace(", exclusive=true", "")
    if w.chance(0.25):
        text = f"recurrence({w.like(x).text}, {x.text}, axis={axis})"
        return w.let(tame(w, text), x.dtype, x.shape)
    return w.let(tame(w, f"{name}({x.text}, axis={axis}{options})"), x.dtype, x.shape)


def ordered(w: Writer, x: Var) -> Var | None:
    if not x.rank or x.dtype == "bool":
        return None
    axis = w.random.randrange(x.rank)
    options = f"axis={axis}" + w.random.choice(["", ", descending=true"])
    kind = w.random.randrange(3)
    if kind == 0:
        return w.let(f"sort({x.text}, {options})", x.dtype, x.shape)
    if kind == 1:
        return w.let(f"argsort({x.text}, {options})", "i32", x.shape)
    if not isinstance(x.shape[-1], int):
        return None
    count = w.random.randint(1, x.shape[-1])
    values, positions = w.fresh("v"), w.fresh("v")
    shape = (*x.shape[:-1], count)
    w.line(f"let ({values}, {positions}) = top_k({x.text}, {count})")
    w.scope.append(Var(positions, "i32", shape))
    return Var(values, x.dtype, shape)


def scattered(w: Writer, x: Var) -> Var | None:
    """Updates at computed positions along the first axis."""
    if not x.rank or x.dtype == "bool":
        return None
    dim = w.random.choice(w.shared.dims)
    ids = w.let(w.integers((dim,), x.shape[0]), "i32", (dim,))
    if ids is None:
        return None
    updates = w.of_shape(x.dtype, (dim, *x.shape[1:]))
    name = w.random.choice(["scatter", "scatter_add", "scatter_max", "scatter_min"])
    text = f"{name}({x.text}, {ids.text}, {updates})"
    if x.is_float and name == "scatter_add":
        text = tame(w, text)
    return w.let(text, x.dtype, x.shape)


def segments(w: Writer, x: Var) -> Var | None:
    if not x.rank or not x.is_float:
        return None
    count = w.random.randint(1, 4)
    ids = w.let(w.integers((x.shape[0],), count), "i32", x.shape[:1])
    if ids is None:
        return None
    name = w.random.choice(["segment_sum", "segment_max", "segment_min", "segment_mean"])
    text = f"{name}({x.text}, {ids.text}, {count})"
    if name in ("segment_max", "segment_min"):  # of no elements: infinite
        text = f"clip({text}, -2, 2)"
    return w.let(tame(w, text), x.dtype, (count, *x.shape[1:]))


def computed_place(w: Writer, x: Var) -> Var | None:
    """A part whose start is computed, or an update in its place."""
    if not x.rank:
        return None
    sizes = [w.random.randint(1, min(3, w.size(d))) if isinstance(d, int) else 1 for d in x.shape]
    starts = [w.integers((), d - s + 1) for d, s in zip(x.shape, sizes, strict=True)]
    if w.chance(0.5):
        text = f"dynamic_slice({x.text}, {brackets(starts)}, {sizes})"
        return w.let(text, x.dtype, sizes)
    update = w.of_shape(x.dtype, sizes)
    text = f"dynamic_update({x.text}, {update}, {brackets(starts)})"
    return w.let(text, x.dtype, x.shape)


def counted(w: Writer, x: Var) -> Var | None:
    """Numbers in a pattern, and what a tensor's shape says."""
    dim = w.random.choice(w.shared.dims)
    forms: list[tuple[str, str, tuple]] = [(f"iota({dim})", "i32", (dim,))]
    forms.append((f"{w.dtype}(iota({dim})) / {dim}", w.dtype, (dim,)))
    forms.append((f"one_hot({w.integers((dim,), 4)}, 4, dtype={w.dtype})", w.dtype, (dim, 4)))
    forms.append(("linspace(-1, 1, 5, dtype=f64)", "f64", (5,)))
    forms.append(("arange(7, 1, step=-2)", "i32", (3,)))
    forms.append(("eye(3, dtype=f64)", "f64", (3, 3)))
    if x.is_float and x.rank:
        forms.append((f"{x.text} / (size({x.text}) + len({x.text}))", x.dtype, x.shape))
        last = f"{x.text}.shape[0] + {x.text}.rank"
        forms.append((f"{x.text} / ({last})", x.dtype, x.shape))
    return w.let(*w.random.choice(forms))


def normalized(w: Writer, x: Var) -> Var | None:
    if not x.rank or not x.is_float:
        return None
    forms = ("softmax({})", "softmax({}, axis=0)", "log_softmax({}) / 8", "log_softmax({}) / 4")
    return w.let(w.random.choice(forms).format(x.text), x.dtype, x.shape)


def triangle(w: Writer, x: Var) -> Var | None:
    if x.rank != 2:
        return None
    if w.chance(0.5) or not x.is_float:
        return w.let(f"tril({x.text}, k={w.random.randint(-1, 1)})", x.dtype, x.shape)
    return w.let(f"triu({x.text})", x.dtype, x.shape)


ARRAYS: tuple[Step, ...] = (
    *(part, part, joined, stacked, taken_apart, transposed, reshaped, repeated, moved, padded),
    *(whole_reduction, product, product, running, ordered, scattered, segments, computed_place),
    *(counted, normalized, triangle),
)
