; Text and tensors on standard output: what `print` in a program calls.  `ir/array_text.py` writes the
; same text and says how it looks.
;
; A message is collected in a buffer on the caller's stack and handed to mapsto_write(text, bytes)
; where that is full and at the message's end.

%message = type { i64, i64, [1008 x i8] } ; bytes used, column of the line, bytes
%tensor = type { ptr, ptr, i64, i64, ptr, i64, i64, i1 }
; message, elements, kind, rank, shape, width of an element, indentation, whether it is summarized

@integer_format = private constant [5 x i8] c"%lld\00"
@float_format = private constant [5 x i8] c"%.*g\00"
@true_text = private constant [5 x i8] c"True\00"
@false_text = private constant [6 x i8] c"False\00"
@nan_text = private constant [4 x i8] c"nan\00"
@gap_text = private constant [3 x i8] c"..."

declare void @mapsto_write(ptr, i64)
declare i32 @snprintf(ptr, i64, ptr, ...)
declare ptr @strpbrk(ptr, ptr)
declare i64 @strlen(ptr)
declare ptr @strcpy(ptr, ptr)
declare i64 @llvm.smax.i64(i64, i64)

@float_marks = private constant [5 x i8] c".eni\00" ; one of these is in the text of a float

; ---- the message

define void @mapsto_print_begin(ptr %message) {
  store i64 0, ptr %message, align 8
  %column = getelementptr %message, ptr %message, i64 0, i32 1
  store i64 0, ptr %column, align 8
  ret void
}

define void @mapsto_print_end(ptr %message) {
  call void @mapsto.print_byte(ptr %message, i8 10)
  call void @mapsto.print_flush(ptr %message)
  ret void
}

define void @mapsto_print_text(ptr %message, ptr %text, i64 %count) {
entry:
  %some = icmp sgt i64 %count, 0
  br i1 %some, label %loop, label %done
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %place = getelementptr i8, ptr %text, i64 %i
  %byte = load i8, ptr %place, align 1
  call void @mapsto.print_byte(ptr %message, i8 %byte)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %done
done:
  ret void
}

define internal void @mapsto.print_repeated(ptr %message, i8 %byte, i64 %count) {
entry:
  %some = icmp sgt i64 %count, 0
  br i1 %some, label %loop, label %done
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  call void @mapsto.print_byte(ptr %message, i8 %byte)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %done
done:
  ret void
}

define internal void @mapsto.print_byte(ptr %message, i8 %byte) {
  %before = load i64, ptr %message, align 8
  %full = icmp eq i64 %before, 1008
  br i1 %full, label %flush, label %put
flush:
  call void @mapsto.print_flush(ptr %message)
  br label %put
put:
  %used = load i64, ptr %message, align 8
  %place = getelementptr %message, ptr %message, i64 0, i32 2, i64 %used
  store i8 %byte, ptr %place, align 1
  %more = add i64 %used, 1
  store i64 %more, ptr %message, align 8
  %column.ptr = getelementptr %message, ptr %message, i64 0, i32 1
  %column = load i64, ptr %column.ptr, align 8
  %right = add i64 %column, 1
  ; Columns are characters: the further bytes of one (10xxxxxx in UTF-8) don't count.
  %high = and i8 %byte, -64
  %further = icmp eq i8 %high, -128
  %moved = select i1 %further, i64 %column, i64 %right
  %ends = icmp eq i8 %byte, 10
  %new = select i1 %ends, i64 0, i64 %moved
  store i64 %new, ptr %column.ptr, align 8
  ret void
}

define internal void @mapsto.print_flush(ptr %message) {
  %used = load i64, ptr %message, align 8
  %text = getelementptr %message, ptr %message, i64 0, i32 2
  call void @mapsto_write(ptr %text, i64 %used)
  store i64 0, ptr %message, align 8
  ret void
}

; ---- tensors

