"""mapsto on a GPU beside PyTorch on the same one.

    python benchmarks/gpu.py [--seconds 0.5] [--device cuda:0] [--output gpu.md]

Arrays stay on the device; each figure is the median of rounds in which the two take turns, of the
time per call of many calls with one wait at the end.  Results of a row are compared before it is
timed.  PyTorch runs eagerly, and as a CUDA graph where `--graphs` is given.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mapsto as mt
from mapsto.runtime.devices.device import Device

HERE = Path(__file__).parent
MODELS = HERE / "models"
sys.path.insert(0, str(HERE))

ROUNDS = 5

STEPS = 2
"""So many losses of a training are compared: before an update, and after it.

Adam's first updates have the signs of the gradients, however small these are, so with each of them
more parameters go where rounding says.  The third loss of resnet18 differs by 1 % between f32 and
f64 in PyTorch itself, the second by 1e-4.
"""

OPERATORS = mt.loads("""
map product(a: f32[m, k], b: f32[k, n]) -> f32[m, n]: a @ b
map product_bf16(a: f32[m, k], b: f32[k, n]) -> f32[m, n]: in_precision(product, bf16)(a, b)
map product_f16(a: f16[m, k], b: f16[k, n]) -> f16[m, n]: a @ b
map as_f16(x: f32[n, m]) -> f16[n, m]: f16(x)
map soft(x: f32[n, m]) -> f32[n, m]: softmax(x)
map curve(x: f32[n, m]) -> f32[n, m]: gelu(x)
map normal(x: f32[n, m]) -> f32[n, m]:
    let centred = x - mean(x, axis=1, keepdims=true)
    centred / sqrt(mean(centred^2, axis=1, keepdims=true) + 1e-5)
