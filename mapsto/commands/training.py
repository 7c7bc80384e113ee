"""`mapsto train`: a `train` block on arrays from files."""

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
from mapsto.runtime.dataset import DataError, Dataset, load_arrays, load_npy
from mapsto.runtime.files import write_atomically
from mapsto.runtime.history import History, plain
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
            shuffle=not options.no_shuffle,
            drop_last=options.drop_last,
            max_steps=options.max_steps,
            accumulate=options.accumulate,
            precision=options.precision,
            evaluate_every=options.evaluate_every,
            monitor=options.monitor,
            mode=options.mode,
            patience=options.patience,
            min_delta=options.min_delta,
            keep_best=options.keep_best,
            restore_best=options.restore_best,
            checkpoint=checkpoint,
            checkpoint_steps=options.checkpoint_steps,
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
    outputs = (options.save, options.checkpoint, options.resume, options.keep_best, options.plot)
    for path in outputs:
        if path is None:
            continue
        if not path.parent.is_dir():
            raise MapstoError(f"{path}: there is no folder {path.parent}")
        if path.is_dir():
            raise MapstoError(f"{path}: is a folder")
        if not os.access(path.parent, os.W_OK):
            raise MapstoError(f"{path}: the folder {path.parent} is not writable")
    if options.plot is not None:
        _check_plot(options.plot)


def _check_plot(path: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise MapstoError("--plot needs matplotlib: pip install 'mapsto[plot]'")
    from matplotlib.backend_bases import FigureCanvasBase

    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if _format(path) not in known:
        raise MapstoError(f"{path}: no pictures of this type; there are {', '.join(known)}")


def _format(path: Path) -> str:
    """The type of a picture, by the suffix of its file."""
    return path.suffix.removeprefix(".").lower() or "png"


def _data(trainer: Trainer, options: argparse.Namespace) -> tuple[Dataset, Dataset | None]:
    """The arrays to train on, and to evaluate on where there are such."""
    arrays, source = _read(options.data)
    data = _bound(trainer, arrays, ("", "_train"), source, metrics=False)
    if options.test is not None:
        held_out, source = _read(options.test)
        return data, _bound(trainer, held_out, ("", "_test"), source, metrics=True)
    if any(name.endswith("_test") for name in arrays):
        return data, _bound(trainer, arrays, ("_test",), source, metrics=True)
    return data, None


def _read(texts: Sequence[str]) -> tuple[Mapping[str, Array], str]:
    """The arrays of one file or folder, or of several `name=x.npy`; and what to call them."""
    named = [text.partition("=") for text in texts]
    if len(texts) == 1 and not (named[0][1] and named[0][0].isidentifier()):
        return load_arrays(texts[0]), texts[0]
    arrays: dict[str, Array] = {}
    for text, (name, equals, path) in zip(texts, named, strict=True):
        if not equals or not name.isidentifier():
            raise MapstoError(f"{text}: of several files each is given as name=x.npy")
        if name in arrays:
            raise MapstoError(f"{text}: `{name}` is given twice")
        arrays[name] = load_npy(path)
    return arrays, ", ".join(texts)


def _bound(
    trainer: Trainer,
    arrays: Mapping[str, Array],
    suffixes: Sequence[str],
    source: str,
    metrics: bool,
) -> Dataset:
    try:
        return trainer.bind(arrays, suffixes, metrics)
    except DataError as error:
        raise DataError(f"{source}: {error}") from None


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
        figures = {"loss": last.loss, "test": plain(last.test)}
        ending = {"stopped": history.stopped} if history.stopped else {}
        best = {"best_epoch": history.best_epoch} if _watches(options) else {}
        result = {"result": figures, "epochs": len(history.epochs), "written": written}
        print(json.dumps({**result, **ending, **best}))
        return
    if history.stopped:
        print(f"stopped: {history.stopped}")
    if _watches(options):
        print(f"best epoch {history.best_epoch}")
    print(f"train loss {last.loss:.4f}")
    for name, value in last.test.items():
        if isinstance(value, float):
            print(f"test {name} {value:.4f}")
        else:
            print(f"test {name}\n{value}")
    if written:
        print(f"wrote {' and '.join(written)}")


def _watches(options: argparse.Namespace) -> bool:
    """Whether it matters to the training which epoch was best."""
    return options.patience is not None or options.keep_best is not None


def _plot(history: History, path: Path) -> None:
    """Draws the losses of the epochs; the suffix of the path says in which format."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    numbers = [epoch.number for epoch in history.epochs]
    axes.plot(numbers, history.losses, marker="o", label="training")
    tested = [(e.number, float(e.test["loss"])) for e in history.epochs if "loss" in e.test]
    if tested:
        axes.plot(*zip(*tested, strict=True), marker="o", label="test")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format=_format(path))
    write_atomically(path, [buffer.getbuffer()])
