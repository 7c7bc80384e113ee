; c = a @ b, f16 to f32, by tensor cores.  A block of four warps makes 32 x 16 elements, a warp 16 x 8;
; tiles of depth 16 come by asynchronous copies into two stages.
@tile_a = internal addrspace(3) global [1536 x half] undef, align 16
@tile_b = internal addrspace(3) global [768 x half] undef, align 16
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.ctaid.y()
declare void @llvm.nvvm.barrier.cta.sync.aligned.all(i32)
declare void @llvm.nvvm.cp.async.cg.shared.global.16(ptr addrspace(3), ptr addrspace(1))
declare void @llvm.nvvm.cp.async.commit.group()
declare void @llvm.nvvm.cp.async.wait.group(i32)
declare {i32, i32, i32, i32} @llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4.b16.p3(ptr addrspace(3))
declare {i32, i32} @llvm.nvvm.ldmatrix.sync.aligned.m8n8.x2.trans.b16.p3(ptr addrspace(3))
declare {float, float, float, float} @llvm.nvvm.mma.m16n8k16.row.col.f32.f32(<2 x half>, <2 x half>, <2 x half>, <2 x half>, <2 x half>, <2 x half>, float, float, float, float)

define internal void @fetch(ptr addrspace(1) %a, ptr addrspace(1) %b, i32 %n, i32 %depth, i32 %row0, i32 %column0, i32 %tile, i32 %t) alwaysinline {
entry:
  %stage = and i32 %tile, 1
  %k = shl i32 %tile, 4
  %is_a = icmp ult i32 %t, 64
  br i1 %is_a, label %copy_a, label %other
copy_a:
  %ra = lshr i32 %t, 1
  %half_a = and i32 %t, 1
  %ca = shl i32 %half_a, 3
  %grow = add i32 %row0, %ra
  %gstart = mul i32 %grow, %depth
  %gk = add i32 %k, %ca
  %gi = add i32 %gstart, %gk
  %from_a = getelementptr inbounds half, ptr addrspace(1) %a, i32 %gi
  %stage_a = mul i32 %stage, 768
  %srow = mul i32 %ra, 24
  %si = add i32 %srow, %ca
  %sii = add i32 %si, %stage_a
  %to_a = getelementptr inbounds half, ptr addrspace(3) @tile_a, i32 %sii
  call void @llvm.nvvm.cp.async.cg.shared.global.16(ptr addrspace(3) %to_a, ptr addrspace(1) %from_a)
  br label %done
other:
  %is_b = icmp ult i32 %t, 96
  br i1 %is_b, label %copy_b, label %done
copy_b:
  %tb = sub i32 %t, 64
  %rb = lshr i32 %tb, 1
  %half_b = and i32 %tb, 1
  %cb = shl i32 %half_b, 3
  %bk = add i32 %k, %rb
  %bstart = mul i32 %bk, %n
  %bcol = add i32 %column0, %cb
  %bi = add i32 %bstart, %bcol
  %from_b = getelementptr inbounds half, ptr addrspace(1) %b, i32 %bi
  %stage_b = mul i32 %stage, 384
  %brow = mul i32 %rb, 24
  %sb = add i32 %brow, %cb
  %sbb = add i32 %sb, %stage_b
  %to_b = getelementptr inbounds half, ptr addrspace(3) @tile_b, i32 %sbb
  call void @llvm.nvvm.cp.async.cg.shared.global.16(ptr addrspace(3) %to_b, ptr addrspace(1) %from_b)
  br label %done
done:
  call void @llvm.nvvm.cp.async.commit.group()
  ret void
}