""")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: seconds per call."""

    work: str
    mapsto: float
    torch: float
    operations: float = 0.0

    def __str__(self) -> str:
        rate = f"{self.operations / self.mapsto / 1e12:.1f}" if self.operations else ""
        times = f"{self.mapsto * 1e6:.1f} us | {self.torch * 1e6:.1f} us"
        return f"| {self.work} | {times} | {self.torch / self.mapsto:.2f} | {rate} |"


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the speed table: the name of its file, its module, and a batch."""

    file: str
    module: str
    batch: Mapping[str, Any]


def models(rng: np.random.Generator) -> dict[str, Model]:
    """The models with batches of the sizes of the speed table."""

    def floats(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32)

    def integers(bound: int, *shape: int) -> Any:
        return rng.integers(0, bound, shape, dtype=np.int32)

    clicks = {"dense": floats(2048, 13), "ids": integers(10000, 2048, 8)}
    clicks["y"] = integers(2, 2048).astype(np.float32)
    digits = {"x": floats(128, 784), "y": integers(10, 128)}
    pixels = {"x": floats(128, 1, 28, 28), "y": integers(10, 128)}
    words = {"ids": integers(65, 32, 64), "y": integers(65, 32, 64)}
    rows = {"x": floats(64, 100, 40), "y": integers(10, 64)}
    images = {"x": floats(16, 3, 224, 224), "y": integers(1000, 16)}
    return {
        "mlp 784-512-512-10, 128": Model("mlp", "MLP", digits),
        "cnn 28x28, 128": Model("cnn", "CNN", pixels),
        "gpt 4x128, 32x64": Model("gpt", "GPT", words),
        "lstm 256, 64x100": Model("lstm", "Reader", rows),
        "dlrm, 2048": Model("dlrm", "DLRM", clicks),
        "resnet18, 16x3x224x224": Model("resnet18", "ResNet18", images),
    }


class Bench:
    """Runs both sides on one device."""

    def __init__(
        self,
        torch: Any,
        device: Device,
        seconds: float,
        with_graphs: bool,
        torch_device: str = "cuda",
    ) -> None:
        self.torch = torch
        self.device = device
        self.torch_device = torch_device
        self.seconds = seconds
        self.with_graphs = with_graphs
        self.rows: list[Row] = []

    def row(
        self, work: str, ours: Callable[[], Any], theirs: Callable[[], Any], operations: float = 0.0
    ) -> None:
        """Times the two in turn and prints the row."""
        theirs = self._graph(theirs) if self.with_graphs else theirs
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            times[0].append(self._per_call(ours, self.device.synchronize))
            times[1].append(self._per_call(theirs, self.torch.cuda.synchronize))
        row = Row(work, statistics.median(times[0]), statistics.median(times[1]), operations)
        self.rows.append(row)
        print(row, flush=True)

    def tensor(self, array: Any) -> Any:
        """An array for PyTorch."""
        tensor = self.torch.from_numpy(array).to(self.torch_device)
        return tensor.long() if array.dtype == np.int32 else tensor

    def _per_call(self, call: Callable[[], Any], wait: Callable[[], Any]) -> float:
        call()
        call()
        wait()
        start = time.perf_counter()
        call()
        wait()
        once = time.perf_counter() - start
        count = max(3, int(self.seconds / ROUNDS / max(once, 1e-6)))
        start = time.perf_counter()
        for _ in range(count):
            call()
        wait()
        return (time.perf_counter() - start) / count

    def _graph(self, call: Callable[[], Any]) -> Callable[[], Any]:
        cuda = self.torch.cuda
        side = cuda.Stream()
        with cuda.stream(side):
            for _ in range(3):
                call()
        cuda.current_stream().wait_stream(side)
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            call()
        return graph.replay


def product_rows(bench: Bench) -> None:
    """Products of square matrices."""
    rng = np.random.default_rng(0)
    for n in (512, 1024, 2048, 4096):
        a, b = (rng.standard_normal((n, n), np.float32) for _ in range(2))
        for name, ours, theirs, tolerance in _products(bench, a, b):
            close(np.asarray(ours(), np.float32), theirs().float().cpu().numpy(), tolerance)
            bench.row(f"product {name}, n = {n}", ours, theirs, 2.0 * n**3)


def _products(
    bench: Bench, a: Any, b: Any
) -> Iterator[tuple[str, Callable[[], Any], Callable[[], Any], float]]:
    torch = bench.torch
    x, y = mt.device_put(a, bench.device), mt.device_put(b, bench.device)
    p, q = bench.tensor(a), bench.tensor(b)
    for name, is_narrow in (("f32", False), ("f32 (PyTorch: tf32)", True)):
        with tf32(torch, is_narrow):
            tolerance = 1e-2 if is_narrow else 1e-4
            yield name, _partial(OPERATORS.product, x, y), lambda: p @ q, tolerance
    theirs = lambda: p.bfloat16() @ q.bfloat16()  # noqa: E731
    yield "bf16 of f32", _partial(OPERATORS.product_bf16, x, y), theirs, 2e-2
    ours = _partial(OPERATORS.product_f16, OPERATORS.as_f16(x), OPERATORS.as_f16(y))
    p_half, q_half = p.half(), q.half()
    yield "f16", ours, lambda: p_half @ q_half, 2e-2


def operator_rows(bench: Bench) -> None:
    """What reads and writes a matrix."""
    functional = bench.torch.nn.functional
    x = np.random.default_rng(1).standard_normal((4096, 4096), np.float32)
    here, there = mt.device_put(x, bench.device), bench.tensor(x)
    for name, function, theirs in (
        ("softmax", OPERATORS.soft, lambda: functional.softmax(there, -1)),
        ("gelu", OPERATORS.curve, lambda: functional.gelu(there)),
        ("layer norm", OPERATORS.normal, lambda: functional.layer_norm(there, (4096,))),
    ):
        close(function(here), theirs().cpu().numpy(), 1e-4)
        bench.row(f"{name}, 4096 x 4096", _partial(function, here), theirs)


def model_rows(bench: Bench) -> None:
    """Inference and a training step with Adam, from the same weights."""
    for name, model in models(np.random.default_rng(2)).items():
        try:
            inference_row(bench, name, model)
            training_row(bench, name, model)
        except (mt.DeviceError, mt.ArgumentError, AssertionError, RuntimeError) as error:
            print(f"{name}: {reason(error)}", flush=True)


def reason(error: Exception) -> str:
    """What went wrong, in one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


@contextmanager
def tf32(torch: Any, is_allowed: bool) -> Iterator[None]:
    """Whether PyTorch may round what its products and convolutions of f32 take to tf32."""
    places = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = is_allowed
    try:
        yield
    finally:
        for place, was_allowed in zip(places, before, strict=True):
            place.allow_tf32 = was_allowed


