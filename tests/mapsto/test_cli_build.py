"""`mapsto build` and `mt.build`: libraries that C programs use."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cli_harness import Workspace
from llvmlite import binding

import mapsto.library
from mapsto.artifacts import build, library_name
from mapsto.runtime.errors import ArtifactError
from mapsto.specs import f32

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")

READER = """
module Reader():
    cell = LSTM(24)
    head = Dense(40)

    map (x: f32[n, t, d]) -> f32[n, 40]:
        let (hidden, _, _) = cell(x)
        head(hidden[:, -1])
"""
X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)

FORWARD = r"""
#include "model.h"
#include <stdio.h>

int main(void) {
    float x[20], y[15];
    if (fread(x, sizeof(float), 20, stdin) != 20) return 1;
    if (model_forward(5, x, 20, y, 15, NULL, 0)) return 2;
    if (fwrite(y, sizeof(float), 15, stdout) != 15) return 3;
    if (model_forward(5, NULL, 20, y, 15, NULL, 0) != 100) return 4;
    if (model_forward(0, x, 0, y, 0, NULL, 0) != 101) return 5;
    if (model_forward(4, x, 20, y, 15, NULL, 0) != 102) return 6;
    if (!model_error_message(102)[0]) return 7;
    return 0;
}
"""

STEP = r"""
#include "model.h"
#include <stdio.h>

int main(void) {
    static float x[20], y[15], result[15];
    float loss, error;
    model_model *model;
    int64_t elements;
    if (fread(x, sizeof(float), 20, stdin) != 20) return 1;
    if (fread(y, sizeof(float), 15, stdin) != 15) return 1;
    if (model_create(&model)) return 2;
    for (int i = 0; i < 3; i++)
        if (model_step(model, x, 20, y, 15, &loss, 1, NULL, 0)) return 3;
    fwrite(&loss, sizeof loss, 1, stdout);
    fwrite(model_array(model, "layer.w", &elements), sizeof(float), 12, stdout);
    if (elements != 12) return 4;
    if (model_evaluate(model, x, 20, y, 15, &loss, 1, &error, 1, NULL, 0)) return 5;
    fwrite(&loss, sizeof loss, 1, stdout);
    fwrite(&error, sizeof error, 1, stdout);
    if (model_forward(model, x, 20, result, 15, NULL, 0)) return 6;
    fwrite(result, sizeof(float), 15, stdout);
    model_destroy(model);
    return 0;
}
"""


TOGETHER = r"""
#define _POSIX_C_SOURCE 200809L
#include "model.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 5, X = N * 6 * 20, Y = N * 40, GUARD = 64 };
static float x[X], y[4][Y];

/* Calls in just the workspace that is asked for. */
static void *caller(void *out) {
    int64_t bytes = model_forward_workspace_bytes(N);
    unsigned char *memory = malloc((size_t)bytes + GUARD);
    memset(memory + bytes, 0xA5, GUARD);
    if (model_forward(N, x, X, out, Y, memory, bytes)) exit(2);
    for (int i = 0; i < GUARD; i++) if (memory[bytes + i] != 0xA5) exit(3);
    free(memory);
    return NULL;
}

