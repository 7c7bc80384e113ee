"""The `mapsto` command: its arguments, and what happens to errors.

Every error of the user's (source, arguments, files, data) ends in a message on standard error and
exit code 1 (2 for wrong usage, 130 after ctrl-C), never in a traceback.  The modules of a command
are imported when it runs, so that `check` does not wait for the compiler.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mapsto.errors import MapstoError, describe, user_errors

__all__ = ["main"]

STAGES = ("ast", "tensor", "kernels", "loops", "llvm", "asm", "ptx", "spirv")
"""What `mapsto ir` can print."""

Command = Callable[[argparse.Namespace], int]

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; gives the exit code."""
    _open_streams()
    options = _parser().parse_args(arguments)
    run: Command = options.run
    try:
        with user_errors():
            code = run(options)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`mapsto ir ... | head`): nobody is left to tell.
        _discard_output()
        return 1
    except MapstoError as error:
        print(describe(error, sys.stderr), file=sys.stderr)
        _discard_output()
        return error.exit_code


def _open_streams() -> None:
    """Stands in for streams that the caller has closed (`mapsto ... >&-`)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, io.StringIO())


def _discard_output() -> None:
    """Makes sure that the interpreter's last flush does not fail once more."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _seed(text: str) -> int:
    """A seed as an option; seeds are 64-bit integers."""
    try:
        seed = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number") from None
    if not -(2**63) <= seed < 2**63:
        raise argparse.ArgumentTypeError(f"{text} does not fit into 64 bits")
    return seed


def _command(module: str, function: str) -> Command:
    """A function of a module of `mapsto.commands`, imported when it is called."""

    def run(options: argparse.Namespace) -> int:
        command: Command = getattr(importlib.import_module(f"mapsto.commands.{module}"), function)
        return command(options)

    return run


