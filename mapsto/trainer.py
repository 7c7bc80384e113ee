"""`train` blocks in Python: fused native steps, evaluation, and the training loop."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from zlib import crc32

from mapsto.compiler import Options
from mapsto.dsl.elaborated import ParameterSpec
from mapsto.dsl.precision import PRECISIONS
from mapsto.dsl.program import ModuleInstance as DslInstance
from mapsto.dsl.program import Program
from mapsto.dsl.training import Gradients
from mapsto.instances import Instance, Parameters, initialize, instances_among
from mapsto.ir.core import Array
from mapsto.ir.types import DType, TensorType
from mapsto.placement import Mover, User, move
from mapsto.progress import report_to
from mapsto.runtime.batches import Source, Stream, StreamLike
from mapsto.runtime.checkpoint import load_checkpoint, save_checkpoint
from mapsto.runtime.dataset import Batch, Dataset, as_array, bind, load_arrays
from mapsto.runtime.devices.device import Device
from mapsto.runtime.errors import DataError, TrainingError
from mapsto.runtime.fit_options import FitOptions
from mapsto.runtime.history import Figure, Figures, History
from mapsto.runtime.monitor import Monitor
from mapsto.runtime.observers import Callback
from mapsto.runtime.resuming import restore
from mapsto.runtime.training import evaluate, fit
from mapsto.training_steps import Averaging, Evaluation, Observation, Step

__all__ = ["Data", "Trainer"]

Data = Dataset | Mapping[str, Array] | str | Path | StreamLike
"""A data set, arrays by name, the path of a .npz file or of a folder of .npy files, or a stream of
batches."""

_TRAIN_SUFFIXES = ("", "_train")
_TEST_SUFFIXES = ("", "_test")
_STEP_OF = "step_"
_NOT_OF_NETS = ("optimizer.", "gradients.", "scaling.")
"""How paths of states begin that training adds."""


class Trainer:
    """A `train` block: losses, metrics, nets and optimizers.

    `configuration` are the block's parameters, such as `net` and `optimizer`.  Nets that are passed
    in share their parameters with the trainer.  `step_NAME` is the step of the loss of this name
    alone.
    """

    def __init__(
        self,
        program: Program,
        name: str,
        configuration: Mapping[str, object],
        options: Options,
        seed: int = 0,
    ) -> None:
        self.inner = program.trainer(name, configuration)
        self.options = options
        self.seed = seed
        given = list(instances_among(configuration.values()))
        self._modules = {
            prefix: _instance_of(program, value, given, options, _seed_of(prefix, seed))
            for prefix, value in self.inner.modules()
        }
        for module in self._modules.values():
            module.add_user(self)
        self._storage: dict[str, Array] = {}
        self._first_values: dict[str, Array] = {}
        """Of the states in which metrics gather, to begin anew."""
        self._is_keeping = False
        self.precision = "f32"
        self._begin_compiling()

    def __repr__(self) -> str:
        return f"<train {self.inner.name}>"

    def __getattr__(self, name: str) -> Callable[..., float | dict[str, float]]:
        """`step_NAME`, or a net by its name in the block."""
        if name.startswith(_STEP_OF) and name.removeprefix(_STEP_OF) in self.loss_names:
            step = self.step_of(name.removeprefix(_STEP_OF))
            self.__dict__[name] = lambda **batch: _simple(step.run(batch))
            return self.__dict__[name]  # type: ignore[no-any-return]
        raise AttributeError(f"{self!r} has no attribute {name!r}")

    def set_precision(self, precision: str) -> None:
        """Computes the products in the losses in "f32", "bf16" or "f16" from here on.

        Parameters, gradients and all that is no product of tensors stay in f32.  With f16 the loss
        is scaled, and steps with gradients that are not finite are left out.  Raises TrainingError
        for another name.
        """
        if precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise TrainingError(f"precision is {precision!r}, expected one of {known}")
        self.precision = precision
        self._is_keeping = False
        self._begin_compiling()

    def _begin_compiling(self) -> None:
        """Forgets all compiled functions."""
        self.compiled_step = Step(self)
        self.step_with_kept = Step(self, gradients=Gradients.USE_WITH_KEPT)
        self.keeping_step = Step(self, gradients=Gradients.KEEP)
        for name in self.loss_names:
            self.__dict__.pop(f"{_STEP_OF}{name}", None)
        self.compiled_evaluation = Evaluation(self)
        self._observation = Observation(self)
        self._averaging = Averaging(self)

    # ---- devices

    def to(self, device: str | Device) -> Trainer:
        """Moves nets, optimizer and all else that training changes to a device, such as `"cuda:0"`,
        or back to the `"cpu"`; gives the trainer itself.  Raises DeviceError where there is no such
        device."""
        move(self, device)
        return self

    def sharers(self) -> Iterable[User]:
        """The nets."""
        return tuple(self._modules.values())

    def relocate(self, mover: Mover) -> None:
        """Moves the arrays."""
        mover.move(self._storage)
        mover.move(self._first_values)
        self.options = replace(self.options, device=mover.device)
        self._begin_compiling()

    @property
    def net(self) -> Instance:
        """The module that is trained as `net`."""
        return self._modules[""]

    @property
    def nets(self) -> Mapping[str, Instance]:
        """The modules that are trained, by their names in the block."""
        return {name or "net": module for name, module in self._modules.items()}

    @property
    def loss_names(self) -> tuple[str, ...]:
        """The names of the losses, in order; one without a name is `loss`."""
        return tuple([loss.name for loss in self.inner.losses])

    @property
    def arrays(self) -> Parameters:
        """Everything that training changes, by path: parameters, states, the optimizer's states."""
        gathered = self.inner.gathering_states()
        kept = {p: a for p, a in self._storage.items() if p not in gathered}
        return Parameters(kept, self.inner.name)

    @property
    def types(self) -> dict[str, TensorType]:
        """The declared types of the arrays that a step takes."""
        return self.compiled_step.types

    def step(self, **batch: object) -> float | dict[str, float]:
        """One optimizer step on a batch, in place; gives the loss before it.

        Several losses run one after another, each on the parameters that the one before it left;
        the result then is a dict with each of them, other results of theirs, and their sum as
        `loss`.  Integer arrays are converted to the declared element types.
        """
        if self._is_keeping:
            self._is_keeping = False
            return _simple(self.step_with_kept.run(batch))
        result = self.compiled_step.call(batch)
        if isinstance(result, dict):
            return _simple(self.compiled_step.figures(result))
        return float(result)

    def keep_gradients(self, **batch: object) -> float | dict[str, float]:
        """The loss on a batch; its gradients are kept for the next step, which uses the mean of all
        since the last one and its own.  No parameter changes; states such as running means do."""
        self._is_keeping = True
        return _simple(self.keeping_step.run(batch))

    def step_of(self, name: str) -> Step:
        """The compiled step of one loss alone; KeyError where there is no such loss."""
        return Step(self, [self.inner.loss(name)])

    def evaluate(self, **batch: object) -> dict[str, Figure]:
        """The loss and the metrics on a batch, by name; nothing changes."""
        self.begin_evaluation()
        return self.compiled_evaluation.run(batch)

    def begin_evaluation(self) -> frozenset[str]:
        """Empties what metrics have gathered; gives the names of the metrics that gather."""
        for path, first in self._first_values.items():
            self._storage[path][...] = first
        return self.inner.gathering()

    def average_weights(self) -> Trainer:
        """Gives the parameters the values that evaluation takes in their place, where the optimizer
        keeps averages (`EMA`, `SWA`): for the end of a training.  The trainer itself."""
        self._averaging()
        return self

    def observe(self, figure: float) -> None:
        """Tells a figure of an evaluation, such as the loss, to the schedules that have a map
        `observe`, such as `ReduceOnPlateau`; `fit` does so with the monitored figure."""
        if self._prepare_observation():
            self._observation(figure=figure)

    def fit(
        self,
        train: Data,
        test: Data | None = None,
        *,
        epochs: int = 1,
        batch: int = 64,
        seed: int | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        steps_per_epoch: int | None = None,
        max_steps: int | None = None,
        accumulate: int = 1,
        precision: str | None = None,
        evaluate_every: int | None = None,
        monitor: str = "loss",
        mode: str = "min",
        patience: int | None = None,
        min_delta: float = 0.0,
        keep_best: str | Path | None = None,
        restore_best: bool = False,
        checkpoint: str | Path | None = None,
        checkpoint_steps: int = 0,
        resume: bool = False,
        progress: bool = True,
        callbacks: Sequence[Callback] = (),
    ) -> History:
        """Trains over batches for some epochs and gives what each reached; see docs/training.md.

        With `resume` training goes on where the checkpoint stands, to the same bits that an
        uninterrupted training would have reached.  Raises DataError, TrainingError (the loss is not
        finite, an option is wrong), TrainingInterrupted (ctrl-C) and CheckpointError.
        """
        options = FitOptions(
            epochs=epochs,
            batch=batch,
            seed=self.seed if seed is None else seed,
            checkpoint=_path(checkpoint),
            checkpoint_steps=checkpoint_steps,
            resume=resume,
            shuffle=shuffle,
            drop_last=drop_last,
            accumulate=accumulate,
            max_steps=max_steps,
            evaluate_every=evaluate_every,
            monitor=Monitor(monitor, mode, patience, min_delta),
            keep_best=_path(keep_best),
            restore_best=restore_best,
        )
        if precision is not None and precision != self.precision:
            self.set_precision(precision)
        data = self._source(train, _TRAIN_SUFFIXES, steps_per_epoch)
        held_out = None if test is None else self._source(test, _TEST_SUFFIXES, None, metrics=True)
        self._prepare(data, options.batch, options.accumulate)
        trainee = _Trainee(self, accumulates=accumulate > 1)
        if not progress:
            return fit(trainee, data, held_out, options, callbacks)
        with report_to(sys.stderr, epochs) as report:
            return fit(trainee, data, held_out, options, [*callbacks, report])

    def evaluate_data(self, data: Data, batch: int = 256) -> dict[str, Figure]:
        """The loss and the metrics over a data set: means weighted by batch size, and the values of
        metrics that gather over the batches."""
        source = self._source(data, _TEST_SUFFIXES, None, metrics=True)
        self._prepare(source, batch, accumulate=1)
        return evaluate(_Trainee(self), source, batch)

    def bind(self, data: Data, suffixes: Sequence[str], metrics: bool = False) -> Dataset:
        """Arrays under the names that the losses (and the metrics) take.  Raises DataError."""
        if isinstance(data, Dataset):
            return data
        source = "the data"
        if isinstance(data, str | Path):
            source, data = str(data), load_arrays(data)
        if not isinstance(data, Mapping):
            raise DataError(
                f"expected arrays by name, found an object of type {type(data).__name__}"
            )
        arrays = {name: as_array(name, value) for name, value in data.items()}
        return bind(arrays, self._types(metrics), suffixes, source)

    def _types(self, metrics: bool) -> dict[str, TensorType]:
        return {**self.types, **(self.compiled_evaluation.types if metrics else {})}

    def _source(
        self, data: Data, suffixes: Sequence[str], steps: int | None, metrics: bool = False
    ) -> Dataset | Stream:
        if isinstance(data, Dataset | Mapping | str | Path):
            if steps is not None:
                raise DataError("steps_per_epoch is for streams: arrays have epochs of their own")
            return self.bind(data, suffixes, metrics)
        if not isinstance(data, Iterable) and not callable(data):
            kind = type(data).__name__
            raise DataError(f"expected arrays or batches, found an object of type {kind}")
        return Stream(data, self._types(metrics), steps)

    def _prepare(self, data: Dataset | Source, batch: int, accumulate: int) -> None:
        """Fixes the sizes of all parameters and gives them their first values."""
        if isinstance(data, Dataset):
            size = min(batch, len(data))
            shapes = {name: (size, *array.shape[1:]) for name, array in data.arrays.items()}
        else:
            assert isinstance(data, Stream)
            shapes = {name: array.shape for name, array in data.first().items()}
        types = {name: TensorType(self.types[name].dtype, shapes[name]) for name in self.types}
        steps = (
            [self.compiled_step] if accumulate == 1 else [self.keeping_step, self.step_with_kept]
        )
        for step in steps:
            step.prepare(types)

        self._prepare_observation()

    def _prepare_observation(self) -> bool:
        """Compiles what schedules do with figures; whether one does something."""
        if not self._observation.is_ready and self.inner.elaborate_observe() is not None:
            self._observation.prepare({"figure": TensorType(DType.F32)})
            self._observation.is_ready = True
        return self._observation.is_ready

    def save(self, path: str | Path) -> None:
        """Writes everything that training changes to a safetensors file, atomically."""
        save_checkpoint(path, self.arrays, {"train": self.inner.name})

    def load(self, path: str | Path) -> Trainer:
        """Reads what `save` wrote; the trainer must have been prepared or have made a step."""
        arrays, _ = load_checkpoint(path)
        restore(self.arrays, arrays, str(path))
        return self

    def storage_for(self, specs: Iterable[ParameterSpec]) -> Mapping[str, Array]:
        """The arrays of parameters and states by path; new ones are initialized."""
        needed = list(specs)
        wanted = [spec for spec in needed if spec.path not in self._storage]
        for spec in wanted:
            self._adopt(spec)
        if any(spec.path not in self._storage for spec in wanted):
            self._initialize({spec.path for spec in wanted})
        gathered = self.inner.gathering_states()
        for spec in needed:
            if spec.path in gathered and spec.path not in self._first_values:
                self._first_values[spec.path] = self._storage[spec.path].copy()
        return self._storage

    def _initialize(self, wanted: Set[str]) -> None:
        """Adds first values of what nets have, and of what is wanted: an optimizer that is copied
        for each parameter has states that nothing uses."""
        found = dict(self._storage)
        initialize(self.inner.elaborate_initializers(), found, self.seed, self.options.device)
        kept = {p: a for p, a in found.items() if p in wanted or not p.startswith(_NOT_OF_NETS)}
        self._storage.update(kept)

    def _adopt(self, spec: ParameterSpec) -> None:
        """Takes the array of a net's parameter from the net."""
        if spec.path.startswith(_NOT_OF_NETS):
            return
        prefix = next((p for p in self._modules if p and spec.path.startswith(f"{p}.")), "")
        if prefix not in self._modules:
            return
        path = spec.path.removeprefix(f"{prefix}.") if prefix else spec.path
        own = ParameterSpec(path, spec.type, spec.is_state)
        self._storage[spec.path] = self._modules[prefix].storage_for([own])[path]


