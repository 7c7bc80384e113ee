"""Fine-tuning: a network that learned digits of MNIST, adapted to those of another collection.

    python examples/fine_tune.py [--epochs 60] [--plot confusion.png]

Trains a network on 8,000 digits of MNIST, shrunk to 8x8 pixels, and evaluates it on 360 digits of
the UCI collection, which were scanned, cut and shrunk by others.  Then adapts it with 100 of these
in three ways: all parameters learn; only the last layer does, the others are frozen by their names;
all layers are frozen, and low-rank adapters beside them learn.  Prints for each the accuracy and
how many parameters it changed: about 0.37 before; 0.93 for 85,002 parameters, 0.80 for 2,570 and
0.90 for 4,392 behind.  It takes about ten seconds.  `--plot` draws which digits are taken for which
before and after (extra `plot`).
"""

import argparse
from pathlib import Path

import numpy as np

import mapsto as mt

HERE = Path(__file__).parent
EXAMPLES = 100


def shrunk(images: np.ndarray) -> np.ndarray:
    """28x28 pixels from 0 to 255 as the means of 3x3 blocks of their middle, from 0 to 16."""
    blocks = images[:, 2:26, 2:26].reshape(-1, 8, 3, 8, 3)
    return (blocks.mean((2, 4)) * (16 / 255)).reshape(-1, 64).astype(np.float32)


def data_of(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The arrays to train on and those held out."""
    data = np.load(HERE / "data" / f"{name}.npz")
    convert = shrunk if name == "mnist" else lambda pixels: pixels.astype(np.float32)
    parts = ("train", "test")
    train, test = ({"x": convert(data[f"x_{p}"]), "y": data[f"y_{p}"]} for p in parts)
    return train, test


def draw(path: str, nets: dict[str, mt.Instance], test: dict[str, np.ndarray]) -> None:
    """The confusion matrix of each network: rows are digits, columns what they are taken for."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(1, len(nets), figsize=(4 * len(nets), 4.4))
    for axes, (name, net) in zip(grid, nets.items(), strict=True):
        counts = np.zeros((10, 10), int)
        np.add.at(counts, (test["y"], net(test["x"]).argmax(1)), 1)
        axes.imshow(counts, cmap="Blues")
        for (row, column), count in np.ndenumerate(counts):
            if count:
                axes.text(column, row, count, ha="center", va="center", fontsize=7)
        axes.set(title=name, xlabel="taken for", ylabel="digit", xticks=range(10), yticks=range(10))
    figure.savefig(path, dpi=110, bbox_inches="tight")


def main() -> None:
    """Trains, adapts, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60, help="epochs of each adaptation")
    parser.add_argument("--first", type=int, default=5, help="epochs of the first training")
    parser.add_argument("--plot", help="draw confusion matrices into this file")
    options = parser.parse_args()
    mnist, mnist_test = data_of("mnist")
    digits, digits_test = data_of("digits")
    few = {name: array[:EXAMPLES] for name, array in digits.items()}

    def report(what: str, run: mt.Trainer, changed: int) -> None:
        # [counted]
        figures = run.evaluate(**digits_test)
        # [end]
        print(f"{what:15} accuracy {figures['accuracy']:.3f}, {changed} parameters changed")

    # [counted]
    lib = mt.load(HERE / "fine_tune.mto")
    first = lib.Everything(seed=0)
    first.fit(mnist, epochs=options.first, progress=False)
    # [end]
    print(f"on MNIST: accuracy {first.evaluate(**mnist_test)['accuracy']:.3f}")
    # [counted]
    learned = {path: array.copy() for path, array in first.net.params.items()}
    report("before", first, 0)

    def start() -> mt.Instance:
        """A network with what was learned."""
        net = lib.Net()
        net(digits["x"])
        for path, array in learned.items():
            net.params[path][...] = array
        return net

    nets = {"before": first.net}
    for way in ("Everything", "LastLayer", "Adapters"):
        net = start()
        adapted = lib.Adapted(net) if way == "Adapters" else net
        run = getattr(lib, way)(net=adapted)
        run.fit(few, epochs=options.epochs, batch=25, progress=False)
        # [end]
        changed = sum(
            array.size
            for path, array in adapted.params.items()
            if not np.array_equal(array, learned.get(path.removeprefix("net.")))
        )
        report(way, run, changed)
        nets[way] = adapted
    if options.plot:
        draw(options.plot, nets, digits_test)


if __name__ == "__main__":
    main()
