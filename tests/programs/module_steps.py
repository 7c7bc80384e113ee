"""Modules: parameters, states, submodules, trees of parameters, modes; and `train` blocks."""

from __future__ import annotations

from writing import Shared, Var, Writer, grow, type_text

__all__ = ["write_module", "write_train"]

CELL = '''\
module Cell[T](units: int, activation: map = tanh, bias: bool = true):
    """A layer of its own."""
    param w: T[d, units] ~ normal(std=0.4)
    param b: T[units] ~ if bias then zeros else none
    half = 0.5

    map (x: T[...s, d]) -> T[...s, units]:
        let y = x @ w * half
        activation(if b == none then y else y + b)

    map weight(k: T) -> T[d, units]: w * k
'''
PYRAMID = """\
module Pyramid(levels: int):
    layer = Cell(3)
    rest = if levels > 1 then Pyramid(levels - 1) else none

    map (x: {dtype}[n, d]):
        if rest == none then layer(x) else rest(layer(x))
"""
"""A module that holds itself."""
STATES = """\
    state count: i32 = 0
    state average: {dtype}[3] = 0.5
    state key: i64 ~ fresh_key
"""
LAYERS = (
    "Cell(3)",
    "Cell(3, activation=sin, bias=false)",
    "if true then Cell(3) else none",
    "Pyramid(2)",
    "[Cell(2), Cell(3)]",
    "[Cell(3) for level in range(2)]",
)


def write_module(shared: Shared, inputs: list[Var]) -> str:
    """A module `F` whose unnamed map takes the inputs."""
    random = shared.random
    layers = random.choice(LAYERS)
    own = shared.dtype
    w = Writer(shared, inputs, depth=1)
    x = Var("x0", own, inputs[0].shape)
    call = "chain(layers)(x0)" if layers.startswith("[") else "layers(x0)"
    w.line(f"let hidden = {call}")
    hidden = Var("hidden", own, (*x.shape[:-1], 3))
    w.scope += [hidden, Var("scale", own, (3,))]
    _use_states(w, hidden)
    found = grow(w, hidden, random.randint(1, 5))
    shared.definitions += [CELL, PYRAMID.format(dtype=own)]
    declared = ", ".join(f"{v.text}: {v.type}" for v in inputs)
    members = ["    param scale: " + type_text(own, [3]) + " ~ ones\n", STATES.format(dtype=own)]
    body = w.block(w, f"({found.text}, hidden)").replace("\n", "\n    ")
    return f"module F():\n    layers = {layers}\n{''.join(members)}\n    map ({declared}):{body}\n"


def _use_states(w: Writer, hidden: Var) -> None:
    """Updates of states: plain, in a branch that is known, in one that runs, in a loop."""
    forms = [
        "count <- count + 2",
        "if training:\n    average <- average * 0.5\nelse:\n    count <- count - 1",
        "average <- 0.9 * average + 0.1 * max(hidden, axis=0)",
        "if sum(hidden) > 0:\n    count <- count * 3\n    average <- average / 2",
        "let now = key\nkey <- next_key(now)\nlet noise = bernoulli(now, 0.5, shape=[3])",
    ]
    for form in w.random.sample(forms, w.random.randint(1, 3)):
        w.line(form)
    w.scope.append(Var("average", w.dtype, (3,)))
    w.scope.append(Var("count", "i32"))


LEARN = """\
module Step(rate: map = 0.1):
    state v: {dtype}[...s] = 0

    map (p: {dtype}[...s], g: {dtype}[...s]) -> {dtype}[...s]:
        v <- 0.5 * v + g
        p - {dtype}(rate(1)) * v

module Short(optimizer: module, limit: {dtype} = 0.5):
    map (p: tree, g: tree) -> tree:
        optimizer(p, g * minimum(1, limit / (0.1 + norm(g))))

map error(net: module, x: {dtype}[n, d]) -> {dtype}:
    mean(net(x)^2) + 0.1 * sum(parameters(net)^2)

module F():
    layers = {layers}
    net = {net}
    optimizer = Short(Step({rate}))

    map (x0: {type}):
        let (value, slope) = value_and_grad(error)(net, x0)
        update(optimizer, net, tree_map(tanh, slope))
        ({mode}(net)(x0), value, norm(slope))
"""


def write_learning(shared: Shared, x: Var) -> str:
    """A module that trains another one by hand, by trees of parameters."""
    random = shared.random
    shared.definitions += [CELL, PYRAMID.format(dtype=shared.dtype)]
    net = random.choice([layer for layer in LAYERS if not layer.startswith("[")])
    return LEARN.format(
        dtype=shared.dtype,
        type=x.type,
        net=net,
        layers=random.choice(["none", "[]"]),
        rate=random.choice(["", "0.05", "rate=0.2"]),
        mode=random.choice(["train_mode", "eval_mode", "frozen", "identity"]),
    )


TRAIN = '''\
train Fit(net = {net}, other = Cell(3), optimizer = {optimizer}):
    """What is trained."""
    weight = 0.5
    loss {first}(x: {type}) = mean(net(x)^2) * weight + mean({loss})
    loss second[other](x: {type}):
        mean((other(x) - stop_gradient(net(x)))^2)
    metric largest(x: {type}) = max(abs(net(x)))
    metric mean_of(x: {type}) -> {dtype}:
        mean(scaled(net(x)))

    map scaled(y: {dtype}[n, 3]) -> {dtype}[n, 3]: y * weight
'''


def write_train(shared: Shared, x: Var) -> str:
    """A `train` block with two losses; its data have the type of x."""
    random = shared.random
    shared.definitions += [CELL, PYRAMID.format(dtype=shared.dtype)]
    w = Writer(shared, [])
    form = random.choice(["sin({})", "abs({})", "tanh({}) * {}", "relu({})", "softmax({})"])
    optimizers = ["SGD(lr=0.1)", "Adam()", '[(net, SGD(0.1)), ("*", Adam())]', "Momentum(lr=0.1)"]
    return TRAIN.format(
        dtype=shared.dtype,
        type=x.type,
        net=w.random.choice(["Cell(3)", "Pyramid(2)", "Cell(3, sin)"]),
        optimizer=random.choice(optimizers[:3]),
        first=random.choice(["first[net]", "first[net]", "first[net, other]"]),
        loss=form.replace("{}", "net(x)"),
    )
