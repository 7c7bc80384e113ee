"""A transformer that learns to write like the King James Bible, character by character.

    python examples/kjv_gpt.py [--steps 1000] [--prompt "And "] [--plot attention.png]

Trains on the first million characters and prints, every hundred steps, the loss (the mean surprise
at the next character, in nats) and that on the rest of the text: about 1.75 after 500 steps and
1.53 after 1,000.  Then writes text: each character is drawn from the model's distribution, and what
the attention layers know of the ones before is kept in a cache.  It takes a minute or two.
`--plot` draws the surprise at each character of a passage, and where attention looks (extra
`plot`).
"""

import argparse
from pathlib import Path

import numpy as np

import mapsto as mt

HERE = Path(__file__).parent
CONTEXT, BATCH = 64, 12


class Alphabet:
    """Characters as numbers."""

    def __init__(self, text: str) -> None:
        self.characters = sorted(set(text))
        self._numbers = {character: i for i, character in enumerate(self.characters)}

    def encode(self, text: str) -> np.ndarray:
        """The numbers of the characters; those that the alphabet lacks are left out."""
        known = [self._numbers[character] for character in text if character in self._numbers]
        return np.array(known, np.int32)

    def decode(self, numbers: np.ndarray) -> str:
        """The characters of these numbers."""
        return "".join(self.characters[i] for i in numbers)


def batch(text: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Random passages, and what follows each of their characters."""
    starts = random.integers(0, len(text) - CONTEXT, BATCH)
    windows = text[starts[:, None] + np.arange(CONTEXT + 1)]
    return {"x": windows[:, :-1].copy(), "y": windows[:, 1:].copy()}


# [counted]
def write(net: mt.Instance, alphabet: Alphabet, prompt: str, length: int) -> str:
    """The prompt and what the model makes of it, half a context at a time."""
    half, text = CONTEXT // 2, alphabet.encode(prompt)
    for key in range(-(-length // half)):
        text = np.append(text, net.write(np.int64(key), text[-half:], count=half))
    return alphabet.decode(text)


# [end]


def draw(path: str, net: mt.Instance, alphabet: Alphabet, text: np.ndarray) -> None:
    """How much each character of a passage surprises the model, and where it looks for it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    passage = text[: CONTEXT + 1]
    scores = net(passage[None, :-1])[0].astype(np.float64)
    surprise = np.log(np.exp(scores).sum(1)) - scores[np.arange(CONTEXT), passage[1:]]
    figure, (above, *maps) = pyplot.subplots(5, figsize=(11, 40), height_ratios=[1, 4, 4, 4, 4])
    above.bar(range(CONTEXT), surprise)
    above.set_xticks(range(CONTEXT), list(alphabet.decode(passage[1:])))
    above.set(ylabel="surprise in nats", title="how surprising each character is")
    for head, (axes, looks) in enumerate(zip(maps, net.looks(passage[None, :-1]), strict=True)):
        axes.imshow(looks**0.5, cmap="Blues")
        axes.set_xticks(range(CONTEXT), list(alphabet.decode(passage[:-1])))
        axes.set_yticks(range(CONTEXT), list(alphabet.decode(passage[:-1])))
        axes.set(title=f"where each character (rows) looks, head {head + 1} of the first layer")
    figure.savefig(path, dpi=80, bbox_inches="tight")


def main() -> None:
    """Trains, evaluates, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--prompt", default="And it came to pass")
    parser.add_argument("--length", type=int, default=480, help="so many characters are written")
    parser.add_argument("--plot", help="draw surprise and attention into this file")
    options = parser.parse_args()
    text = (HERE / "data" / "kjv.txt").read_text("utf-8")
    alphabet = Alphabet(text)
    train, held_out = np.split(alphabet.encode(text), [1_000_000])
    prompt = options.prompt if alphabet.encode(options.prompt).size else "And "

    # [counted]
    run = mt.load(HERE / "kjv_gpt.mto").Text(seed=0)
    random, losses = np.random.default_rng(0), []
    for step in range(1, options.steps + 1):
        losses.append(run.step(**batch(train, random)))
        if step % min(100, options.steps) == 0:
            fixed = np.random.default_rng(1)
            found = [run.evaluate(**batch(held_out, fixed))["loss"] for _ in range(40)]
            # [end]
            means = np.mean(losses[-100:]), np.mean(found)
            print(f"step {step}: loss {means[0]:.3f}, held out {means[1]:.3f}", flush=True)
    # [counted]
    written = write(run.net, alphabet, prompt, options.length)
    # [end]
    print(written)
    if options.plot:
        draw(options.plot, run.net, alphabet, held_out)


if __name__ == "__main__":
    main()
