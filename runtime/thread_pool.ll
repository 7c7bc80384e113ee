; A fork-join thread pool for Linux, linked into every compiled program.  It needs nothing but libc.
;
; Protocol.  A region is one call of mapsto_parallel_for.  Its caller takes the lock, gives each
; participant w a cursor over the range [count*w/P, count*(w+1)/P), publishes the task, and bumps the
; generation.  A participant claims an index by compare-and-swap on a cursor, its own first and then
; the others' (so a worker that sleeps or is descheduled delays nobody: the rest is stolen from it).
; A cursor holds the generation in its upper half: a claim can only succeed while its region runs,
; so a late worker that read fields of a newer region never acts on them.  The order of stores that
; this needs: all cursors, then the region's fields, then the generation.
; `remaining` counts the indices not yet finished; the caller leaves when it is 0.
;
; Waiting spins with a pause for some tens of microseconds, then sleeps on a futex.  A second caller
; (another user thread, or a task that calls again) finds the lock taken and runs its region alone.
; After fork() the child starts workers of its own.
;
; thread_pool.py adds thread_settings.ll, and for each architecture @mapsto.relax() and
; @mapsto.futex (its syscall number).

@mapsto.pool.lock = internal global i32 0, align 128
@mapsto.pool.owner = internal global i32 0            ; process whose threads the workers are
@mapsto.pool.page = internal global ptr null, align 8 ; where the mark is; null: there is none
@mapsto.pool.started = internal global i64 0          ; workers, the caller not included
@mapsto.pool.handles = internal global [256 x i64] zeroinitializer, align 64
@mapsto.pool.cursors = internal global [256 x [8 x i64]] zeroinitializer, align 128
; task, closure, count, participants
@mapsto.pool.region = internal global { ptr, ptr, i64, i64 } zeroinitializer, align 128
@mapsto.pool.generation = internal global i32 0, align 128
@mapsto.pool.sleepers = internal global i32 0, align 128
@mapsto.pool.remaining = internal global i32 0, align 128
@mapsto.pool.waiting = internal global i32 0, align 128

declare i64 @syscall(i64, ...)
declare i32 @getpid()
declare ptr @mmap(ptr, i64, i32, i32, i32, i64)
declare i32 @munmap(ptr, i64)
declare i32 @madvise(ptr, i64, i32)
declare i64 @pthread_self()
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(i64)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @sigfillset(ptr)

; ---- the caller

define void @mapsto_parallel_for(ptr %task, ptr %closure, i64 %count) {
  %threads = call i64 @mapsto_threads()
  %wanted = call i64 @llvm.smin.i64(i64 %threads, i64 %count)
  %several = icmp sgt i64 %wanted, 1
  %countable = icmp slt i64 %count, 2147483647
  %parallel = and i1 %several, %countable
  br i1 %parallel, label %own, label %alone
own:
  %owned = call i1 @mapsto.pool.adopt()
  br i1 %owned, label %acquire, label %alone
acquire:
  %swap = cmpxchg ptr @mapsto.pool.lock, i32 0, i32 1 acquire monotonic
  %locked = extractvalue { i32, i1 } %swap, 1
  br i1 %locked, label %start, label %alone
start:
  %available = call i64 @mapsto.pool.start(i64 %wanted)
  %participants = call i64 @llvm.smin.i64(i64 %wanted, i64 %available)
  %together = icmp sgt i64 %participants, 1
  br i1 %together, label %run, label %release
run:
  call void @mapsto.pool.run(ptr %task, ptr %closure, i64 %count, i64 %participants)
  store atomic i32 0, ptr @mapsto.pool.lock release, align 4
  ret void
release:
  store atomic i32 0, ptr @mapsto.pool.lock release, align 4
  br label %alone
alone:
  call void @mapsto.pool.sequential(ptr %task, ptr %closure, i64 %count)
  ret void
}

define internal void @mapsto.pool.sequential(ptr %task, ptr %closure, i64 %count) {
  %worker = call i64 @mapsto.pool.current()
  %some = icmp sgt i64 %count, 0
  br i1 %some, label %loop, label %done
loop:
  %i = phi i64 [ 0, %0 ], [ %next, %loop ]
  call void %task(ptr %closure, i64 %i, i64 %worker)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %done
done:
  ret void
}

