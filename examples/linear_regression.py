"""Linear regression by least squares: a gradient derived by hand beside the one of `grad`.

    python examples/linear_regression.py [--steps 2000]

Fits 64 pixels of handwritten digits to ten indicators ("it is a 3") by gradient descent, which is
the oldest classifier there is.  Prints how far the two gradients are from each other (less than
1e-6), the loss as it falls, and the share of held-out digits that the fit gets right (about 0.93),
beside that of the exact solution of the normal equations.  It takes two seconds.
"""

import argparse
from pathlib import Path

import numpy as np

import mapsto as mt

HERE = Path(__file__).parent


def main() -> None:
    """Compares the gradients, fits, and reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="steps of gradient descent")
    steps = parser.parse_args().steps
    data = np.load(HERE / "data" / "digits.npz")
    x, x_test = (data[name].astype(np.float32) / 16 for name in ("x_train", "x_test"))
    y = np.eye(10, dtype=np.float32)[data["y_train"]]
    # [counted]
    lib = mt.load(HERE / "linear_regression.mto")
    w, b = np.zeros((64, 10), np.float32), np.zeros(10, np.float32)

    pairs = zip(lib.gradient(w, b, x, y), lib.gradient_by_hand(w, b, x, y), strict=True)
    apart = max(float(np.abs(ours - by_hand).max()) for ours, by_hand in pairs)
    # [end]
    print(f"the two gradients differ by {apart:.1e} at most")

    # [counted]
    for step in range(steps + 1):
        w, b, loss = lib.descend(w, b, x, y)
        # [end]
        if step % max(1, steps // 5) == 0:
            print(f"step {step}: loss {loss:.4f}")

    # [counted]
    def accuracy(scores: np.ndarray) -> float:
        return float((scores.argmax(1) == data["y_test"]).mean())

    # [end]
    def padded(rows: np.ndarray) -> np.ndarray:
        return np.column_stack([rows, np.ones(len(rows), np.float32)])

    exact = np.linalg.lstsq(padded(x), y, rcond=None)[0]
    print(f"test accuracy {accuracy(lib.predict(w, b, x_test)):.4f}")
    print(f"of the exact solution {accuracy(padded(x_test) @ exact):.4f}")


if __name__ == "__main__":
    main()
