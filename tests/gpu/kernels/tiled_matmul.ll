; c = a @ b by 16 x 16 threads, an element each; tiles of a and b in shared memory.
@tile_a = internal addrspace(3) global [256 x float] undef, align 16
@tile_b = internal addrspace(3) global [256 x float] undef, align 16
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.tid.y()
declare i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.ctaid.y()
declare void @llvm.nvvm.barrier.cta.sync.aligned.all(i32)

define ptx_kernel void @matmul(ptr addrspace(1) noalias readonly align 16 %a, ptr addrspace(1) noalias readonly align 16 %b, ptr addrspace(1) noalias align 16 %c, i32 %n, i32 %depth) "nvvm.reqntid"="16,16" {
entry:
  %tx = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %ty = call i32 @llvm.nvvm.read.ptx.sreg.tid.y()
  %bx = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
  %by = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.y()
  %row0 = mul i32 %by, 16
  %row = add i32 %row0, %ty
  %column0 = mul i32 %bx, 16
  %column = add i32 %column0, %tx
  %row_start = mul i32 %row, %depth
  %a_start = add i32 %row_start, %tx
  %tile_row = mul i32 %ty, 16
  %slot = add i32 %tile_row, %tx
  %to_a = getelementptr inbounds [256 x float], ptr addrspace(3) @tile_a, i32 0, i32 %slot
  %to_b = getelementptr inbounds [256 x float], ptr addrspace(3) @tile_b, i32 0, i32 %slot
  br label %tiles
tiles:
  %k = phi i32 [0, %entry], [%k_next, %tile_done]
  %sum = phi float [0.0, %entry], [%total, %tile_done]
  %ai = add i32 %a_start, %k
  %ai64 = sext i32 %ai to i64
  %pa = getelementptr inbounds float, ptr addrspace(1) %a, i64 %ai64
  %va = load float, ptr addrspace(1) %pa, align 4
  store float %va, ptr addrspace(3) %to_a, align 4
  %bk = add i32 %k, %ty
  %bn = mul i32 %bk, %n
  %bi = add i32 %bn, %column
  %bi64 = sext i32 %bi to i64
  %pb = getelementptr inbounds float, ptr addrspace(1) %b, i64 %bi64
  %vb = load float, ptr addrspace(1) %pb, align 4
  store float %vb, ptr addrspace(3) %to_b, align 4
  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)
  br label %products
products:
  %kk = phi i32 [0, %tiles], [%kk1, %products]
  %so_far = phi float [%sum, %tiles], [%total, %products]
  %ia = add i32 %tile_row, %kk
  %qa = getelementptr inbounds [256 x float], ptr addrspace(3) @tile_a, i32 0, i32 %ia
  %x = load float, ptr addrspace(3) %qa, align 4
  %ib0 = mul i32 %kk, 16
  %ib = add i32 %ib0, %tx
  %qb = getelementptr inbounds [256 x float], ptr addrspace(3) @tile_b, i32 0, i32 %ib
  %y = load float, ptr addrspace(3) %qb, align 4
  %total = call float @llvm.fma.f32(float %x, float %y, float %so_far)
  %kk1 = add i32 %kk, 1
  %more = icmp slt i32 %kk1, 16
  br i1 %more, label %products, label %tile_done
tile_done:
  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)
  %k_next = add i32 %k, 16
  %again = icmp slt i32 %k_next, %depth
  br i1 %again, label %tiles, label %finish
finish:
  %rn = mul i32 %row, %n
  %ci = add i32 %rn, %column
  %ci64 = sext i32 %ci to i64
  %pc = getelementptr inbounds float, ptr addrspace(1) %c, i64 %ci64
  store float %total, ptr addrspace(1) %pc, align 4
  ret void
}
declare float @llvm.fma.f32(float, float, float)