; The worker that this thread is: inside a task it keeps its number, so that a nested region does
; not share another worker's scratch memory.
define internal i64 @mapsto.pool.current() {
  %busy = load atomic i32, ptr @mapsto.pool.lock monotonic, align 4
  %idle = icmp eq i32 %busy, 0
  br i1 %idle, label %caller, label %look
look:
  %self = call i64 @pthread_self()
  %started = load atomic i64, ptr @mapsto.pool.started monotonic, align 8
  br label %loop
loop:
  %worker = phi i64 [ 1, %look ], [ %next, %compare ]
  %more = icmp sle i64 %worker, %started
  br i1 %more, label %compare, label %caller
compare:
  %handle.ptr = getelementptr i64, ptr @mapsto.pool.handles, i64 %worker
  %handle = load atomic i64, ptr %handle.ptr monotonic, align 8
  %same = icmp eq i64 %handle, %self
  %next = add i64 %worker, 1
  br i1 %same, label %found, label %loop
found:
  ret i64 %worker
caller:
  ret i64 0
}

; Whether the pool belongs to this process.  Its mark says so, which is gone in a child of fork();
; where there is none, the process id tells, for which the kernel has to be asked.
define internal i1 @mapsto.pool.adopt() {
  %page = load atomic ptr, ptr @mapsto.pool.page acquire, align 8
  %absent = icmp eq ptr %page, null
  br i1 %absent, label %ask, label %read
read:
  %mark = load atomic i8, ptr %page acquire, align 1
  %marked = icmp ne i8 %mark, 0
  br i1 %marked, label %yes, label %ask
ask:
  %claimed = call i1 @mapsto.pool.claim()
  ret i1 %claimed
yes:
  ret i1 true
}

; The same by the process id; a child takes over with no workers.  -1 marks a takeover in progress.
define internal i1 @mapsto.pool.claim() noinline {
  %process = call i32 @getpid()
  %owner = load atomic i32, ptr @mapsto.pool.owner acquire, align 4
  %mine = icmp eq i32 %owner, %process
  br i1 %mine, label %yes, label %claim
claim:
  %pending = icmp eq i32 %owner, -1
  br i1 %pending, label %no, label %exchange
exchange:
  %swap = cmpxchg ptr @mapsto.pool.owner, i32 %owner, i32 -1 acquire monotonic
  %won = extractvalue { i32, i1 } %swap, 1
  br i1 %won, label %reset, label %no
reset:
  store atomic i64 0, ptr @mapsto.pool.started monotonic, align 8
  store atomic i32 0, ptr @mapsto.pool.sleepers monotonic, align 4
  store atomic i32 0, ptr @mapsto.pool.waiting monotonic, align 4
  store atomic i32 0, ptr @mapsto.pool.lock monotonic, align 4
  call void @mapsto.pool.mark()
  store atomic i32 %process, ptr @mapsto.pool.owner release, align 4
  br label %yes
yes:
  ret i1 true
no:
  ret i1 false
}

; Sets the mark, on a page of its own that the kernel clears in children (MADV_WIPEONFORK, 18; since
; Linux 4.14).  Where it does not know that, there is no page.
define internal void @mapsto.pool.mark() {
  %known = load atomic ptr, ptr @mapsto.pool.page acquire, align 8
  %absent = icmp eq ptr %known, null
  br i1 %absent, label %create, label %set
create:
  %new = call ptr @mmap(ptr null, i64 4096, i32 3, i32 34, i32 -1, i64 0) ; private, anonymous
  %failed = icmp eq ptr %new, inttoptr (i64 -1 to ptr)
  br i1 %failed, label %done, label %advise
advise:
  %status = call i32 @madvise(ptr %new, i64 4096, i32 18)
  %cleared = icmp eq i32 %status, 0
  br i1 %cleared, label %publish, label %remove
publish:
  store atomic i8 1, ptr %new release, align 1
  store atomic ptr %new, ptr @mapsto.pool.page release, align 8
  br label %done
remove:
  %removed = call i32 @munmap(ptr %new, i64 4096)
  br label %done
set:
  store atomic i8 1, ptr %known release, align 1
  br label %done
done:
  ret void
}