class _Version(argparse.Action):
    """Prints the version that is installed."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        from importlib.metadata import version

        print(f"mapsto {version('mapsto')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mapsto", description="A language for neural networks and its compiler."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (_check, _fmt, _train, _run, _build, _ir, _bench, _passes, _ops, _cache):
        add(subparsers)
    return parser


def _check(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("check", help="type-check files; exit 1 on errors")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="or - for the input")
    _add_plugins(parser)
    parser.set_defaults(run=_command("sources", "check"))


def _fmt(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("fmt", help="lay out files canonically")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="or - for the input")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if one would")
    parser.set_defaults(run=_command("sources", "fmt"))


def _train(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("train", help="train a model")
    parser.add_argument("target", metavar="FILE[:NAME]", help="a file and its `train` block")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max-steps", type=int, metavar="N", help="end after so many steps")
    parser.add_argument("--seed", type=_seed, default=0)
    parser.add_argument("--save", type=Path, metavar="W.safetensors", help="write the weights")
    parser.add_argument("--plot", type=Path, metavar="LOSS.png", help="draw the losses")
    parser.add_argument("--json", action="store_true", help="report in JSON lines")
    _add_static(parser, "net.hidden=64", "fix a size, or an argument of a module of the block")
    _add_data(parser.add_argument_group("data"))
    _add_evaluation(parser.add_argument_group("evaluation and early stopping"))
    _add_checkpoints(parser.add_argument_group("checkpoints"))
    _add_device(parser)
    _add_compilation(parser)
    parser.set_defaults(run=_command("training", "train"))


def _add_data(group: argparse._ActionsContainer) -> None:
    forms = "a .npz file, a folder of .npy files, or name=x.npy once for each array"
    metavar = "D.npz"
    group.add_argument("--data", required=True, action="append", metavar=metavar, help=forms)
    group.add_argument(
        "--test",
        action="append",
        metavar="T.npz",
        help="data to evaluate on; default: arrays of --data whose names end in _test",
    )
    group.add_argument("--batch", type=int, default=64, help="examples a step (64)")
    group.add_argument("--no-shuffle", action="store_true", help="keep the order of the data")
    group.add_argument("--drop-last", action="store_true", help="leave out a last, shorter batch")
    group.add_argument(
        "--precision", choices=("f32", "bf16", "f16"), default="f32", help="of products (f32)"
    )
    group.add_argument(
        "--accumulate", type=int, default=1, metavar="N", help="update after every N batches"
    )


def _add_evaluation(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--evaluate-every", type=int, metavar="N", help="also inside epochs, after every N steps"
    )
    group.add_argument(
        "--patience", type=int, metavar="N", help="stop after N evaluations without a better figure"
    )
    group.add_argument(
        "--monitor", default="loss", metavar="FIGURE", help="which figure (test loss)"
    )
    group.add_argument("--mode", choices=("min", "max"), default="min", help="what is better")
    group.add_argument("--min-delta", type=float, default=0.0, help="how much better it has to be")
    group.add_argument("--keep-best", type=Path, metavar="BEST", help="save at the best figure")
    group.add_argument("--restore-best", action="store_true", help="end with what was kept")


def _add_checkpoints(group: argparse._ActionsContainer) -> None:
    group.add_argument("--checkpoint", type=Path, metavar="CKPT", help="save after each epoch")
    group.add_argument(
        "--checkpoint-steps", type=int, default=0, metavar="N", help="also after every N steps"
    )
    group.add_argument(
        "--resume", type=Path, metavar="CKPT", help="continue from a checkpoint, and go on saving"
    )


def _run(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("run", help="apply a map or a module to arrays")
    parser.add_argument("target", metavar="FILE:ENTRY")
    parser.add_argument(
        "--input", action="append", default=[], metavar="[NAME=]X.npy", help="in order, or by name"
    )
    parser.add_argument("--weights", type=Path, metavar="W.safetensors")
    parser.add_argument("--output", type=Path, metavar="Y.npy", help="write the result")
    parser.add_argument("--seed", type=_seed, default=0, help="of weights that no file gives")
    _add_static(parser, "k=3", "the value of an argument that is no array, or a setting")
    _add_device(parser)
    _add_compilation(parser)
    parser.set_defaults(run=_command("running", "run"))


def _build(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("build", help="compile to a native library or object")
    parser.add_argument("target", metavar="FILE:ENTRY[,ENTRY...]")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="OUT", help=".so, .o, .ll, .s or .ptx"
    )
    parser.add_argument("--weights", type=Path, metavar="W.safetensors")
    parser.add_argument("--external", action="store_true", help="leave the weights in their file")
    parser.add_argument("--header", type=Path, metavar="MODEL.h", help="default: beside the output")
    parser.add_argument(
        "--target", dest="triple", metavar="TRIPLE", help="another CPU, or a GPU: nvptx64-sm_80"
    )
    parser.add_argument("--seed", type=_seed, default=0, help="of weights that no file gives")
    _add_static(parser)
    _add_compilation(parser)
    parser.set_defaults(run=_command("building", "build"))


def _ir(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("ir", help="print a stage of compilation")
    parser.add_argument("target", metavar="FILE:ENTRY")
    parser.add_argument("--stage", choices=STAGES, default="tensor")
    parser.add_argument(
        "--print-after", metavar="PASS", help="a pass, or `all`: its result on standard error"
    )
    parser.add_argument("--stop-after", metavar="PASS", help="with --stage tensor")
    parser.add_argument(
        "--target", dest="gpu", metavar="GPU", help="loops, llvm or asm of a GPU: nvptx64-sm_80"
    )
    _add_static(parser)
    _add_compilation(parser)
    parser.set_defaults(run=_command("stages", "print_stage"), seed=0)


def _bench(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("bench", help="measure a program, kernel by kernel")
    parser.add_argument("target", nargs="?", metavar="FILE:ENTRY")
    parser.add_argument(
        "--input", action="append", default=[], metavar="[NAME=]X.npy", help="default: random"
    )
    parser.add_argument("--weights", type=Path, metavar="W.safetensors")
    parser.add_argument("--seconds", type=float, default=2.0, help="time to measure for (2)")
    parser.add_argument("--seed", type=_seed, default=0, help="of what no file gives")
    parser.add_argument(
        "--roofline", action="store_true", help="also print what the machine can do at most"
    )
    parser.add_argument("--json", action="store_true", help="report in JSON")
    parser.add_argument(
        "--target", dest="gpu", metavar="GPU", help="what it asks of a GPU that is not here"
    )
    _add_static(parser, "n=64", "fix a size; all have to be known")
    _add_device(parser)
    _add_compilation(parser)
    parser.set_defaults(run=_command("bench", "bench"))


def _passes(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("passes", help="list the passes")
    _add_plugins(parser)
    parser.set_defaults(run=_command("listing", "passes"))


def _ops(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("ops", help="list the ops of the tensor IR")
    _add_plugins(parser)
    parser.set_defaults(run=_command("listing", "ops"))


def _cache(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("cache", help="show what is kept on disk between runs")
    parser.add_argument("--clear", action="store_true", help="remove it")
    parser.add_argument("--json", action="store_true", help="report in JSON")
    parser.set_defaults(run=_command("cache", "cache"))


def _add_compilation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("compilation")
    group.add_argument("--passes", default="default", metavar="LIST", help='"default,my-pass"')
    group.add_argument(
        "--cpu", default="native", metavar="NAME", help="native, baseline, or LLVM's name"
    )
    group.add_argument("--vector-bits", type=int, metavar="N", help="use narrower vectors")
    group.add_argument("--threads", type=int, metavar="N", help="of the thread pool")
    group.add_argument(
        "--tune", action="store_true", help="measure schedules of products, and keep the quickest"
    )
    group.add_argument(
        "--tf32", action="store_true", help="round products of f32 on GPUs that are faster then"
    )
    _add_plugins(group)


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", default="cpu", metavar="NAME", help="cpu, cuda:0, opencl:0 or gpusim"
    )


def _add_plugins(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.py",
        help="Python file that defines passes or ops",
    )


def _add_static(
    parser: argparse.ArgumentParser,
    example: str = "n=64",
    text: str = "fix a size; others stay arguments of each call",
) -> None:
    parser.add_argument("--static", action="append", default=[], metavar=example, help=text)


if __name__ == "__main__":
    sys.exit(main())
