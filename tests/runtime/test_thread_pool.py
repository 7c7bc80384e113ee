"""The fork-join pool: every index once, whoever calls, however many threads, and after a fork."""

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from llvmlite import binding

from mapsto.lowering.cpu.machine import Machine
from mapsto.runtime import threads as threads_module
from mapsto.runtime.code_generation import emit_object
from mapsto.runtime.jit import CompiledModule, compile_module, pool_address
from mapsto.runtime.thread_pool import MAX_WORKERS, pool_text

TASKS = """
declare void @mapsto_parallel_for(ptr, ptr, i64)

; counters[i] += 1 for each index, workers[i] = worker
define internal void @count(ptr %closure, i64 %i, i64 %worker) {
  %at = getelementptr { i64, i64 }, ptr %closure, i64 %i
  %before = atomicrmw add ptr %at, i64 1 monotonic
  %who = getelementptr { i64, i64 }, ptr %closure, i64 %i, i32 1
  store i64 %worker, ptr %who
  ret void
}

define void @run(ptr %closure, i64 %count) {
  call void @mapsto_parallel_for(ptr @count, ptr %closure, i64 %count)
  ret void
}

; 4 regions of 5 inside each index of a region, on its own row; workers must keep their number
define internal void @outer(ptr %closure, i64 %i, i64 %worker) {
  %row = getelementptr [5 x { i64, i64 }], ptr %closure, i64 %i
  call void @mapsto_parallel_for(ptr @count, ptr %row, i64 5)
  %inner = getelementptr { i64, i64 }, ptr %row, i64 0, i32 1
  %seen = load i64, ptr %inner
  %differs = sub i64 %seen, %worker
  store i64 %differs, ptr %inner
  ret void
}

define void @nested(ptr %closure, i64 %count) {
  call void @mapsto_parallel_for(ptr @outer, ptr %closure, i64 %count)
  ret void
}
"""


@pytest.fixture(scope="module")
def tasks() -> CompiledModule:
    return compile_module(TASKS, Machine.host())


@pytest.fixture(params=[1, 2, 3, 8])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = pool_function("mapsto_threads", ctypes.c_int64)()
    pool_function("mapsto_set_threads", None, ctypes.c_int64)(request.param)
    yield request.param
    pool_function("mapsto_set_threads", None, ctypes.c_int64)(before)


def pool_function(name: str, result: object, *arguments: object) -> ctypes._CFuncPtr:
    return ctypes.CFUNCTYPE(result, *arguments)(pool_address(name))


def runner(module: CompiledModule, name: str) -> ctypes._CFuncPtr:
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(module.address(name))


@pytest.mark.parametrize("count", [-1, 0, 1, 2, 3, 7, 64, 1000])
def test_every_index_runs_once(tasks: CompiledModule, threads: int, count: int) -> None:
    cells = np.zeros((1001, 2), np.int64)
    for _ in range(50):
        runner(tasks, "run")(cells.ctypes.data, count)
    assert (cells[: max(count, 0), 0] == 50).all()
    assert (cells[max(count, 0) :] == 0).all()
    assert cells[:, 1].max() < threads


def test_callers_from_several_threads(tasks: CompiledModule, threads: int) -> None:
    cells = np.zeros((4, 60, 2), np.int64)

    def call(own: np.ndarray) -> None:
        for _ in range(200):
            runner(tasks, "run")(own.ctypes.data, 60)

    callers = [threading.Thread(target=call, args=(own,)) for own in cells]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert (cells[..., 0] == 200).all()


def test_nested_regions_keep_the_worker(tasks: CompiledModule, threads: int) -> None:
    cells = np.zeros((64, 5, 2), np.int64)
    for _ in range(20):
        runner(tasks, "nested")(cells.ctypes.data, 64)
    assert (cells[..., 0] == 20).all()
    assert (cells[:, 0, 1] == 0).all()


def test_settings_are_clamped() -> None:
    limit = pool_function("mapsto_worker_limit", ctypes.c_int64)()
    get = pool_function("mapsto_threads", ctypes.c_int64)
    set_threads = pool_function("mapsto_set_threads", None, ctypes.c_int64)
    before = get()
    assert 8 <= limit <= MAX_WORKERS
    for wanted, expected in [(0, 1), (-5, 1), (2, 2), (10**9, limit)]:
        set_threads(wanted)
        assert get() == expected
    set_threads(before)