define internal void @mapsto.pool.run(ptr %task, ptr %closure, i64 %count, i64 %participants) {
  %old = load atomic i32, ptr @mapsto.pool.generation monotonic, align 4
  %generation = add i32 %old, 1
  call void @mapsto.pool.deal(i32 %generation, i64 %count, i64 %participants)
  %count32 = trunc i64 %count to i32
  store atomic i32 %count32, ptr @mapsto.pool.remaining monotonic, align 4
  %closure.ptr = getelementptr { ptr, ptr, i64, i64 }, ptr @mapsto.pool.region, i64 0, i32 1
  %count.ptr = getelementptr { ptr, ptr, i64, i64 }, ptr @mapsto.pool.region, i64 0, i32 2
  %participants.ptr = getelementptr { ptr, ptr, i64, i64 }, ptr @mapsto.pool.region, i64 0, i32 3
  store atomic ptr %task, ptr @mapsto.pool.region release, align 8
  store atomic ptr %closure, ptr %closure.ptr release, align 8
  store atomic i64 %count, ptr %count.ptr release, align 8
  store atomic i64 %participants, ptr %participants.ptr release, align 8
  store atomic i32 %generation, ptr @mapsto.pool.generation seq_cst, align 4
  %sleepers = load atomic i32, ptr @mapsto.pool.sleepers seq_cst, align 4
  %awake = icmp eq i32 %sleepers, 0
  br i1 %awake, label %work, label %wake
wake:
  call void @mapsto.pool.wake(ptr @mapsto.pool.generation)
  br label %work
work:
  call void @mapsto.pool.participate(i64 0, i32 %generation)
  call void @mapsto.pool.finish()
  ret void
}

; A cursor for each participant; cursors that only the region before used are marked empty.
define internal void @mapsto.pool.deal(i32 %generation, i64 %count, i64 %participants) {
  %before.ptr = getelementptr { ptr, ptr, i64, i64 }, ptr @mapsto.pool.region, i64 0, i32 3
  %before = load atomic i64, ptr %before.ptr monotonic, align 8
  %cursors = call i64 @llvm.smax.i64(i64 %before, i64 %participants)
  %wide = zext i32 %generation to i64
  %tag = shl i64 %wide, 32
  br label %loop
loop:
  %worker = phi i64 [ 0, %0 ], [ %next, %loop ]
  %used = icmp slt i64 %worker, %participants
  %scaled = mul i64 %count, %worker
  %first = udiv i64 %scaled, %participants
  %index = select i1 %used, i64 %first, i64 4294967295
  %value = or i64 %tag, %index
  %cursor = getelementptr [8 x i64], ptr @mapsto.pool.cursors, i64 %worker
  store atomic i64 %value, ptr %cursor release, align 8
  %next = add i64 %worker, 1
  %more = icmp slt i64 %next, %cursors
  br i1 %more, label %loop, label %done
done:
  ret void
}

; Waits until every index is finished.
define internal void @mapsto.pool.finish() {
  br label %spin
spin:
  %i = phi i32 [ 0, %0 ], [ %next, %again ]
  %left = load atomic i32, ptr @mapsto.pool.remaining acquire, align 4
  %finished = icmp eq i32 %left, 0
  br i1 %finished, label %done, label %pause
pause:
  %next = add i32 %i, 1
  %patient = icmp ult i32 %next, 2000
  br i1 %patient, label %again, label %sleep
again:
  call void @mapsto.relax()
  br label %spin
sleep:
  store atomic i32 1, ptr @mapsto.pool.waiting seq_cst, align 4
  br label %check
check:
  %now = load atomic i32, ptr @mapsto.pool.remaining seq_cst, align 4
  %over = icmp eq i32 %now, 0
  br i1 %over, label %awake, label %wait
wait:
  call void @mapsto.pool.wait(ptr @mapsto.pool.remaining, i32 %now)
  br label %check
awake:
  store atomic i32 0, ptr @mapsto.pool.waiting monotonic, align 4
  br label %done
done:
  ret void
}

; ---- participants

