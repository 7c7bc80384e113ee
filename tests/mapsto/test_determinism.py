"""The same seed gives the same bits: twice, on any number of threads, in any process, and when a
training was killed in the middle and resumed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import training_script

import mapsto as mt

SCRIPT = Path(training_script.__file__)

pytestmark = pytest.mark.usefixtures("kept_code")


@pytest.fixture(autouse=True)
def _keep_threads():
    before = mt.threads()
    yield
    mt.set_threads(before)


@pytest.fixture(scope="module")
def reference() -> str:
    return training_script.train(threads=1)


def in_process(environment: dict[str, str] | None = None, **arguments: object):
    return subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps(arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        timeout=300,
    )


def test_twice(reference: str) -> None:
    assert training_script.train(threads=1) == reference


def test_two_threads(reference: str) -> None:
    assert training_script.train(threads=2) == reference


def test_other_processes(reference: str) -> None:
    # Python's own hashes differ between processes unless told otherwise; nothing may depend on it,
    # the code that each compiles least of all.
    for hash_seed in ("0", "1"):
        environment = {"PYTHONHASHSEED": hash_seed, "MAPSTO_CACHE_LIMIT": "0"}
        done = in_process(environment, threads=2)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == reference


def test_another_seed_gives_other_weights(reference: str) -> None:
    assert training_script.train(seed=1) != reference


@pytest.mark.parametrize("kill_at", [2, 5, 12])
def test_killed_and_resumed(reference: str, tmp_path: Path, kill_at: int) -> None:
    """Killed before the first checkpoint, inside the first epoch, inside the second."""
    checkpoint = tmp_path / "run.checkpoint"
    killed = in_process(checkpoint=str(checkpoint), kill_at=kill_at)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert checkpoint.exists() == (kill_at > 3)
    resumed = training_script.train(checkpoint=str(checkpoint), resume=True)
    assert resumed == reference


def test_killed_twice(reference: str, tmp_path: Path) -> None:
    checkpoint = str(tmp_path / "run.checkpoint")
    for kill_at in (5, 6):
        killed = in_process(checkpoint=checkpoint, resume=True, kill_at=kill_at)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert training_script.train(checkpoint=checkpoint, resume=True, threads=2) == reference


def test_killed_on_a_stream_and_resumed(tmp_path: Path) -> None:
    """With kept gradients, a scaled loss, and figures of evaluations inside epochs."""
    checkpoint = str(tmp_path / "run.checkpoint")
    expected = training_script.train(stream=True)
    killed = in_process(checkpoint=checkpoint, kill_at=13, stream=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = training_script.train(checkpoint=checkpoint, resume=True, stream=True, threads=2)
    assert resumed == expected
    assert len(list(tmp_path.iterdir())) == 1


def test_checkpoints_do_not_change_the_result(reference: str, tmp_path: Path) -> None:
    assert training_script.train(checkpoint=str(tmp_path / "run.checkpoint")) == reference


def test_initial_weights_depend_on_seed_and_path_alone() -> None:
    lib = mt.loads(training_script.PROGRAM)
    first, second = (lib.MLP(seed=4).init(x=mt.f32[None, 96]).params for _ in range(2))
    other = lib.MLP(seed=5).init(x=mt.f32[8, 96]).params
    for path, array in first.items():
        assert array.tobytes() == second[path].tobytes()
        assert path.endswith("b") or array.tobytes() != other[path].tobytes()


def test_every_epoch_shuffles_anew() -> None:
    """A step on each batch sums its examples' numbers; an epoch sees each example once."""
    lib = mt.loads("""
module Sum():
    param w: f32[] ~ zeros

    map (x: f32[n]) -> f32:
        w + sum(x)

train Order(net = Sum(), optimizer = SGD(lr=0.0)):
    loss(x: f32[n]) = net(x)
""")

    class Losses:
        def __init__(self) -> None:
            self.epochs: dict[int, list[float]] = {}

        def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            self.epochs.setdefault(epoch, []).append(loss)

        def on_epoch(self, epoch: mt.Epoch) -> None:
            pass

    def order(seed: int) -> dict[int, list[float]]:
        seen = Losses()
        numbers = {"x": (2.0 ** np.arange(20)).astype(np.float32)}
        lib.Order().fit(numbers, epochs=3, batch=4, seed=seed, progress=False, callbacks=[seen])
        return seen.epochs

    first = order(0)
    assert [sum(losses) for losses in first.values()] == [2.0**20 - 1] * 3
    assert first[1] != first[2] != first[3]
    assert order(0) == first
    assert order(1) != first