def inference_row(bench: Bench, name: str, model: Model) -> None:
    """The results of a batch."""
    net, peer = twins(bench, model)
    inputs = [array for key, array in model.batch.items() if key != "y"]
    here = [mt.device_put(array, bench.device) for array in inputs]
    there = [bench.tensor(array) for array in inputs]
    peer.eval()

    def theirs() -> Any:
        with bench.torch.inference_mode():
            return peer(*there)

    close(net(*here), theirs().cpu().numpy(), 1e-3)
    bench.row(f"infer {name}", lambda: net(*here), theirs)


def training_row(bench: Bench, name: str, model: Model) -> None:
    """A step; neither waits for its loss."""
    net, peer = twins(bench, model)
    run = mt.load(MODELS / f"{model.file}.mto").Step(net=net).to(bench.device)
    here = {key: mt.device_put(array, bench.device) for key, array in model.batch.items()}
    theirs = peer_step(bench, peer, model.batch)
    check_losses(bench, lambda: run.step(**here), theirs)
    step = run.compiled_step
    if step.try_fast(here) is NotImplemented:
        raise RuntimeError("the compiled step does not take arrays of the device as they are")
    bench.row(f"train {name}", lambda: step.try_fast(here), theirs)


def peer_step(bench: Bench, peer: Any, batch: Mapping[str, Any]) -> Callable[[], Any]:
    """A training step with Adam in PyTorch, which gives the loss before its update."""
    from models.torch_models import loss_of

    optimizer = bench.torch.optim.Adam(
        peer.parameters(), 1e-3, fused=True, capturable=bench.with_graphs
    )
    *inputs, y = (bench.tensor(array) for array in batch.values())

    def step() -> Any:
        optimizer.zero_grad(set_to_none=not bench.with_graphs)
        loss = loss_of(peer(*inputs), y, binary=y.is_floating_point())
        loss.backward()
        optimizer.step()
        return loss

    return step


def check_losses(bench: Bench, ours: Callable[[], Any], theirs: Callable[[], Any]) -> None:
    """Raises AssertionError unless the first `STEPS` losses agree, with both sides in f32."""
    with tf32(bench.torch, False):
        for _ in range(STEPS):
            close(ours(), float(theirs().detach()), 2e-3)


def twins(bench: Bench, model: Model) -> tuple[Any, Any]:
    """The model here and there with the same weights, on the device."""
    from models.torch_models import MODELS as PEERS
    from models.torch_models import weights_by_path

    net = getattr(mt.load(MODELS / f"{model.file}.mto"), model.module)(seed=0)
    net(*(array[:1] for key, array in model.batch.items() if key != "y"))
    with bench.torch.device("cpu"):
        peer = PEERS[model.file]()
    weights = weights_by_path(peer)
    for path, array in net.params.items():
        array[...] = weights[path]
    return net.to(bench.device), peer.to(bench.torch_device)


def close(ours: Any, theirs: Any, tolerance: float) -> None:
    """Raises AssertionError unless the two agree, measured by the largest element."""
    expected = np.asarray(theirs)
    scale = max(1e-3, float(np.abs(expected).max()))
    np.testing.assert_allclose(np.asarray(ours), expected, rtol=0, atol=tolerance * scale)


def _partial(function: Any, *arrays: Any) -> Callable[[], Any]:
    return lambda: function(*arrays)


def markdown(bench: Bench) -> str:
    """The table."""
    torch = bench.torch
    lines = [
        f"{bench.device.description}; mapsto {mt.__version__}, PyTorch {torch.__version__}"
        f" (CUDA {torch.version.cuda}){' as CUDA graphs' if bench.with_graphs else ''}.",
        "",
        "| work | mapsto | PyTorch | times as fast | TFLOP/s |",
        "|---|---|---|---|---|",
        *map(str, bench.rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures every row and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each side of a row")
    parser.add_argument("--only", default="products,operators,models", help="which rows")
    parser.add_argument("--graphs", action="store_true", help="PyTorch as CUDA graphs")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    found = [device for device in mt.devices() if device.name == options.device]
    try:
        import torch
    except ImportError:
        torch = None
    if not found or torch is None or not torch.cuda.is_available():
        missing = f"no device {options.device}" if not found else "no PyTorch with CUDA"
        print(f"nothing is measured: {missing}")
        return
    torch.set_default_device("cuda")
    bench = Bench(torch, found[0], options.seconds, options.graphs)
    parts = {"products": product_rows, "operators": operator_rows, "models": model_rows}
    for name in options.only.split(","):
        parts[name](bench)
    if options.output is not None:
        options.output.write_text(markdown(bench), encoding="utf-8")


if __name__ == "__main__":
    main()
