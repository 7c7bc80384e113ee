"""Burgers' equation u_t + u u_x = 0.05 u_xx, solved by training a network to satisfy it.

    python examples/physics.py [--steps 8000] [--plot burgers.png]

There is no data: the loss is the mean square of what is left of the equation, at random points, so
its gradient nests derivatives three deep (by x twice, then by the parameters).  All of it is one
native training step of less than a millisecond.  Prints the loss as it falls and how far the
solution is from the exact one of Cole and Hopf (about 0.005 at most, where u is between -1 and 1).
It takes about ten seconds.  `--plot` draws both solutions (extra `plot`).

The method: Raissi, Perdikaris, Karniadakis, "Physics-informed neural networks", 2019.
"""

import argparse
from pathlib import Path

import numpy as np

import mapsto as mt

HERE = Path(__file__).parent
VISCOSITY = 0.05
TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)


def exact(x: np.ndarray, t: float) -> np.ndarray:
    """The solution by the transformation of Cole and Hopf, its integrals by Gauss and Hermite."""
    if t == 0:
        return -np.sin(np.pi * x)
    nodes, weights = np.polynomial.hermite.hermgauss(200)
    y = x[:, None] - np.sqrt(4 * VISCOSITY * t) * nodes
    kernel = weights * np.exp(-np.cos(np.pi * y) / (2 * np.pi * VISCOSITY))
    return -(np.sin(np.pi * y) * kernel).sum(1) / kernel.sum(1)


def draw(path: str, x: np.ndarray, found: list[np.ndarray]) -> None:
    """A picture of the solution at some times, over the exact one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for t, values in zip(TIMES, found, strict=True):
        (line,) = axes.plot(x, values, label=f"t = {t}")
        axes.plot(x, exact(x, t), ":", color=line.get_color(), linewidth=3, alpha=0.5)
    axes.set(xlabel="x", ylabel="u", title="Burgers' equation: network, and exact (dotted)")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    """Trains, and compares with the exact solution."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8000, help="training steps of 256 points")
    parser.add_argument("--plot", help="draw the solution into this file")
    options = parser.parse_args()
    # [counted]
    run = mt.load(HERE / "physics.mto").Burgers(seed=0)
    random = np.random.default_rng(0)
    for step in range(options.steps + 1):
        x = random.uniform(-1, 1, 256).astype(np.float32)
        t = random.uniform(0, 1, 256).astype(np.float32)
        loss = run.step(x=x, t=t)
        # [end]
        if step % max(1, options.steps // 8) == 0:
            print(f"step {step}: loss {loss:.5f}", flush=True)

    x = np.linspace(-1, 1, 201, dtype=np.float32)
    solution = mt.vmap(run.net)
    found = [solution(x, np.full_like(x, t)) for t in TIMES]
    errors = [np.abs(u - exact(x, t)).max() for u, t in zip(found, TIMES, strict=True)]
    print(f"largest error {max(errors):.4f}")
    if options.plot:
        draw(options.plot, x, found)


if __name__ == "__main__":
    main()
