; How many threads the pool may use: MAPSTO_NUM_THREADS, else the processors of the process, until
; mapsto_set_threads says otherwise.  A part of thread_pool.ll.

@mapsto.pool.threads = internal global i64 0          ; wanted, the caller included; 0: not yet read
@mapsto.pool.limit = internal global i64 0            ; constant once set; 0: not yet read
@mapsto.pool.variable = internal constant [19 x i8] c"MAPSTO_NUM_THREADS\00"
@mapsto.pool.group = internal constant [23 x i8] c"/sys/fs/cgroup/cpu.max\00"

declare i32 @open(ptr, i32, ...)
declare i64 @read(i32, ptr, i64)
declare i32 @close(i32)
declare i32 @sched_getaffinity(i32, i64, ptr)
declare ptr @getenv(ptr)
declare i64 @strtol(ptr, ptr, i32)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare i64 @llvm.ctpop.i64(i64)
declare i64 @llvm.umax.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)

define i64 @mapsto_threads() {
  %known = load atomic i64, ptr @mapsto.pool.threads monotonic, align 8
  %set = icmp ne i64 %known, 0
  br i1 %set, label %done, label %read
read:
  call void @mapsto.pool.configure()
  %fresh = load atomic i64, ptr @mapsto.pool.threads monotonic, align 8
  br label %done
done:
  %threads = phi i64 [ %known, %0 ], [ %fresh, %read ]
  ret i64 %threads
}

define i64 @mapsto_worker_limit() {
  %threads = call i64 @mapsto_threads()
  %limit = load atomic i64, ptr @mapsto.pool.limit monotonic, align 8
  ret i64 %limit
}

define void @mapsto_set_threads(i64 %wanted) {
  %limit = call i64 @mapsto_worker_limit()
  %low = call i64 @llvm.smax.i64(i64 %wanted, i64 1)
  %threads = call i64 @llvm.smin.i64(i64 %low, i64 %limit)
  store atomic i64 %threads, ptr @mapsto.pool.threads monotonic, align 8
  ret void
}

; The limit is set first and never changes: whoever sees the number of threads sees the limit.
define internal void @mapsto.pool.configure() noinline {
  %cpus = call i64 @mapsto.pool.cpus()
  %asked = call i64 @mapsto.pool.environment()
  %floor = call i64 @llvm.smax.i64(i64 %cpus, i64 8)
  %most = call i64 @llvm.smax.i64(i64 %floor, i64 %asked)
  %limit = call i64 @llvm.smin.i64(i64 %most, i64 256)
  %given = icmp sgt i64 %asked, 0
  %wanted = select i1 %given, i64 %asked, i64 %cpus
  %threads = call i64 @llvm.smin.i64(i64 %wanted, i64 %limit)
  store atomic i64 %limit, ptr @mapsto.pool.limit monotonic, align 8
  %won = cmpxchg ptr @mapsto.pool.threads, i64 0, i64 %threads seq_cst monotonic
  ret void
}

; MAPSTO_NUM_THREADS, or 0 where it is absent or no positive number.
define internal i64 @mapsto.pool.environment() {
  %text = call ptr @getenv(ptr @mapsto.pool.variable)
  %absent = icmp eq ptr %text, null
  br i1 %absent, label %none, label %parse
parse:
  %number = call i64 @strtol(ptr %text, ptr null, i32 10)
  %positive = call i64 @llvm.smax.i64(i64 %number, i64 0)
  ret i64 %positive
none:
  ret i64 0
}

; The number of processors that this process may use; 1 where the system does not say.
define internal i64 @mapsto.pool.cpus() {
  %mask = alloca [128 x i64], align 16
  call void @llvm.memset.p0.i64(ptr %mask, i8 0, i64 1024, i1 false)
  %status = call i32 @sched_getaffinity(i32 0, i64 1024, ptr %mask)
  br label %count
count:
  %i = phi i64 [ 0, %0 ], [ %next, %count ]
  %sum = phi i64 [ 0, %0 ], [ %total, %count ]
  %word.ptr = getelementptr i64, ptr %mask, i64 %i
  %word = load i64, ptr %word.ptr, align 8
  %bits = call i64 @llvm.ctpop.i64(i64 %word)
  %total = add i64 %sum, %bits
  %next = add i64 %i, 1
  %last = icmp eq i64 %next, 128
  br i1 %last, label %done, label %count
done:
  %usable = call i64 @llvm.umax.i64(i64 %total, i64 1)
  %quota = call i64 @mapsto.pool.quota()
  %cpus = call i64 @llvm.smin.i64(i64 %usable, i64 %quota)
  ret i64 %cpus
}

; The processors that the control group allows, rounded up: its file says "max 100000" or
; "150000 100000", time and period.  A large number where there is no limit.
define internal i64 @mapsto.pool.quota() {
  %text = alloca [64 x i8], align 16
  %rest = alloca ptr, align 8
  call void @llvm.memset.p0.i64(ptr %text, i8 0, i64 64, i1 false)
  %file = call i32 (ptr, i32, ...) @open(ptr @mapsto.pool.group, i32 524288) ; close on exec
  %absent = icmp slt i32 %file, 0
  br i1 %absent, label %free, label %read
read:
  %length = call i64 @read(i32 %file, ptr %text, i64 63)
  %closed = call i32 @close(i32 %file)
  %time = call i64 @strtol(ptr %text, ptr %rest, i32 10)
  %second = load ptr, ptr %rest, align 8
  %period = call i64 @strtol(ptr %second, ptr null, i32 10)
  %some = icmp sgt i64 %time, 0
  %regular = icmp sgt i64 %period, 0
  %limited = and i1 %some, %regular
  br i1 %limited, label %divide, label %free
divide:
  %less = sub i64 %time, 1
  %whole = sdiv i64 %less, %period
  %cpus = add i64 %whole, 1
  ret i64 %cpus
free:
  ret i64 1048576
}