int main(void) {
    pthread_t threads[4];
    if (fread(x, sizeof(float), X, stdin) != X) return 1;
    for (int t = 0; t < 4; t++) pthread_create(&threads[t], NULL, caller, y[t]);
    for (int t = 0; t < 4; t++) pthread_join(threads[t], NULL);
    caller(y[3]);
    fwrite(y, sizeof y, 1, stdout);
    return 0;
}
"""


def run_c(folder: Path, source: str, data: bytes) -> bytes:
    """What a C program that uses `libmodel.so` writes."""
    folder.joinpath("main.c").write_text(source)
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    files = ["main.c", "libmodel.so", "-o", "main", f"-Wl,-rpath,{folder}", "-lpthread"]
    subprocess.run([str(COMPILER), *strict, *files], check=True, cwd=folder)
    return subprocess.run(
        [str(folder / "main")], input=data, capture_output=True, check=True
    ).stdout


@needs_compiler
def test_a_module_from_c(workspace: Workspace) -> None:
    net = mapsto.library.load("program.mto").Linear(seed=3)
    expected = net(X)
    net.save("w.safetensors")
    command = ("build", "program.mto:Linear", "-o", "libmodel.so", "--weights", "w.safetensors")
    outcome = workspace.run(*command)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (
        "wrote libmodel.so and model.h: model_forward(x: f32[n, 4]) -> f32[n, 3]\n"
    )
    assert run_c(workspace.folder, FORWARD, X.tobytes()) == expected.tobytes()
    assert "A dense layer." in workspace.folder.joinpath("model.h").read_text()


@needs_compiler
def test_weights_are_laid_out_by_the_first_of_several_callers(workspace: Workspace) -> None:
    workspace.folder.joinpath("reader.mto").write_text(READER)
    net = mapsto.library.load("reader.mto").Reader(seed=3)
    x = np.random.default_rng(0).normal(size=(5, 6, 20)).astype(np.float32)
    expected = net(x)
    build(net, "libmodel.so", x=f32["n", 6, 20])
    assert "lays out the weights" in workspace.folder.joinpath("model.h").read_text()
    found = np.frombuffer(run_c(workspace.folder, TOGETHER, x.tobytes()), np.float32)
    for result in found.reshape(4, 5, 40):
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
        assert np.array_equal(result, found[:200].reshape(5, 40))


@needs_compiler
def test_a_training_step_from_c(workspace: Workspace) -> None:
    run = mapsto.library.load("program.mto").Fit(seed=3)
    losses = [run.step(x=X, y=Y) for _ in range(3)]
    figures = run.evaluate(x=X, y=Y)
    expected = [
        np.float32(losses[-1]),
        run.net.params["layer.w"],
        np.float32(figures["loss"]),
        np.float32(figures["error"]),
        run.net(X),
    ]
    target = "program.mto:Fit.step,Fit.evaluate,Fit.net"
    # Python compiles a step for the batch at hand; sums over a batch of open size go another way.
    sizes = ("--static", "d=4", "--static", "n=5")
    command = ("build", target, "-o", "libmodel.so", "--seed", "3", *sizes)
    assert workspace.run(*command).code == 0
    found = run_c(workspace.folder, STEP, X.tobytes() + Y.tobytes())
    assert found == b"".join(part.tobytes() for part in expected)


@needs_compiler
@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf")
def test_libraries_need_the_c_library_only(workspace: Workspace) -> None:
    for target in ("program.mto:scale", "program.mto:Fit.step"):
        assert workspace.run("build", target, "-o", "libmodel.so").code == 0
        command = ["readelf", "-d", "libmodel.so"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        needed = re.findall(r"NEEDED.*\[(.*)\]", text)
        assert {name.split(".")[0] for name in needed} <= {"libc", "libm"}


@needs_compiler
def test_build_from_python(workspace: Workspace) -> None:
    library = mapsto.library.load("program.mto")
    net = library.Linear(seed=7)
    build(net, "libmodel.so", x=f32["n", 4])
    assert run_c(workspace.folder, FORWARD, X.tobytes()) == net(X).tobytes()
    run = library.Fit()
    build(run, "libfit.so", header="include.h", x=f32["n", 4], y=f32["n", 3])
    assert "fit_step(fit_model *model" in workspace.folder.joinpath("include.h").read_text()
    build(library.scale, "scale.ll", x=f32[8, 8])
    assert not workspace.folder.joinpath("scale.h").exists()
    with pytest.raises(ArtifactError, match=r"should end in one of \.so"):
        build(net, "model.dll", x=f32["n", 4])


def test_other_forms(workspace: Workspace) -> None:
    assert workspace.run("build", "program.mto:scale", "-o", "scale.ll").code == 0
    text = workspace.folder.joinpath("scale.ll").read_text()
    binding.parse_assembly(text).verify()
    assert "@scale_scale(" in text
    assert workspace.run("build", "program.mto:scale", "-o", "scale.s").code == 0
    assert "scale_scale" in workspace.folder.joinpath("scale.s").read_text()
    command = ("build", "program.mto:scale", "-o", "libx.o", "--header", "y.h")
    outcome = workspace.run(*command)
    assert outcome.out.startswith("wrote libx.o and y.h: x_scale(x: f32[n, d]) -> f32[n, d]")
    assert workspace.folder.joinpath("libx.o").read_bytes().startswith(b"\x7fELF")
    assert "#ifndef X_H" in workspace.folder.joinpath("y.h").read_text()


def test_other_targets(workspace: Workspace) -> None:
    command = ("build", "program.mto:Linear", "--static", "d=4", "--target")
    assert workspace.run(*command, "aarch64-linux-gnu", "-o", "model.s").code == 0
    assert "stp\tx29" in workspace.folder.joinpath("model.s").read_text()
    workspace.fails(*command, "no-such-target", "-o", "m.s", says="there is no target")


def test_external_weights(workspace: Workspace) -> None:
    command = ("build", "program.mto:Linear", "--static", "d=4", "--external", "-o", "libmodel.o")
    outcome = workspace.run(*command)
    assert (outcome.code, outcome.err) == (0, "")
    header = workspace.folder.joinpath("model.h").read_text()
    assert "model_load(const char *path" in header
    assert "model_create" not in header


def test_wrong_builds(workspace: Workspace) -> None:
    target = ("build", "program.mto:Linear", "--static", "d=4", "-o")
    workspace.fails(*target, "model", says="model: the name of the output should end in one of .so")
    workspace.fails(*target, "none/m.o", says="none/m.o: cannot be written")
    workspace.fails("build", "program.mto:Linear", "-o", "m.o", says="give --static d=64")
    workspace.fails("build", "program.mto:Linear,Fit", "-o", "m.o", says="different parameters")
    text = "map f(x: f32[2*n]) -> f32[2*n]:\n    x\n"
    workspace.write("double.mto", text)
    workspace.fails(
        "build", "double.mto:f", "-o", "m.o", says="no argument says what the size n is"
    )
    assert not list(workspace.folder.glob("*.o"))


def test_without_a_linker(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mapsto.runtime.native._c_compiler", list)
    monkeypatch.setattr("mapsto.runtime.native._zig", lambda: None)
    message = workspace.fails("build", "program.mto:scale", "-o", "m.so", says="needs a linker")
    assert "pip install ziglang" in message


def test_names_of_libraries() -> None:
    names = {
        "libdigits.so": "digits",
        "a/net.o": "net",
        "lib.so": "lib",
        "my-net.so": "my_net",
        "2.o": "a2",
    }
    assert {path: library_name(Path(path)) for path in names} == names