; Elements are of a kind: 0 bool, 1 i8, 2 i16, 3 i32, 4 i64, 5 u8, 6 u32, 7 f16, 8 bf16, 9 f32, 10 f64.
define void @mapsto_print_tensor(ptr %message, ptr %elements, i64 %kind, i64 %rank, ptr %shape) {
entry:
  %tensor = alloca %tensor, align 8
  br label %count
count:
  %axis = phi i64 [ 0, %entry ], [ %next, %multiply ]
  %total = phi i64 [ 1, %entry ], [ %product, %multiply ]
  %inside = icmp slt i64 %axis, %rank
  br i1 %inside, label %multiply, label %counted
multiply:
  %extent.ptr = getelementptr i64, ptr %shape, i64 %axis
  %extent = load i64, ptr %extent.ptr, align 8
  %product = mul i64 %total, %extent
  %next = add i64 %axis, 1
  br label %count
counted:
  %large = icmp sgt i64 %total, 1000
  %column.ptr = getelementptr %message, ptr %message, i64 0, i32 1
  %column = load i64, ptr %column.ptr, align 8
  %elements.ptr = getelementptr %tensor, ptr %tensor, i64 0, i32 1
  %kind.ptr = getelementptr %tensor, ptr %tensor, i64 0, i32 2
  %rank.ptr = getelementptr %tensor, ptr %tensor, i64 0, i32 3
  %shape.ptr = getelementptr %tensor, ptr %tensor, i64 0, i32 4
  %width.ptr = getelementptr %tensor, ptr %tensor, i64 0, i32 5
  %indent.ptr = getelementptr %tensor, ptr %tensor, i64 0, i32 6
  %large.ptr = getelementptr %tensor, ptr %tensor, i64 0, i32 7
  store ptr %message, ptr %tensor, align 8
  store ptr %elements, ptr %elements.ptr, align 8
  store i64 %kind, ptr %kind.ptr, align 8
  store i64 %rank, ptr %rank.ptr, align 8
  store ptr %shape, ptr %shape.ptr, align 8
  store i64 0, ptr %width.ptr, align 8
  store i64 %column, ptr %indent.ptr, align 8
  store i1 %large, ptr %large.ptr, align 1
  call void @mapsto.print_part(ptr %tensor, i64 0, i64 0, i1 false)
  call void @mapsto.print_part(ptr %tensor, i64 0, i64 0, i1 true)
  ret void
}

; The part of a tensor at an index of its first `depth` axes, which is `index` as one number: finds
; the width of elements, or writes.
define internal void @mapsto.print_part(ptr %tensor, i64 %depth, i64 %index, i1 %writes) {
entry:
  %message = load ptr, ptr %tensor, align 8
  %rank.ptr = getelementptr %tensor, ptr %tensor, i64 0, i32 3
  %rank = load i64, ptr %rank.ptr, align 8
  %is_element = icmp eq i64 %depth, %rank
  br i1 %is_element, label %element, label %axis
element:
  call void @mapsto.print_element(ptr %tensor, i64 %index, i1 %writes)
  ret void
axis:
  %shape.ptr = getelementptr %tensor, ptr %tensor, i64 0, i32 4
  %shape = load ptr, ptr %shape.ptr, align 8
  %extent.ptr = getelementptr i64, ptr %shape, i64 %depth
  %extent = load i64, ptr %extent.ptr, align 8
  %large.ptr = getelementptr %tensor, ptr %tensor, i64 0, i32 7
  %large = load i1, ptr %large.ptr, align 1
  %long = icmp sgt i64 %extent, 6
  %has_gap = and i1 %large, %long
  %behind_gap = sub i64 %extent, 3
  %first = mul i64 %index, %extent
  %inner = add i64 %depth, 1
  br i1 %writes, label %open, label %loop
open:
  call void @mapsto.print_repeated(ptr %message, i8 91, i64 1)
  br label %loop
loop:
  %i = phi i64 [ 0, %axis ], [ 0, %open ], [ %next, %part ]
  %inside = icmp slt i64 %i, %extent
  br i1 %inside, label %separate, label %close
separate:
  %is_later = icmp sgt i64 %i, 0
  %separated = and i1 %is_later, %writes
  call void @mapsto.print_separator(ptr %tensor, i64 %depth, i1 %separated)
  %at_gap = icmp eq i64 %i, 3
  %skips = and i1 %at_gap, %has_gap
  br i1 %skips, label %gap, label %part
gap:
  br i1 %writes, label %show_gap, label %part
show_gap:
  call void @mapsto_print_text(ptr %message, ptr @gap_text, i64 3)
  call void @mapsto.print_separator(ptr %tensor, i64 %depth, i1 true)
  br label %part
part:
  %position = phi i64 [ %i, %separate ], [ %behind_gap, %gap ], [ %behind_gap, %show_gap ]
  %offset = add i64 %first, %position
  call void @mapsto.print_part(ptr %tensor, i64 %inner, i64 %offset, i1 %writes)
  %next = add i64 %position, 1
  br label %loop
close:
  br i1 %writes, label %end, label %done
end:
  call void @mapsto.print_repeated(ptr %message, i8 93, i64 1)
  ret void
done:
  ret void
}