define ptx_kernel void @tensor_matmul(ptr addrspace(1) noalias align 16 %a, ptr addrspace(1) noalias align 16 %b, ptr addrspace(1) noalias align 16 %c, i32 %n, i32 %depth) "nvvm.reqntid"="128" {
entry:
  %t = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %bx = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
  %by = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.y()
  %row0 = shl i32 %by, 5
  %column0 = shl i32 %bx, 4
  %tiles = lshr i32 %depth, 4
  %lane = and i32 %t, 31
  %warp = lshr i32 %t, 5
  %wrow = and i32 %warp, 1
  %wcol = lshr i32 %warp, 1
  %l15 = and i32 %lane, 15
  %l16 = lshr i32 %lane, 4
  %arow0 = shl i32 %wrow, 4
  %arow = add i32 %arow0, %l15
  %astart = mul i32 %arow, 24
  %acol = shl i32 %l16, 3
  %a_slot = add i32 %astart, %acol
  %bstart = mul i32 %l15, 24
  %bcol = shl i32 %wcol, 3
  %b_slot = add i32 %bstart, %bcol
  call void @fetch(ptr addrspace(1) %a, ptr addrspace(1) %b, i32 %n, i32 %depth, i32 %row0, i32 %column0, i32 0, i32 %t)
  br label %loop
loop:
  %tile = phi i32 [0, %entry], [%tile1, %fetched]
  %c0 = phi float [0.0, %entry], [%d0, %fetched]
  %c1 = phi float [0.0, %entry], [%d1, %fetched]
  %c2 = phi float [0.0, %entry], [%d2, %fetched]
  %c3 = phi float [0.0, %entry], [%d3, %fetched]
  %tile1 = add i32 %tile, 1
  %more = icmp ult i32 %tile1, %tiles
  br i1 %more, label %ahead, label %last
ahead:
  call void @fetch(ptr addrspace(1) %a, ptr addrspace(1) %b, i32 %n, i32 %depth, i32 %row0, i32 %column0, i32 %tile1, i32 %t)
  call void @llvm.nvvm.cp.async.wait.group(i32 1)
  br label %fetched
last:
  call void @llvm.nvvm.cp.async.wait.group(i32 0)
  br label %fetched
fetched:
  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)
  %stage = and i32 %tile, 1
  %sa = mul i32 %stage, 768
  %sb = mul i32 %stage, 384
  %ia = add i32 %sa, %a_slot
  %ib = add i32 %sb, %b_slot
  %pa = getelementptr inbounds half, ptr addrspace(3) @tile_a, i32 %ia
  %pb = getelementptr inbounds half, ptr addrspace(3) @tile_b, i32 %ib
  %fa = call {i32, i32, i32, i32} @llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4.b16.p3(ptr addrspace(3) %pa)
  %fb = call {i32, i32} @llvm.nvvm.ldmatrix.sync.aligned.m8n8.x2.trans.b16.p3(ptr addrspace(3) %pb)
  %a0i = extractvalue {i32, i32, i32, i32} %fa, 0
  %a1i = extractvalue {i32, i32, i32, i32} %fa, 1
  %a2i = extractvalue {i32, i32, i32, i32} %fa, 2
  %a3i = extractvalue {i32, i32, i32, i32} %fa, 3
  %b0i = extractvalue {i32, i32} %fb, 0
  %b1i = extractvalue {i32, i32} %fb, 1
  %a0 = bitcast i32 %a0i to <2 x half>
  %a1 = bitcast i32 %a1i to <2 x half>
  %a2 = bitcast i32 %a2i to <2 x half>
  %a3 = bitcast i32 %a3i to <2 x half>
  %b0 = bitcast i32 %b0i to <2 x half>
  %b1 = bitcast i32 %b1i to <2 x half>
  %d = call {float, float, float, float} @llvm.nvvm.mma.m16n8k16.row.col.f32.f32(<2 x half> %a0, <2 x half> %a1, <2 x half> %a2, <2 x half> %a3, <2 x half> %b0, <2 x half> %b1, float %c0, float %c1, float %c2, float %c3)
  %d0 = extractvalue {float, float, float, float} %d, 0
  %d1 = extractvalue {float, float, float, float} %d, 1
  %d2 = extractvalue {float, float, float, float} %d, 2
  %d3 = extractvalue {float, float, float, float} %d, 3
  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)
  br i1 %more, label %loop, label %finish
finish:
  %group = lshr i32 %lane, 2
  %quad = and i32 %lane, 3
  %r0 = add i32 %row0, %arow0
  %r1 = add i32 %r0, %group
  %q2 = shl i32 %quad, 1
  %k0 = add i32 %column0, %bcol
  %k1 = add i32 %k0, %q2
  %rs = mul i32 %r1, %n
  %ci = add i32 %rs, %k1
  %n8 = shl i32 %n, 3
  %cj = add i32 %ci, %n8
  %pc = getelementptr inbounds float, ptr addrspace(1) %c, i32 %ci
  %pd = getelementptr inbounds float, ptr addrspace(1) %c, i32 %cj
  %v0 = insertelement <2 x float> undef, float %d0, i32 0
  %v1 = insertelement <2 x float> %v0, float %d1, i32 1
  %w0 = insertelement <2 x float> undef, float %d2, i32 0
  %w1 = insertelement <2 x float> %w0, float %d3, i32 1
  store <2 x float> %v1, ptr addrspace(1) %pc, align 8
  store <2 x float> %w1, ptr addrspace(1) %pd, align 8
  ret void
}