define internal void @mapsto.pool.participate(i64 %worker, i32 %generation) {
  %closure.ptr = getelementptr { ptr, ptr, i64, i64 }, ptr @mapsto.pool.region, i64 0, i32 1
  %count.ptr = getelementptr { ptr, ptr, i64, i64 }, ptr @mapsto.pool.region, i64 0, i32 2
  %participants.ptr = getelementptr { ptr, ptr, i64, i64 }, ptr @mapsto.pool.region, i64 0, i32 3
  %task = load atomic ptr, ptr @mapsto.pool.region acquire, align 8
  %closure = load atomic ptr, ptr %closure.ptr acquire, align 8
  %count = load atomic i64, ptr %count.ptr acquire, align 8
  %participants = load atomic i64, ptr %participants.ptr acquire, align 8
  br label %loop
loop:
  %turn = phi i64 [ 0, %0 ], [ %turn.next, %next ]
  %done = phi i32 [ 0, %0 ], [ %done.next, %next ]
  %more = icmp slt i64 %turn, %participants
  br i1 %more, label %next, label %report
next:
  %shifted = add i64 %worker, %turn
  %victim = urem i64 %shifted, %participants
  %after = add i64 %victim, 1
  %scaled = mul i64 %count, %after
  %end = udiv i64 %scaled, %participants
  %before = mul i64 %count, %victim
  %first = udiv i64 %before, %participants
  %sum = add i64 %first, %end
  %mirror = sub i64 %sum, 1
  %cursor = getelementptr [8 x i64], ptr @mapsto.pool.cursors, i64 %victim
  %ran = call i32 @mapsto.pool.drain(ptr %cursor, i32 %generation, i64 %end, i64 %mirror, ptr %task, ptr %closure, i64 %worker)
  %done.next = add i32 %done, %ran
  %turn.next = add i64 %turn, 1
  br label %loop
report:
  %idle = icmp eq i32 %done, 0
  br i1 %idle, label %leave, label %subtract
subtract:
  %unfinished = atomicrmw sub ptr @mapsto.pool.remaining, i32 %done seq_cst
  %last = icmp eq i32 %unfinished, %done
  br i1 %last, label %notify, label %leave
notify:
  %waiting = load atomic i32, ptr @mapsto.pool.waiting seq_cst, align 4
  %asleep = icmp ne i32 %waiting, 0
  br i1 %asleep, label %wake, label %leave
wake:
  call void @mapsto.pool.wake(ptr @mapsto.pool.remaining)
  br label %leave
leave:
  ret void
}

; Runs indices of one cursor until it is empty or of another region; returns how many.  Every second
; region goes through its range backwards, `mirror` - i for i: what the one before has read or written
; last is in the caches still, and is used before more takes its place.
define internal i32 @mapsto.pool.drain(ptr %cursor, i32 %generation, i64 %end, i64 %mirror, ptr %task, ptr %closure, i64 %worker) {
  %backwards = trunc i32 %generation to i1
  br label %loop
loop:
  %done = phi i32 [ 0, %0 ], [ %done, %claim ], [ %more, %run ]
  %value = load atomic i64, ptr %cursor acquire, align 8
  %high = lshr i64 %value, 32
  %tag = trunc i64 %high to i32
  %current = icmp eq i32 %tag, %generation
  %index = and i64 %value, 4294967295
  %left = icmp ult i64 %index, %end
  %open = and i1 %current, %left
  br i1 %open, label %claim, label %empty
claim:
  %next = add i64 %value, 1
  %swap = cmpxchg ptr %cursor, i64 %value, i64 %next acq_rel monotonic
  %won = extractvalue { i64, i1 } %swap, 1
  br i1 %won, label %run, label %loop
run:
  %mirrored = sub i64 %mirror, %index
  %number = select i1 %backwards, i64 %mirrored, i64 %index
  call void %task(ptr %closure, i64 %number, i64 %worker)
  %more = add i32 %done, 1
  br label %loop
empty:
  ret i32 %done
}