; Between two parts along an axis: a blank, or the ends of lines and the indentation.
define internal void @mapsto.print_separator(ptr %tensor, i64 %depth, i1 %writes) {
  br i1 %writes, label %some, label %done
some:
  %message = load ptr, ptr %tensor, align 8
  %column.ptr = getelementptr %message, ptr %message, i64 0, i32 1
  %column = load i64, ptr %column.ptr, align 8
  %rank.ptr = getelementptr %tensor, ptr %tensor, i64 0, i32 3
  %rank = load i64, ptr %rank.ptr, align 8
  %width.ptr = getelementptr %tensor, ptr %tensor, i64 0, i32 5
  %width = load i64, ptr %width.ptr, align 8
  %indent.ptr = getelementptr %tensor, ptr %tensor, i64 0, i32 6
  %indent = load i64, ptr %indent.ptr, align 8
  %inner = add i64 %depth, 1
  %is_last = icmp eq i64 %inner, %rank
  %end = add i64 %column, %width
  %fits = icmp slt i64 %end, 75
  %same_line = and i1 %is_last, %fits
  br i1 %same_line, label %blank, label %lines
blank:
  call void @mapsto.print_repeated(ptr %message, i8 32, i64 1)
  ret void
lines:
  %below = sub i64 %rank, %inner
  %count = call i64 @llvm.smax.i64(i64 %below, i64 1)
  call void @mapsto.print_repeated(ptr %message, i8 10, i64 %count)
  %blanks = add i64 %indent, %inner
  call void @mapsto.print_repeated(ptr %message, i8 32, i64 %blanks)
  ret void
done:
  ret void
}

define internal void @mapsto.print_element(ptr %tensor, i64 %index, i1 %writes) {
  %text = alloca [32 x i8], align 8
  %message = load ptr, ptr %tensor, align 8
  %elements.ptr = getelementptr %tensor, ptr %tensor, i64 0, i32 1
  %elements = load ptr, ptr %elements.ptr, align 8
  %kind.ptr = getelementptr %tensor, ptr %tensor, i64 0, i32 2
  %kind = load i64, ptr %kind.ptr, align 8
  %width.ptr = getelementptr %tensor, ptr %tensor, i64 0, i32 5
  %width = load i64, ptr %width.ptr, align 8
  call void @mapsto.element_text(ptr %text, ptr %elements, i64 %kind, i64 %index)
  %count = call i64 @strlen(ptr %text)
  br i1 %writes, label %write, label %measure
measure:
  %wider = call i64 @llvm.smax.i64(i64 %width, i64 %count)
  store i64 %wider, ptr %width.ptr, align 8
  ret void
write:
  %blanks = sub i64 %width, %count
  call void @mapsto.print_repeated(ptr %message, i8 32, i64 %blanks)
  call void @mapsto_print_text(ptr %message, ptr %text, i64 %count)
  ret void
}

; ---- elements

