"""`train` blocks in Python: one fused native step, evaluation, and the training loop."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mapsto.arguments import Parameter, declared_types, parameters_of
from mapsto.callables import Compilable
from mapsto.compiler import Options
from mapsto.dsl.elaborated import Elaborated, ParameterSpec
from mapsto.dsl.program import ModuleInstance as DslInstance
from mapsto.dsl.program import Program
from mapsto.dsl.training import Trainer as DslTrainer
from mapsto.instances import Instance, Parameters, initialize
from mapsto.ir.core import Array
from mapsto.ir.types import TensorType
from mapsto.progress import report_to
from mapsto.runtime.checkpoint import load_checkpoint, save_checkpoint
from mapsto.runtime.dataset import Dataset, bind, converted, load_npz
from mapsto.runtime.training import Epoch, FitOptions, History, Observer, evaluate, fit, restore

__all__ = ["Data", "Trainer"]

Data = Dataset | Mapping[str, Array] | str | Path
"""A data set, arrays by name, or the path of a .npz file."""

_TRAIN_SUFFIXES = ("", "_train")
_TEST_SUFFIXES = ("", "_test")


class Trainer:
    """A `train` block: a loss, metrics, nets and an optimizer.

    `configuration` are the block's parameters, such as `net` and `optimizer`.  Nets that are passed
    in share their parameters with the trainer.
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
        given = [value for value in configuration.values() if isinstance(value, Instance)]
        self._modules = {
            prefix: _instance_of(program, value, given, options, seed)
            for prefix, value in self.inner.modules()
        }
        self._storage: dict[str, Array] = {}
        self.compiled_step = _Step(self)
        self.compiled_evaluation = _Evaluation(self)

    def __repr__(self) -> str:
        return f"<train {self.inner.name}>"

    @property
    def net(self) -> Instance:
        """The module that is trained as `net`."""
        return self._modules[""]

    @property
    def arrays(self) -> Parameters:
        """Everything that training changes, by path: parameters, states, the optimizer's states."""
        return Parameters(self._storage, self.inner.name)

    @property
    def types(self) -> dict[str, TensorType]:
        """The declared types of the arrays that a step takes."""
        return declared_types(self.inner.loss.definition)

    def step(self, **batch: object) -> float:
        """One optimizer step on a batch, in place; gives the loss before it.

        Integer arrays are converted to the declared element types.
        """
        result = self.compiled_step.try_fast(batch)
        if result is NotImplemented:
            result = self.compiled_step(**_converted(batch, self.types))
        return float(result)

    def evaluate(self, **batch: object) -> dict[str, float]:
        """The loss and the metrics on a batch, by name; nothing changes."""
        types = {**self.types, **self.compiled_evaluation.types}
        found = self.compiled_evaluation(**_converted(batch, types))
        return {name: float(value) for name, value in found.items()}

    def fit(
        self,
        train: Data,
        test: Data | None = None,
        *,
        epochs: int = 1,
        batch: int = 64,
        seed: int | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_steps: int = 0,
        resume: bool = False,
        progress: bool = True,
        callbacks: Sequence[Callable[[Epoch], object] | Observer] = (),
    ) -> History:
        """Trains over shuffled batches for some epochs and gives what each reached.

        A callback is called with each finished `Epoch` (or is an `Observer`, told of steps too).
        With `resume` training goes on where the checkpoint stands, to the same bits that an
        uninterrupted training would have reached.  Raises DataError, TrainingError (the loss is not
        finite), TrainingInterrupted (ctrl-C) and CheckpointError.
        """
        options = FitOptions(
            epochs=epochs,
            batch=batch,
            seed=self.seed if seed is None else seed,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            checkpoint_steps=checkpoint_steps,
            resume=resume,
        )
        data = self.bind(train, _TRAIN_SUFFIXES)
        held_out = None if test is None else self.bind(test, _TEST_SUFFIXES, metrics=True)
        self.prepare(data, min(batch, len(data)))
        observers = [_Callback(c) if callable(c) else c for c in callbacks]
        if not progress:
            return fit(_Trainee(self), data, held_out, options, observers)
        with report_to(sys.stderr, epochs) as report:
            return fit(_Trainee(self), data, held_out, options, [report, *observers])

    def evaluate_data(self, data: Data, batch: int = 256) -> dict[str, float]:
        """The loss and the metrics over a data set: means weighted by batch size."""
        bound = self.bind(data, _TEST_SUFFIXES, metrics=True)
        self.prepare(bound, min(batch, len(bound)))
        return evaluate(_Trainee(self), bound, batch)

    def bind(self, data: Data, suffixes: Sequence[str], metrics: bool = False) -> Dataset:
        """The data under the names that the loss (and the metrics) take.  Raises DataError."""
        if isinstance(data, Dataset):
            return data
        source = "the data"
        if isinstance(data, str | Path):
            source, data = str(data), load_npz(data)
        types = {**self.types, **(self.compiled_evaluation.types if metrics else {})}
        return bind(data, types, suffixes, source)

    def prepare(self, data: Dataset, batch: int) -> None:
        """Fixes the sizes of all parameters and gives them their first values."""
        types = {
            name: TensorType(self.types[name].dtype, (batch, *data.arrays[name].shape[1:]))
            for name in self.types
        }
        self.compiled_step.prepare(types)

    def save(self, path: str | Path) -> None:
        """Writes everything that training changes to a safetensors file, atomically."""
        save_checkpoint(path, self._storage, {"train": self.inner.name})

    def load(self, path: str | Path) -> Trainer:
        """Reads what `save` wrote; the trainer must have been prepared or have made a step."""
        arrays, _ = load_checkpoint(path)
        restore(self._storage, arrays, str(path))
        return self

    def storage_for(self, specs: Iterable[ParameterSpec]) -> Mapping[str, Array]:
        """The arrays of parameters and states by path; new ones are initialized."""
        wanted = [spec for spec in specs if spec.path not in self._storage]
        for spec in wanted:
            self._adopt(spec)
        if any(spec.path not in self._storage for spec in wanted):
            initialize(self.inner.elaborate_initializers(), self._storage, self.seed)
        return self._storage

    def _adopt(self, spec: ParameterSpec) -> None:
        """Takes the array of a net's parameter from the net."""
        if spec.path.startswith("optimizer."):
            return
        prefix = next((p for p in self._modules if p and spec.path.startswith(f"{p}.")), "")
        if prefix not in self._modules:
            return
        path = spec.path.removeprefix(f"{prefix}.") if prefix else spec.path
        own = ParameterSpec(path, spec.type, spec.is_state)
        self._storage[spec.path] = self._modules[prefix].storage_for([own])[path]