; A worker's life; the argument holds its number and, above, the generation that it was born in.
define internal ptr @mapsto.pool.worker(ptr %argument) {
  %packed = ptrtoint ptr %argument to i64
  %worker = and i64 %packed, 4294967295
  %high = lshr i64 %packed, 32
  %born = trunc i64 %high to i32
  br label %idle
idle:
  %seen = phi i32 [ %born, %0 ], [ %now, %work ], [ %now, %skip ], [ %seen, %sleep ]
  br label %spin
spin:
  %i = phi i32 [ 0, %idle ], [ %next, %again ]
  %now = load atomic i32, ptr @mapsto.pool.generation acquire, align 4
  %new = icmp ne i32 %now, %seen
  br i1 %new, label %skip, label %pause
pause:
  %next = add i32 %i, 1
  %patient = icmp ult i32 %next, 2000
  br i1 %patient, label %again, label %sleep
again:
  call void @mapsto.relax()
  br label %spin
sleep:
  %before = atomicrmw add ptr @mapsto.pool.sleepers, i32 1 seq_cst
  call void @mapsto.pool.wait(ptr @mapsto.pool.generation, i32 %seen)
  %after = atomicrmw sub ptr @mapsto.pool.sleepers, i32 1 seq_cst
  br label %idle
skip:
  %participants.ptr = getelementptr { ptr, ptr, i64, i64 }, ptr @mapsto.pool.region, i64 0, i32 3
  %participants = load atomic i64, ptr %participants.ptr acquire, align 8
  %invited = icmp slt i64 %worker, %participants
  br i1 %invited, label %work, label %idle
work:
  call void @mapsto.pool.participate(i64 %worker, i32 %now)
  br label %idle
}

; Starts workers until there are `wanted` threads; returns how many there are, the caller included.
; Workers block every signal: handlers run on the user's threads.
define internal i64 @mapsto.pool.start(i64 %wanted) {
  %existing = load atomic i64, ptr @mapsto.pool.started monotonic, align 8
  %present = add i64 %existing, 1
  %enough = icmp sge i64 %present, %wanted
  br i1 %enough, label %ready, label %create
ready:
  ret i64 %present
create:
  %threads = call i64 @mapsto.pool.create(i64 %present, i64 %wanted)
  ret i64 %threads
}

define internal i64 @mapsto.pool.create(i64 %present, i64 %wanted) noinline {
  %all = alloca [128 x i8], align 16
  %saved = alloca [128 x i8], align 16
  %filled = call i32 @sigfillset(ptr %all)
  %blocked = call i32 @pthread_sigmask(i32 2, ptr %all, ptr %saved)
  %generation = load atomic i32, ptr @mapsto.pool.generation monotonic, align 4
  %wide = zext i32 %generation to i64
  %high = shl i64 %wide, 32
  br label %loop
loop:
  %worker = phi i64 [ %present, %0 ], [ %next, %created ]
  %missing = icmp slt i64 %worker, %wanted
  br i1 %missing, label %spawn, label %done
spawn:
  %packed = or i64 %high, %worker
  %argument = inttoptr i64 %packed to ptr
  %handle = getelementptr i64, ptr @mapsto.pool.handles, i64 %worker
  %status = call i32 @pthread_create(ptr %handle, ptr null, ptr @mapsto.pool.worker, ptr %argument)
  %succeeded = icmp eq i32 %status, 0
  br i1 %succeeded, label %created, label %done
created:
  %thread = load i64, ptr %handle, align 8
  %detached = call i32 @pthread_detach(i64 %thread)
  store atomic i64 %worker, ptr @mapsto.pool.started monotonic, align 8
  %next = add i64 %worker, 1
  br label %loop
done:
  %restored = call i32 @pthread_sigmask(i32 2, ptr %saved, ptr null)
  ret i64 %worker
}

; ---- futex (private to the process): 128 = wait while the word has this value, 129 = wake all

define internal void @mapsto.pool.wait(ptr %word, i32 %value) noinline {
  %number = load i64, ptr @mapsto.futex, align 8
  %status = call i64 (i64, ...) @syscall(i64 %number, ptr %word, i32 128, i32 %value, ptr null, ptr null, i32 0)
  ret void
}

define internal void @mapsto.pool.wake(ptr %word) noinline {
  %number = load i64, ptr @mapsto.futex, align 8
  %status = call i64 (i64, ...) @syscall(i64 %number, ptr %word, i32 129, i32 2147483647, ptr null, ptr null, i32 0)
  ret void
}