define internal void @mapsto.element_text(ptr %text, ptr %elements, i64 %kind, i64 %index) {
  switch i64 %kind, label %f64 [
    i64 0, label %bool
    i64 1, label %i8
    i64 2, label %i16
    i64 3, label %i32
    i64 4, label %i64
    i64 5, label %u8
    i64 6, label %u32
    i64 7, label %f16
    i64 8, label %bf16
    i64 9, label %f32
  ]
bool:
  %bool.ptr = getelementptr i8, ptr %elements, i64 %index
  %bool.value = load i8, ptr %bool.ptr, align 1
  %holds = icmp ne i8 %bool.value, 0
  %word = select i1 %holds, ptr @true_text, ptr @false_text
  %copied = call ptr @strcpy(ptr %text, ptr %word)
  ret void
i8:
  %i8.ptr = getelementptr i8, ptr %elements, i64 %index
  %i8.value = load i8, ptr %i8.ptr, align 1
  %i8.wide = sext i8 %i8.value to i64
  br label %integer
i16:
  %i16.ptr = getelementptr i16, ptr %elements, i64 %index
  %i16.value = load i16, ptr %i16.ptr, align 2
  %i16.wide = sext i16 %i16.value to i64
  br label %integer
i32:
  %i32.ptr = getelementptr i32, ptr %elements, i64 %index
  %i32.value = load i32, ptr %i32.ptr, align 4
  %i32.wide = sext i32 %i32.value to i64
  br label %integer
i64:
  %i64.ptr = getelementptr i64, ptr %elements, i64 %index
  %i64.value = load i64, ptr %i64.ptr, align 8
  br label %integer
u8:
  %u8.ptr = getelementptr i8, ptr %elements, i64 %index
  %u8.value = load i8, ptr %u8.ptr, align 1
  %u8.wide = zext i8 %u8.value to i64
  br label %integer
u32:
  %u32.ptr = getelementptr i32, ptr %elements, i64 %index
  %u32.value = load i32, ptr %u32.ptr, align 4
  %u32.wide = zext i32 %u32.value to i64
  br label %integer
integer:
  %number = phi i64 [ %i8.wide, %i8 ], [ %i16.wide, %i16 ], [ %i32.wide, %i32 ], [ %i64.value, %i64 ], [ %u8.wide, %u8 ], [ %u32.wide, %u32 ]
  %written = call i32 (ptr, i64, ptr, ...) @snprintf(ptr %text, i64 32, ptr @integer_format, i64 %number)
  ret void
f16:
  %f16.ptr = getelementptr i16, ptr %elements, i64 %index
  %f16.bits = load i16, ptr %f16.ptr, align 2
  %f16.value = call float @mapsto.float_of_half(i16 %f16.bits)
  %f16.wide = fpext float %f16.value to double
  br label %float
bf16:
  %bf16.ptr = getelementptr i16, ptr %elements, i64 %index
  %bf16.bits = load i16, ptr %bf16.ptr, align 2
  %bf16.low = zext i16 %bf16.bits to i32
  %bf16.high = shl i32 %bf16.low, 16
  %bf16.value = bitcast i32 %bf16.high to float
  %bf16.wide = fpext float %bf16.value to double
  br label %float
f32:
  %f32.ptr = getelementptr float, ptr %elements, i64 %index
  %f32.value = load float, ptr %f32.ptr, align 4
  %f32.wide = fpext float %f32.value to double
  br label %float
f64:
  %f64.ptr = getelementptr double, ptr %elements, i64 %index
  %f64.value = load double, ptr %f64.ptr, align 8
  br label %float
float:
  %digits = phi i32 [ 4, %f16 ], [ 3, %bf16 ], [ 6, %f32 ], [ 8, %f64 ]
  %value = phi double [ %f16.wide, %f16 ], [ %bf16.wide, %bf16 ], [ %f32.wide, %f32 ], [ %f64.value, %f64 ]
  %is_nan = fcmp uno double %value, 0.0
  br i1 %is_nan, label %nan, label %finite
nan:
  %named = call ptr @strcpy(ptr %text, ptr @nan_text)
  ret void
finite:
  %count = call i32 (ptr, i64, ptr, ...) @snprintf(ptr %text, i64 32, ptr @float_format, i32 %digits, double %value)
  %mark = call ptr @strpbrk(ptr %text, ptr @float_marks)
  %unmarked = icmp eq ptr %mark, null
  br i1 %unmarked, label %dot, label %done
dot:
  %end = getelementptr i8, ptr %text, i32 %count
  store i8 46, ptr %end, align 1
  %terminator = getelementptr i8, ptr %end, i64 1
  store i8 0, ptr %terminator, align 1
  ret void
done:
  ret void
}

; By hand: not every machine has an instruction for it.  Exponents are rebased by a product, which is
; right for subnormal numbers too.
define internal float @mapsto.float_of_half(i16 %half) {
  %bits = zext i16 %half to i32
  %magnitude = and i32 %bits, 32767
  %sign = and i32 %bits, 32768
  %sign.bits = shl i32 %sign, 16
  %moved = shl i32 %magnitude, 13
  %small = bitcast i32 %moved to float
  %rebased = fmul float %small, 0x46F0000000000000
  %rebased.bits = bitcast float %rebased to i32
  %special.bits = or i32 %moved, 2139095040
  %special = icmp uge i32 %magnitude, 31744
  %chosen = select i1 %special, i32 %special.bits, i32 %rebased.bits
  %all = or i32 %chosen, %sign.bits
  %value = bitcast i32 %all to float
  ret float %value
}
