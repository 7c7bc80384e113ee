"""A variational autoencoder: handwritten digits as points of a plane, and points as digits.

    python examples/variational_autoencoder.py [--epochs 20] [--plot plane.png]

Trains on 8,000 digits of MNIST and prints the negative evidence lower bound, in nats an image, on
these and on 1,000 held-out ones after each epoch: about 152 after 20 (PyTorch reaches the same
with the same network).  It takes about a minute.  `--plot` draws the digits that a grid of codes
stands for, and where the held-out digits lie in the plane (extra `plot`).
"""

import argparse
from pathlib import Path

import numpy as np

import mapsto as mt

HERE = Path(__file__).parent


def draw(path: str, net: mt.Instance, x: np.ndarray, y: np.ndarray) -> None:
    """The images of a grid of codes, and the codes of images."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    side = 15
    line = np.linspace(-2.2, 2.2, side, dtype=np.float32)
    codes = np.stack(np.meshgrid(line, -line), axis=-1).reshape(-1, 2)
    images = 1 / (1 + np.exp(-net.decode(codes))).reshape(side, side, 28, 28)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 5.5))
    left.imshow(images.transpose(0, 2, 1, 3).reshape(28 * side, -1), cmap="gray_r")
    left.set(xticks=[], yticks=[], title="what codes stand for")
    means = net.encode(x)[0]
    points = right.scatter(*means.T, c=y, cmap="tab10", s=8)
    right.legend(*points.legend_elements(), fontsize=8)
    right.set(title="codes of held-out digits")
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    """Trains, and reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--images", type=int, default=8000, help="so many of the digits")
    parser.add_argument("--plot", help="draw the plane into this file")
    options = parser.parse_args()
    data = np.load(HERE / "data" / "mnist.npz")
    x_test = data["x_test"].astype(np.float32)
    # [counted]
    run = mt.load(HERE / "variational_autoencoder.mto").Digits(seed=0)
    run.fit({"x": data["x_train"][: options.images]}, test={"x": x_test}, epochs=options.epochs)
    # [end]
    if options.plot:
        draw(options.plot, run.net, x_test, data["y_test"])


if __name__ == "__main__":
    main()
