; The pool of targets without threads: the caller runs every index itself, in order.

define void @mapsto_parallel_for(ptr %task, ptr %closure, i64 %count) {
  %some = icmp sgt i64 %count, 0
  br i1 %some, label %loop, label %done
loop:
  %i = phi i64 [ 0, %0 ], [ %next, %loop ]
  call void %task(ptr %closure, i64 %i, i64 0)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %done
done:
  ret void
}

define i64 @mapsto_threads() {
  ret i64 1
}

define i64 @mapsto_worker_limit() {
  ret i64 1
}

define void @mapsto_set_threads(i64 %wanted) {
  ret void
}
