; What every Python entry point shares: the arena, the call, errors, the end of a context.
;
; A context is an array of words behind a capsule, the `self` of the Python function:
;   0 entry   1 arena_bytes   2 arena   3 its capacity   4 lock (i32)
;   5 on_error (a Python callable that raises)   6 what keeps all of it alive   7.. bound buffers
;   and behind them their sizes in bytes, then the address of what was prepared for all calls

@numpy.ndarray = external global i8

declare ptr @numpy.PyArray_NewFromDescr(ptr, ptr, i32, ptr, ptr, ptr, i32, ptr)
declare ptr @PyCapsule_GetPointer(ptr, ptr)
declare ptr @PyLong_FromLong(i64)
declare ptr @PyObject_CallOneArg(ptr, ptr)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
declare i32 @sched_yield()
declare i64 @llvm.smax.i64(i64, i64)

; A new uninitialized array, or null with a Python exception.
define ptr @mapsto.new_array(ptr %descriptor, i32 %rank, ptr %dims) {
  call void @Py_IncRef(ptr %descriptor)
  %array = call ptr @numpy.PyArray_NewFromDescr(ptr @numpy.ndarray, ptr %descriptor, i32 %rank, ptr %dims, ptr null, ptr null, i32 0, ptr null)
  ret ptr %array
}

; Runs the program in the context's arena.  A call that finds the arena in use waits for it if it
; must be exclusive, and else takes memory of its own.  Needs no GIL.
define i32 @mapsto.run(ptr %context, ptr %buffers, ptr %dims, i1 %exclusive) {
  %entry = load ptr, ptr %context, align 8
  %bytes.ptr = getelementptr i64, ptr %context, i64 1
  %arena_bytes = load ptr, ptr %bytes.ptr, align 8
  %bytes = call i64 %arena_bytes(ptr %dims)
  %overflow = icmp slt i64 %bytes, 0
  br i1 %overflow, label %exhausted, label %try
try:
  %lock = getelementptr i64, ptr %context, i64 4
  %swap = cmpxchg ptr %lock, i32 0, i32 1 acquire monotonic
  %locked = extractvalue { i32, i1 } %swap, 1
  br i1 %locked, label %owned, label %busy
busy:
  br i1 %exclusive, label %wait, label %temporary
wait:
  %yielded = call i32 @sched_yield()
  br label %try
owned:
  %arena = call ptr @mapsto.reserve(ptr %context, i64 %bytes)
  %none = icmp eq ptr %arena, null
  br i1 %none, label %unlock, label %call
call:
  %result = call i32 %entry(ptr %buffers, ptr %dims, ptr %arena)
  br label %unlock
unlock:
  %code = phi i32 [ 2, %owned ], [ %result, %call ]
  store atomic i32 0, ptr %lock release, align 4
  ret i32 %code
temporary:
  %memory = call ptr @mapsto.allocate(i64 %bytes)
  %missing = icmp eq ptr %memory, null
  br i1 %missing, label %exhausted, label %apart
apart:
  %status = call i32 %entry(ptr %buffers, ptr %dims, ptr %memory)
  call void @free(ptr %memory)
  ret i32 %status
exhausted:
  ret i32 2
}

; Whether the memory from %start to %end overlaps none of the bound buffers.
define i1 @mapsto.is_apart(ptr %context, i64 %count, ptr %start, ptr %end) {
  %buffers = getelementptr i64, ptr %context, i64 7
  %sizes = getelementptr i64, ptr %buffers, i64 %count
  br label %loop
loop:
  %i = phi i64 [ 0, %0 ], [ %next, %inside ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %inside, label %apart
inside:
  %buffer.ptr = getelementptr ptr, ptr %buffers, i64 %i
  %buffer = load ptr, ptr %buffer.ptr, align 8
  %size.ptr = getelementptr i64, ptr %sizes, i64 %i
  %size = load i64, ptr %size.ptr, align 8
  %buffer.end = getelementptr i8, ptr %buffer, i64 %size
  %before = icmp ule ptr %end, %buffer
  %behind = icmp ule ptr %buffer.end, %start
  %fine = or i1 %before, %behind
  %next = add i64 %i, 1
  br i1 %fine, label %loop, label %overlaps
overlaps:
  ret i1 false
apart:
  ret i1 true
}

; The context's arena, replaced by a larger one if it is too small; null if there is no memory.
define internal ptr @mapsto.reserve(ptr %context, i64 %bytes) {
  %arena.ptr = getelementptr i64, ptr %context, i64 2
  %capacity.ptr = getelementptr i64, ptr %context, i64 3
  %arena = load ptr, ptr %arena.ptr, align 8
  %capacity = load i64, ptr %capacity.ptr, align 8
  %enough = icmp sle i64 %bytes, %capacity
  %present = icmp ne ptr %arena, null
  %usable = and i1 %enough, %present
  br i1 %usable, label %keep, label %grow
keep:
  ret ptr %arena
grow:
  call void @free(ptr %arena)
  %new = call ptr @mapsto.allocate(i64 %bytes)
  %failed = icmp eq ptr %new, null
  %size = select i1 %failed, i64 0, i64 %bytes
  store ptr %new, ptr %arena.ptr, align 8
  store i64 %size, ptr %capacity.ptr, align 8
  ret ptr %new
}

define internal ptr @mapsto.allocate(i64 %bytes) {
  %some = call i64 @llvm.smax.i64(i64 %bytes, i64 64)
  %more = add i64 %some, 63
  %size = and i64 %more, -64
  %memory = call ptr @aligned_alloc(i64 64, i64 %size)
  ret ptr %memory
}

; Raises the Python exception for an error code; returns null.
define ptr @mapsto.fail(ptr %context, i32 %code) {
  %handler.ptr = getelementptr i64, ptr %context, i64 5
  %handler = load ptr, ptr %handler.ptr, align 8
  %wide = sext i32 %code to i64
  %number = call ptr @PyLong_FromLong(i64 %wide)
  %missing = icmp eq ptr %number, null
  br i1 %missing, label %done, label %call
call:
  %result = call ptr @PyObject_CallOneArg(ptr %handler, ptr %number)
  call void @Py_DecRef(ptr %number)
  br label %done
done:
  ret ptr null
}

; The capsule's destructor.
define void @mapsto.destroy(ptr %capsule) {
  %context = call ptr @PyCapsule_GetPointer(ptr %capsule, ptr null)
  %arena.ptr = getelementptr i64, ptr %context, i64 2
  %arena = load ptr, ptr %arena.ptr, align 8
  call void @free(ptr %arena)
  %owner.ptr = getelementptr i64, ptr %context, i64 6
  %owner = load ptr, ptr %owner.ptr, align 8
  call void @Py_DecRef(ptr %owner)
  ret void
}