class _Step(Compilable):
    """The training step as a function of the batch."""

    def __init__(self, owner: Trainer) -> None:
        super().__init__(owner.options)
        self.owner = owner

    @property
    def inner(self) -> DslTrainer:
        return self.owner.inner

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return parameters_of(self.inner.loss.definition)

    def elaborate(
        self, types: Mapping[str, TensorType], static: Mapping[str, object]
    ) -> Elaborated:
        return self.inner.elaborate_step(types)

    def own_arrays(self, slots: Sequence[ParameterSpec]) -> Mapping[str, Array]:
        return self.owner.storage_for(slots)


class _Evaluation(_Step):
    """Loss and metrics as a function of the batch."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        declared = [p for d in self.inner.evaluated for p in parameters_of(d)]
        return tuple({p.name: p for p in declared}.values())

    @property
    def types(self) -> dict[str, TensorType]:
        found: dict[str, TensorType] = {}
        for definition in self.inner.evaluated:
            found |= declared_types(definition)
        return found

    def elaborate(
        self, types: Mapping[str, TensorType], static: Mapping[str, object]
    ) -> Elaborated:
        return self.inner.elaborate_evaluate(types)


class _Trainee:
    """The trainer as the training loop sees it."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def step(self, batch: Mapping[str, Array]) -> float:
        return self.trainer.step(**batch)

    def evaluate(self, batch: Mapping[str, Array]) -> Mapping[str, float]:
        return self.trainer.evaluate(**batch)

    def arrays(self) -> Mapping[str, Array]:
        return self.trainer.arrays


class _Callback:
    """A function of finished epochs as an observer."""

    def __init__(self, function: Callable[[Epoch], object]) -> None:
        self.function = function

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Nothing: the function wants epochs."""

    def on_epoch(self, epoch: Epoch) -> None:
        self.function(epoch)


def _instance_of(
    program: Program, value: object, given: Iterable[Instance], options: Options, seed: int
) -> Instance:
    """The Python side of a module instance: the one passed in, or a new one."""
    for instance in given:
        if instance.value is value:
            return instance
    return Instance(DslInstance(program, value), options, seed)  # type: ignore[arg-type]


def _converted(batch: Mapping[str, object], types: Mapping[str, TensorType]) -> dict[str, object]:
    return {
        name: converted(name, np.asarray(value), types[name].dtype) if name in types else value
        for name, value in batch.items()
    }
