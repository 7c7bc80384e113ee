; y = 2 x, four elements a thread.
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()

define ptx_kernel void @scale4(ptr addrspace(1) noalias readonly align 16 %x, ptr addrspace(1) noalias align 16 %y) {
  %t = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %first = shl i32 %t, 2
  %index = sext i32 %first to i64
  %px = getelementptr inbounds float, ptr addrspace(1) %x, i64 %index
  %py = getelementptr inbounds float, ptr addrspace(1) %y, i64 %index
  %v = load <4 x float>, ptr addrspace(1) %px, align 16
  %r = fadd <4 x float> %v, %v
  store <4 x float> %r, ptr addrspace(1) %py, align 16
  ret void
}
