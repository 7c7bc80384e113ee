; out[i] = the sum of the warp's 32 elements, by a butterfly of shuffles.
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
declare float @llvm.nvvm.shfl.sync.bfly.f32(i32, float, i32, i32)

define ptx_kernel void @warp_sum(ptr addrspace(1) noalias readonly %x, ptr addrspace(1) noalias %out) {
  %t = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %index = sext i32 %t to i64
  %p = getelementptr inbounds float, ptr addrspace(1) %x, i64 %index
  %v0 = load float, ptr addrspace(1) %p, align 4
  %u1 = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %v0, i32 16, i32 31)
  %v1 = fadd float %v0, %u1
  %u2 = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %v1, i32 8, i32 31)
  %v2 = fadd float %v1, %u2
  %u3 = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %v2, i32 4, i32 31)
  %v3 = fadd float %v2, %u3
  %u4 = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %v3, i32 2, i32 31)
  %v4 = fadd float %v3, %u4
  %u5 = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %v4, i32 1, i32 31)
  %v5 = fadd float %v4, %u5
  %q = getelementptr inbounds float, ptr addrspace(1) %out, i64 %index
  store float %v5, ptr addrspace(1) %q, align 4
  ret void
}
