"""Module instances in Python: parameters as NumPy views, saved, loaded, called, compiled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from weakref import WeakSet

import numpy as np

from mapsto.arguments import Parameter, parameters_of
from mapsto.callables import Compilable, Store
from mapsto.compiler import Options, bound_slots
from mapsto.dsl.elaborated import Elaborated
from mapsto.dsl.instances import instances_in
from mapsto.dsl.program import ModuleInstance as DslInstance
from mapsto.dsl.program import ParameterSpec
from mapsto.dsl.values import Closure, Value
from mapsto.ir.core import Array
from mapsto.ir.evaluator import evaluate
from mapsto.ir.types import DType, TensorType
from mapsto.placement import Mover, User, move, placed, read_only
from mapsto.runtime.checkpoint import load_checkpoint, save_checkpoint
from mapsto.runtime.devices.device import Device
from mapsto.runtime.errors import ArgumentError, CheckpointError
from mapsto.runtime.resuming import restore

__all__ = ["Instance", "Method", "Parameters", "initialize", "instances_among"]


class Parameters(Mapping[str, Array]):
    """Arrays by path, such as `layers.0.w`: views of the memory that compiled code works on.

    `params[path][...] = values` changes a parameter in place.
    """

    def __init__(self, arrays: Mapping[str, Array], owner: str) -> None:
        self._arrays = arrays
        self._owner = owner

    def __getitem__(self, path: str) -> Array:
        if path not in self._arrays:
            known = ", ".join(self._arrays) or "none yet: call the module or `init` first"
            raise KeyError(f"{self._owner} has no parameter {path!r}; it has {known}")
        return self._arrays[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        shapes = (f"{path}: {a.dtype}{list(a.shape)}" for path, a in self._arrays.items())
        return f"<parameters {', '.join(shapes)}>"


class Method(Compilable):
    """A map of a module instance."""

    def __init__(self, owner: Instance, name: str) -> None:
        super().__init__(owner.options)
        self.owner = owner
        self.name = name

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        return parameters_of(self.owner.closure(self.name).definition)

    def elaborate(
        self, types: Mapping[str, TensorType], static: Mapping[str, object]
    ) -> Elaborated:
        return self.owner.inner.elaborate(self.name, types, static)

    def own_arrays(self, slots: Sequence[ParameterSpec]) -> Mapping[str, Array]:
        return self.owner.storage_for(slots)

    def with_passes(self, passes: str) -> Method:
        """The same map on the same parameters, compiled by another pipeline."""
        return Method(self.owner.with_passes(passes), self.name)

    def own_stores(self) -> Iterable[Store]:
        return (self.owner,)

    def to(self, device: str | Device) -> Method:
        """Moves the module; gives the map itself."""
        self.owner.to(device)
        return self


class Instance(Method):
    """An instance of a module.

    Calling it applies its unnamed map; named maps are attributes.  Parameters appear at the first
    call, or at `init`, with values that depend on the seed and their path alone.  Instances in the
    configuration, `parts`, share their parameters with it.
    """

    def __init__(
        self,
        inner: DslInstance,
        options: Options,
        seed: int = 0,
        storage: dict[str, Array] | None = None,
        parts: Sequence[Instance] = (),
        is_frozen: bool = False,
    ) -> None:
        self.inner = inner
        self.seed = seed
        self.is_frozen = is_frozen
        self._parts = tuple(parts)
        self._storage: dict[str, Array] = {} if storage is None else storage
        self._unchecked: str | None = None
        """The file of weights that no program has been compiled with yet."""
        self._methods: dict[str, Method] = {}
        self._users: WeakSet[User] = WeakSet()
        self.updates: dict[tuple[object, ...], Compilable] = {}
        """Of an optimizer: the compiled updates of nets, by net and paths (`updates.py`)."""
        self.options = options
        super().__init__(self, "")
        for part in self._parts:
            part.add_user(self)

    def __repr__(self) -> str:
        return f"<{self.inner.name} with {len(self.params)} parameters>"

    def __getattr__(self, name: str) -> Method:
        """A named map of the module."""
        if name.startswith("_") or name not in self.inner.maps():
            raise AttributeError(f"{self.inner.name} has no map {name!r}")
        method = self.__dict__[name] = self._methods[name] = Method(self, name)
        return method

    @property
    def value(self) -> Value:
        """The instance as a value of the language, to be passed to maps, modules and training."""
        return self.inner.value

    @property
    def params(self) -> Parameters:
        """The parameters by path."""
        states = self.inner.state_paths()
        kept = {p: a for p, a in self._storage.items() if p not in states}
        return Parameters(kept, self.inner.name)

    @property
    def states(self) -> Parameters:
        """The states by path, such as running statistics."""
        states = self.inner.state_paths()
        kept = {p: a for p, a in self._storage.items() if p in states}
        return Parameters(kept, self.inner.name)

    def closure(self, name: str) -> Closure:
        """A map of the module as a value of the language."""
        return self.inner.closure(name)

    def init(self, **types: TensorType) -> Instance:
        """Fixes the sizes of the parameters from the types of the inputs and fills them.

        `net.init(x=mt.f32[None, 64])`.  Gives the instance itself.  Raises ArgumentError where
        something else than a type is given, DiagnosticsError where the types do not fit.
        """
        for name, given in types.items():
            if not isinstance(given, TensorType):
                raise ArgumentError(f"{name} is no type such as mt.f32[None, 64]: {given!r}")
        self.storage_for(bound_slots(self.elaborate(types, {})))
        return self

    def storage_for(self, specs: Iterable[ParameterSpec]) -> Mapping[str, Array]:
        """The arrays of parameters and states; new ones are initialized.

        Raises CheckpointError where a file that was read before the sizes were known does not fit,
        ArgumentError where a frozen net lacks one.
        """
        wanted = list(specs)
        if self.is_frozen:
            self._require(wanted)
            return self._storage
        self._share(wanted)
        if any(spec.path not in self._storage for spec in wanted):
            initializers = self.inner.elaborate_initializers()
            initialize(initializers, self._storage, self.seed, self.options.device)
        if self._unchecked is not None:
            _check_loaded(wanted, self._storage, self._unchecked)
        return self._storage

    def _require(self, specs: Sequence[ParameterSpec]) -> None:
        for spec in specs:
            if spec.path not in self._storage:
                raise ArgumentError(
                    f"{self.inner.name} was frozen before it had {spec.path}: call the net, or its"
                    " `init`, before `freeze`"
                )

    def _share(self, specs: Sequence[ParameterSpec]) -> None:
        """Takes the arrays of the parts; what was loaded for them before goes into these."""
        prefixes = {instance: path for path, instance in instances_in(self.inner.value)}
        for part in self._parts:
            prefix = f"{prefixes[part.inner.value]}."
            own = [s for s in specs if s.path.startswith(prefix)]
            shared = part.storage_for([replace(s, path=s.path.removeprefix(prefix)) for s in own])
            for spec in own:
                array = shared[spec.path.removeprefix(prefix)]
                loaded = self._storage.get(spec.path, array)
                if loaded.shape == array.shape:
                    array[...] = loaded
                    self._storage[spec.path] = array

    def save(self, path: str | Path) -> None:
        """Writes parameters and states to a safetensors file, atomically.

        Raises CheckpointError where there are none yet.
        """
        if not self._storage:
            name = self.inner.name
            raise CheckpointError(f"{name} has no parameters yet: call it, or its `init`, first")
        save_checkpoint(path, self._storage, {"module": self.inner.name})

    def load(self, path: str | Path) -> Instance:
        """Reads parameters and states from a safetensors file; gives the instance itself.

        Before the first call the file decides the sizes that the configuration leaves open.  Raises
        CheckpointError where it cannot be read or does not fit, or the net is frozen; then nothing
        has changed.  Sizes that only the first call tells are checked there.
        """
        if self.is_frozen:
            raise CheckpointError(f"{self.inner.name} is frozen: load into a net, then freeze it")
        arrays, _ = load_checkpoint(path)
        if self._storage:
            restore(self._storage, arrays, str(path))
            return self
        self._unchecked = str(path)
        for name, array in arrays.items():
            self._storage[name] = placed(array, self.options.device)
        return self

    def with_passes(self, passes: str) -> Instance:
        """The instance on the same parameters, compiled by another pipeline."""
        options = self.options.with_passes(passes)
        parts, is_frozen = self._parts, self.is_frozen
        made = Instance(self.inner, options, self.seed, self._storage, parts, is_frozen)
        made.add_user(self)
        self.add_user(made)
        return made

    def freeze(self) -> Instance:
        """A net for inference: the same maps on read-only copies of the parameters and states.

        What depends on these alone, such as the order in which products read weights, is computed
        once and not at each call.  Later changes of this instance do not reach it; maps that update
        states, and training, refuse it.  Raises ArgumentError where there are no parameters yet.
        """
        if not self._storage:
            raise ArgumentError(
                f"{self.inner.name} has no parameters yet: call it, or its `init`, before `freeze`"
            )
        device = self.options.device
        copies = {path: read_only(placed(a, device)) for path, a in self._storage.items()}
        return Instance(self.inner.duplicate(), self.options, self.seed, copies, is_frozen=True)

    # ---- devices

    def to(self, device: str | Device) -> Instance:
        """Moves the parameters and states to a device, such as `"cuda:0"`, or back to the `"cpu"`,
        with all modules and trainings that share them; gives the instance itself.

        Calls run there from then on, and `params` are arrays there.  Raises DeviceError where there
        is no such device; then nothing has changed.
        """
        move(self, device)
        return self

    def add_user(self, user: User) -> None:
        """Has someone told when the arrays move."""
        self._users.add(user)

    def sharers(self) -> Iterable[User]:
        """The parts, and what is made with this instance or works on its arrays."""
        return (*self._parts, *self._users)

    def relocate(self, mover: Mover) -> None:
        """Moves the arrays."""
        mover.move(self._storage)
        if self.is_frozen:
            self._storage.update({path: read_only(a) for path, a in self._storage.items()})
        self.options = replace(self.options, device=mover.device)
        self.updates.clear()
        super().relocate(mover)
        for method in self._methods.values():
            method.options = self.options
            method.relocate(mover)


def instances_among(values: Iterable[object]) -> Iterator[Instance]:
    """The instances among configuration values, those in lists too."""
    for value in values:
        if isinstance(value, Instance):
            yield value
        elif isinstance(value, list | tuple):
            yield from instances_among(value)


def _check_loaded(
    specs: Iterable[ParameterSpec], storage: Mapping[str, Array], source: str
) -> None:
    for spec in specs:
        found = storage[spec.path]
        if (DType.of(found.dtype), found.shape) != (spec.type.dtype, spec.type.shape):
            shape = f"{DType.of(found.dtype)}{list(found.shape)}"
            raise CheckpointError(f"{source}: array `{spec.path}` is {shape}, expected {spec.type}")


def initialize(initializers: Elaborated, storage: dict[str, Array], seed: int, device: str) -> None:
    """Adds, on the device, first values of the parameters and states that the storage lacks."""
    assert isinstance(initializers.result, dict)
    key = np.asarray(seed, np.int64)
    try:
        values = evaluate(initializers.module, initializers.entry, [key])
    except MemoryError as error:
        types = initializers.result.items()
        sizes = ", ".join(f"{path}: {type_}" for path, type_ in types)
        raise MemoryError(f"not enough memory for the first values of {sizes}") from error
    for path, value in zip(initializers.result, values, strict=True):
        if path not in storage:
            storage[path] = placed(value, device)