def test_threads_from_python() -> None:
    before = threads_module.threads()
    threads_module.set_threads(2)
    assert threads_module.threads() == 2
    threads_module.set_threads(2**80)
    assert threads_module.threads() <= MAX_WORKERS
    threads_module.set_threads(before)
    with pytest.raises(ValueError, match="positive"):
        threads_module.set_threads(0)


@pytest.mark.parametrize(
    ("value", "threads"), [("3", 3), ("1", 1), ("0", None), ("many", None), ("1000", MAX_WORKERS)]
)
def test_environment_sets_the_number_of_threads(value: str, threads: int | None) -> None:
    script = (
        "import ctypes; from mapsto.runtime.jit import pool_address;"
        "print(ctypes.CFUNCTYPE(ctypes.c_int64)(pool_address('mapsto_threads'))())"
    )
    environment = {**os.environ, "MAPSTO_NUM_THREADS": value}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == (threads or usable_processors())


def usable_processors() -> int:
    """The processors of the affinity mask, at most what the control group allows."""
    count, group = len(os.sched_getaffinity(0)), Path("/sys/fs/cgroup/cpu.max")
    time, _, period = group.read_text().partition(" ") if group.exists() else ("max", "", "")
    return count if time == "max" else min(count, -(-int(time) // int(period)))


@pytest.mark.parametrize(
    ("content", "most"),
    [
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("max 100000", 10**6),
        ("0 100000", 10**6),
        ("", 10**6),
        ("5000000 1000", 5000),
    ],
)
def test_the_control_group_limits_threads(tmp_path: Path, content: str, most: int) -> None:
    group = tmp_path / "cpu.max"
    group.write_text(content)
    usual = '[23 x i8] c"/sys/fs/cgroup/cpu.max\\00"'
    text = pool_text(Machine.host().triple)
    assert usual in text
    text = text.replace(usual, f'[{len(str(group)) + 1} x i8] c"{group}\\00"')
    text = text.replace("MAPSTO_NUM_THREADS", "MAPSTO_NUM_HTREADS")
    module = compile_module(text, Machine.host(), "none")
    threads = ctypes.CFUNCTYPE(ctypes.c_int64)(module.address("mapsto_threads"))()
    assert threads == min(len(os.sched_getaffinity(0)), most)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_forked_children_have_pools_of_their_own() -> None:
    script = f"""
import ctypes, os
import numpy as np
from mapsto.lowering.cpu.machine import Machine
from mapsto.runtime.jit import compile_module, pool_address
module = compile_module({TASKS!r}, Machine.host())
run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(module.address("run"))
ctypes.CFUNCTYPE(None, ctypes.c_int64)(pool_address("mapsto_set_threads"))(3)
cells = np.zeros((100, 2), np.int64)
run(cells.ctypes.data, 100)
child = os.fork() or os.fork()  # a child has a child too, whose number for it is 0
for _ in range(100):
    run(cells.ctypes.data, 100)
threads = len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 3
good = (cells[:, 0] == 101).all() and threads >= 3
if child:
    good &= os.waitpid(child, 0)[1] == 0
os._exit(0 if good else 1)
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == 0


def test_one_thread_starts_none() -> None:
    script = f"""
import ctypes, os
import numpy as np
from mapsto.lowering.cpu.machine import Machine
from mapsto.runtime.jit import compile_module
run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(
    compile_module({TASKS!r}, Machine.host()).address("run"))
cells = np.zeros((100, 2), np.int64)
before = len(os.listdir("/proc/self/task"))
run(cells.ctypes.data, 100)
raise SystemExit(len(os.listdir("/proc/self/task")) - before)
"""
    environment = {**os.environ, "MAPSTO_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == 0


@pytest.mark.parametrize(
    ("triple", "threaded"),
    [
        ("x86_64-unknown-linux-gnu", True),
        ("aarch64-unknown-linux-gnu", True),
        ("riscv64-unknown-linux-gnu", True),
        ("wasm32-unknown-unknown", False),
        ("x86_64-apple-darwin", False),
    ],
)
def test_text_compiles_for_other_targets(triple: str, threaded: bool) -> None:
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    text = pool_text(triple)
    assert ("pthread_create" in text) == threaded
    machine = Machine.named("generic", triple)
    assert b"mapsto_parallel_for" in emit_object(text, machine)
