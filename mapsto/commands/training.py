"""`mapsto train`: a `train` block on arrays of .npz files."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mapsto.commands.compilation import compile_options
from mapsto.commands.entries import Opened, load_program, split_target
from mapsto.commands.settings import check_names, parse_settings
from mapsto.errors import MapstoError
from mapsto.ir.core import Array
from mapsto.progress import report_to
from mapsto.runtime.dataset import DataError, Dataset, load_npz
from mapsto.runtime.files import write_atomically
from mapsto.runtime.training import History
from mapsto.trainer import Trainer

__all__ = ["train"]


def train(options: argparse.Namespace) -> int:
    """Trains, reports each epoch, and saves what was asked for."""
    checkpoint = _checkpoint(options)
    _check_outputs(options)
    trainer = _trainer(options)
    data, test = _data(trainer, options)
    with report_to(sys.stdout, options.epochs, options.json) as report:
        history = trainer.fit(
            data,
            test,
            epochs=options.epochs,
            batch=options.batch,
            seed=options.seed,
            checkpoint=checkpoint,
            resume=options.resume is not None,
            progress=False,
            callbacks=[report],
        )
    if options.save is not None:
        _save(trainer, options.save)
    if options.plot is not None:
        _plot(history, options.plot)
    _print_figures(history, options)
    return 0


def _trainer(options: argparse.Namespace) -> Trainer:
    path, name = split_target(options.target)
    settings = parse_settings(options.static)
    opened = Opened(load_program(path), compile_options(options), settings, options.seed)
    trainer = opened.trainer(name)
    check_names(settings, sorted(opened.configurable), trainer.inner.name)
    return trainer


def _checkpoint(options: argparse.Namespace) -> Path | None:
    """The file to save to and to continue from.

    Where --checkpoint names the same file as --resume it need not exist yet: the same command
    then starts a training and continues it.
    """
    checkpoint: Path | None = options.checkpoint
    resume: Path | None = options.resume
    if resume is None:
        return checkpoint
    if checkpoint is not None and checkpoint != resume:
        raise MapstoError("--checkpoint and --resume name different files; one file serves both")
    if checkpoint is None and not resume.exists():
        raise MapstoError(f"--resume {resume}: no such file")
    return resume


def _check_outputs(options: argparse.Namespace) -> None:
    """Finds out before the training what would make its results unsavable."""
    for path in (options.save, options.checkpoint, options.resume, options.plot):
        if path is None:
            continue
        if not path.parent.is_dir():
            raise MapstoError(f"{path}: there is no folder {path.parent}")
        if path.is_dir():
            raise MapstoError(f"{path}: is a folder")
        if not os.access(path.parent, os.W_OK):
            raise MapstoError(f"{path}: the folder {path.parent} is not writable")
    if options.plot is not None and importlib.util.find_spec("matplotlib") is None:
        raise MapstoError("--plot needs matplotlib: pip install 'mapsto[plot]'")


def _data(trainer: Trainer, options: argparse.Namespace) -> tuple[Dataset, Dataset | None]:
    """The arrays to train on, and to evaluate on where there are such."""
    arrays = load_npz(options.data)
    data = _bound(trainer, arrays, ("", "_train"), options.data, metrics=False)
    if options.test is not None:
        held_out = load_npz(options.test)
        return data, _bound(trainer, held_out, ("", "_test"), options.test, metrics=True)
    if any(name.endswith("_test") for name in arrays):
        return data, _bound(trainer, arrays, ("_test",), options.data, metrics=True)
    return data, None


def _bound(
    trainer: Trainer,
    arrays: Mapping[str, Array],
    suffixes: Sequence[str],
    path: Path,
    metrics: bool,
) -> Dataset:
    try:
        return trainer.bind(arrays, suffixes, metrics)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _save(trainer: Trainer, path: Path) -> None:
    """Writes the weights of the net, or of all modules where none is called `net`."""
    nets = dict(trainer.inner.modules())
    if "" in nets:
        trainer.net.save(path)
    else:
        trainer.save(path)


def _print_figures(history: History, options: argparse.Namespace) -> None:
    """The figures that the training ended with, and what was written."""
    last = history.epochs[-1]
    written = [str(path) for path in (options.save, options.plot) if path is not None]
    if options.json:
        figures = {"loss": last.loss, "test": dict(last.test)}
        print(json.dumps({"result": figures, "epochs": len(history.epochs), "written": written}))
        return
    print(f"train loss {last.loss:.4f}")
    for name, value in last.test.items():
        print(f"test {name} {value:.4f}")
    if written:
        print(f"wrote {' and '.join(written)}")


def _plot(history: History, path: Path) -> None:
    """Draws the losses of the epochs; the suffix of the path says in which format."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    numbers = [epoch.number for epoch in history.epochs]
    axes.plot(numbers, history.losses, marker="o", label="training")
    tested = [epoch for epoch in history.epochs if "loss" in epoch.test]
    if tested:
        losses = [epoch.test["loss"] for epoch in tested]
        axes.plot([epoch.number for epoch in tested], losses, marker="o", label="test")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.legend()
    buffer = io.BytesIO()
    try:
        figure.savefig(buffer, format=path.suffix.removeprefix(".") or "png")
    except ValueError as error:
        raise MapstoError(f"{path}: {error}") from error
    write_atomically(path, [buffer.getbuffer()])
