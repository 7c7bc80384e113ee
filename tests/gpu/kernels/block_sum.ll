; out[block] = the sum of 1024 elements of x: four a thread, then halving in shared memory.
@partial = internal addrspace(3) global [256 x float] undef, align 16
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
declare void @llvm.nvvm.barrier.cta.sync.aligned.all(i32)

define ptx_kernel void @block_sum(ptr addrspace(1) noalias readonly align 16 %x, ptr addrspace(1) noalias align 16 %out, i32 %n) "nvvm.reqntid"="256" {
entry:
  %t = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %b = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
  %start = mul i32 %b, 1024
  %i0 = add i32 %start, %t
  br label %load
load:
  %i = phi i32 [%i0, %entry], [%i1, %next_load]
  %sum = phi float [0.0, %entry], [%sum2, %next_load]
  %k = phi i32 [0, %entry], [%k1, %next_load]
  %inside = icmp slt i32 %i, %n
  br i1 %inside, label %add, label %next_load
add:
  %index = sext i32 %i to i64
  %p = getelementptr inbounds float, ptr addrspace(1) %x, i64 %index
  %v = load float, ptr addrspace(1) %p, align 4
  %s = fadd float %sum, %v
  br label %next_load
next_load:
  %sum2 = phi float [%sum, %load], [%s, %add]
  %i1 = add i32 %i, 256
  %k1 = add i32 %k, 1
  %more = icmp slt i32 %k1, 4
  br i1 %more, label %load, label %put
put:
  %mine = getelementptr inbounds [256 x float], ptr addrspace(3) @partial, i32 0, i32 %t
  store float %sum2, ptr addrspace(3) %mine, align 4
  br label %halve
halve:
  %h = phi i32 [128, %put], [%h2, %halved]
  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)
  %active = icmp slt i32 %t, %h
  br i1 %active, label %combine, label %halved
combine:
  %j = add i32 %t, %h
  %theirs = getelementptr inbounds [256 x float], ptr addrspace(3) @partial, i32 0, i32 %j
  %q = load float, ptr addrspace(3) %theirs, align 4
  %r = load float, ptr addrspace(3) %mine, align 4
  %u = fadd float %q, %r
  store float %u, ptr addrspace(3) %mine, align 4
  br label %halved
halved:
  %h2 = lshr i32 %h, 1
  %again = icmp ugt i32 %h, 1
  br i1 %again, label %halve, label %finish
finish:
  %is_first = icmp eq i32 %t, 0
  br i1 %is_first, label %write, label %end
write:
  %result = load float, ptr addrspace(3) @partial, align 4
  %block = sext i32 %b to i64
  %place = getelementptr inbounds float, ptr addrspace(1) %out, i64 %block
  store float %result, ptr addrspace(1) %place, align 4
  br label %end
end:
  ret void
}
