"""Trains the digits of `examples/digits.mto` on a device, and says how long a step takes there.

    python examples/gpu/digits.py [--device gpusim] [--epochs 2]

With `--device cuda:0` it runs on a GPU; nothing else changes.  Prints the loss and the accuracy of
each epoch.  The same from the command line:

    mapsto train examples/digits.mto --data examples/data/digits.npz --device cuda:0
"""

import argparse
import time
from pathlib import Path

import mapsto as mt

EXAMPLES = Path(__file__).parents[1]


def main() -> None:
    """Trains and reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="gpusim", help="cpu, cuda:0, opencl:0 or gpusim")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    try:
        run = mt.load(EXAMPLES / "digits.mto").Digits().to(options.device)
    except mt.DeviceError as error:
        raise SystemExit(f"error: {error}") from None
    data = str(EXAMPLES / "data" / "digits.npz")
    start = time.perf_counter()
    history = run.fit(data, data, epochs=options.epochs, progress=False)
    for epoch in history.epochs:
        accuracy = float(epoch.test["accuracy"])
        print(f"epoch {epoch.number}  loss {epoch.loss:.4f}  accuracy {accuracy:.3f}")
    seconds = (time.perf_counter() - start) / history.epochs[-1].step
    print(f"{1e3 * seconds:.2f} ms a step on {options.device}, compiling and evaluation included")


if __name__ == "__main__":
    main()
