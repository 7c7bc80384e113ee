"""Finding digits: a small convolutional detector on scenes made of real handwritten digits.

    python examples/detection.py [--steps 2500] [--plot scenes.png]

Each scene has 64x64 pixels with one to four digits of MNIST, of random size (14 to 32 pixels high)
and place; where they are is known exactly.  The detector is trained on scenes of the training
digits and evaluated on 500 scenes of digits that it has not seen.  Prints the loss as it falls and
the mean average precision at an overlap (IoU) of 0.5 over the ten classes, about 0.85.  It takes
about four minutes.  `--plot` draws a few scenes with what was found in them (extra `plot`).
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import mapsto as mt

HERE = Path(__file__).parent
SIDE, CELLS, NOTHING = 64, 8, 10


@dataclass(frozen=True, slots=True)
class Scenes:
    """Pixels u8[n, 64, 64], and for each scene its digits i32[k] and their boxes f32[k, 4]."""

    pixels: np.ndarray
    digits: list[np.ndarray]
    boxes: list[np.ndarray]

    def targets(self) -> dict[str, np.ndarray]:
        """The arrays of the training step: what each cell has to say."""
        label = np.full((len(self.pixels), CELLS, CELLS), NOTHING, np.int32)
        box = np.zeros((len(self.pixels), CELLS, CELLS, 4), np.float32)
        box[..., 2:] = 1
        for i, (digits, boxes) in enumerate(zip(self.digits, self.boxes, strict=True)):
            column, row = ((boxes[:, :2] + boxes[:, 2:]) / 2 * CELLS / SIDE).astype(int).T
            label[i, row, column], box[i, row, column] = digits, boxes
        return {"x": self.pixels, "label": label, "box": box}


def compose(images: np.ndarray, labels: np.ndarray, count: int, seed: int) -> Scenes:
    """Random scenes of these digits; boxes overlap a little at most."""
    random = np.random.default_rng(seed)
    pixels = np.zeros((count, SIDE, SIDE), np.uint8)
    digits, boxes = [], []
    for scene in pixels:
        chosen, placed = [], []
        for _ in range(random.integers(1, 5)):
            which = random.integers(len(images))
            image = resized(tight(images[which]), random.integers(14, 33))
            box = place(image.shape, placed, random)
            if box is not None:
                left, top, right, bottom = box
                area = scene[top:bottom, left:right]
                np.maximum(area, image, out=area)
                placed.append(box)
                chosen.append(labels[which])
        digits.append(np.array(chosen, np.int32))
        boxes.append(np.array(placed, np.float32))
    return Scenes(pixels, digits, boxes)


def tight(image: np.ndarray) -> np.ndarray:
    """The part of an image that has ink."""
    rows, columns = np.flatnonzero(image.max(1) > 30), np.flatnonzero(image.max(0) > 30)
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def resized(image: np.ndarray, height: int) -> np.ndarray:
    """The image at another height, by linear interpolation."""
    width = max(4, min(32, round(image.shape[1] * height / image.shape[0])))
    down, across = (_weights(n, m) for n, m in zip(image.shape, (height, width), strict=True))
    return np.rint(down @ image @ across.T).astype(np.uint8)


def _weights(old: int, new: int) -> np.ndarray:
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)[:, None]
    return np.clip(1 - np.abs(at - np.arange(old)), 0, 1)


def place(shape: tuple[int, ...], placed: list, random: np.random.Generator):
    """A box of this size that covers the others by a tenth at most; None where none is found."""
    height, width = shape
    for _ in range(20):
        left, top = random.integers(SIDE - width + 1), random.integers(SIDE - height + 1)
        box = (left, top, left + width, top + height)
        if all(
            overlaps(np.array(box, float), np.array([other], float))[0] < 0.1 for other in placed
        ):
            return box
    return None


def overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The intersection over union of a box with each of the others."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + areas - shared)


def detect(net: mt.Instance, pixels: np.ndarray, least: float = 0.05):
    """For each scene the boxes found, their digits and scores, best first; of boxes of one digit
    that cover each other by half only the best is kept."""
    scores, boxes = net(pixels.astype(np.float32))
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores = (scores / scores.sum(-1, keepdims=True))[..., :NOTHING].reshape(
        len(pixels), -1, NOTHING
    )
    boxes = boxes.reshape(len(pixels), -1, 4)
    return [best(s, b, least) for s, b in zip(scores, boxes, strict=True)]


def best(scores: np.ndarray, boxes: np.ndarray, least: float):
    """The detections of a scene."""
    cells, digits = np.nonzero(scores > least)
    order = np.argsort(-scores[cells, digits], kind="stable")
    kept: list[tuple[np.ndarray, int, float]] = []
    for cell, digit in zip(cells[order], digits[order], strict=True):
        same = np.array([b for b, d, _ in kept if d == digit]).reshape(-1, 4)
        if not (overlaps(boxes[cell], same) > 0.5).any():
            kept.append((boxes[cell], int(digit), float(scores[cell, digit])))
    return kept


def mean_average_precision(found: list, scenes: Scenes) -> float:
    """The mean over the digits of the area under the curve of precision over recall."""
    return float(np.mean([average_precision(digit, found, scenes) for digit in range(NOTHING)]))


def average_precision(digit: int, found: list, scenes: Scenes) -> float:
    """Every detection counts as right if it covers a digit of its kind by half that no better
    detection has claimed."""
    claimed = [np.zeros(len(digits), bool) for digits in scenes.digits]
    ranked = [(s, i, box) for i, kept in enumerate(found) for box, d, s in kept if d == digit]
    right = []
    for _, i, box in sorted(ranked, key=lambda item: -item[0]):
        cover = overlaps(box, scenes.boxes[i]) * (scenes.digits[i] == digit)
        k = int(cover.argmax())
        right.append(cover[k] >= 0.5 and not claimed[i][k])
        claimed[i][k] |= right[-1]
    total = sum(int((digits == digit).sum()) for digits in scenes.digits)
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * np.array(right)).sum() / total)


def draw(path: str, scenes: Scenes, found: list) -> None:
    """A picture of some scenes with the boxes found."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import patches, pyplot

    figure, grid = pyplot.subplots(2, 4, figsize=(10, 5.4))
    for axes, pixels, kept in zip(grid.flat, scenes.pixels, found, strict=False):
        axes.imshow(pixels, cmap="gray")
        axes.set(xticks=[], yticks=[])
        for box, digit, score in kept:
            if score > 0.4:
                x, y, right, bottom = box - 0.5
                axes.add_patch(
                    patches.Rectangle((x, y), right - x, bottom - y, fill=False, color="C1")
                )
                axes.text(x, y, f"{digit}  {score:.2f}", color="C1", fontsize=8, va="bottom")
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    """Composes, trains, evaluates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2500, help="training steps of 32 scenes")
    parser.add_argument("--scenes", type=int, default=8000, help="scenes to train on")
    parser.add_argument("--held-out", type=int, default=500, help="scenes to evaluate on")
    parser.add_argument("--plot", help="draw some scenes into this file")
    options = parser.parse_args()
    data = np.load(HERE / "data" / "mnist.npz")
    train = compose(data["x_train"], data["y_train"], options.scenes, seed=1).targets()
    held_out = compose(data["x_test"], data["y_test"], options.held_out, seed=2)

    # [counted]
    run = mt.load(HERE / "detection.mto").Detection(seed=0)
    random, losses = np.random.default_rng(0), []
    for step in range(1, options.steps + 1):
        chosen = random.choice(options.scenes, 32, replace=False)
        losses.append(run.step(**{name: array[chosen] for name, array in train.items()}))
        # [end]
        if step % max(1, options.steps // 10) == 0:
            print(f"step {step}: loss {np.mean(losses[-100:]):.3f}", flush=True)
    found = detect(run.net, held_out.pixels)
    print(f"mean average precision {mean_average_precision(found, held_out):.3f}")
    if options.plot:
        draw(options.plot, held_out, found)


if __name__ == "__main__":
    main()