class _Trainee:
    """The trainer as the training loop sees it; `accumulates` where some steps only keep their
    gradients."""

    def __init__(self, trainer: Trainer, accumulates: bool = False) -> None:
        self.trainer = trainer
        self._update = trainer.step_with_kept if accumulates else trainer.compiled_step

    def step(self, batch: Batch, update: bool = True) -> Mapping[str, float]:
        """A step; without `update` its gradients are kept."""
        return (self._update if update else self.trainer.keeping_step).run(batch)

    def begin_evaluation(self) -> frozenset[str]:
        """Empties what metrics have gathered; the names of those that gather."""
        return self.trainer.begin_evaluation()

    def evaluate(self, batch: Batch) -> Figures:
        """Losses and metrics."""
        return self.trainer.compiled_evaluation.run(batch)

    def observe(self, figure: float) -> None:
        """Tells schedules."""
        self.trainer.observe(figure)

    def arrays(self) -> Mapping[str, Array]:
        """Everything that training changes."""
        return self.trainer.arrays


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _simple(figures: dict[str, float]) -> float | dict[str, float]:
    """A single loss as a number."""
    return figures["loss"] if len(figures) == 1 else figures


def _seed_of(prefix: str, seed: int) -> int:
    """The seed of a net: nets of one block begin differently where their paths are alike."""
    return seed ^ (crc32(prefix.encode()) << 20)


def _instance_of(
    program: Program, value: object, given: Iterable[Instance], options: Options, seed: int
) -> Instance:
    """The Python side of a module instance: the one passed in, or a new one."""
    for instance in given:
        if instance.value is value:
            return instance
    return Instance(DslInstance(program, value), options, seed)  # type: ignore[arg-type]
