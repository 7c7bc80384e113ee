; Reads the tensors of a model from a safetensors file: 8 bytes of length (little-endian), that many
; bytes of JSON `{"name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ..}`, the
; data.  The file is not trusted.  Names are compared as they stand, without undoing escapes.

; name and its length, element type and its length, rank, dims, place in the memory, bytes
%mapsto.tensor = type { ptr, i64, ptr, i64, i64, ptr, i64, i64 }
; element type and its length, rank, begin, end, dims
%mapsto.entry = type { ptr, i64, i64, i64, i64, [32 x i64] }

@mapsto.json.dtype = internal constant [5 x i8] c"dtype"
@mapsto.json.shape = internal constant [5 x i8] c"shape"
@mapsto.json.offsets = internal constant [12 x i8] c"data_offsets"
@mapsto.json.metadata = internal constant [12 x i8] c"__metadata__"

declare i32 @open(ptr, i32, ...)
declare i32 @close(i32)
declare i64 @lseek(i32, i64, i32)
declare i64 @pread(i32, ptr, i64, i64)
declare ptr @malloc(i64)
declare void @free(ptr)
declare ptr @memset(ptr, i32, i64)

; Fills the memory at `base` with the tensors.  Returns 0; 2: no memory; 105: the file cannot be
; read; 106: it is not valid; 107: a tensor is missing, or of another type or shape.
define i32 @mapsto.load_tensors(ptr %path, ptr %base, ptr %tensors, i64 %count) {
  %file = call i32 (ptr, i32, ...) @open(ptr %path, i32 526336) ; read only, nonblocking, close on exec
  %closed = icmp slt i32 %file, 0
  br i1 %closed, label %unreadable, label %opened
unreadable:
  ret i32 105
opened:
  %code = call i32 @mapsto.safetensors.file(i32 %file, ptr %base, ptr %tensors, i64 %count)
  %ignored = call i32 @close(i32 %file)
  ret i32 %code
}

define internal i32 @mapsto.safetensors.file(i32 %file, ptr %base, ptr %tensors, i64 %count) {
  %length.ptr = alloca i64, align 8
  %size = call i64 @lseek(i32 %file, i64 0, i32 2)
  %unseekable = icmp slt i64 %size, 0
  br i1 %unseekable, label %unreadable, label %sized
unreadable:
  ret i32 105
sized:
  %code = call i32 @mapsto.safetensors.read(i32 %file, ptr %length.ptr, i64 8, i64 0)
  %read = icmp eq i32 %code, 0
  br i1 %read, label %bound, label %failed
failed:
  ret i32 %code
bound:
  %length = load i64, ptr %length.ptr, align 8
  %rest = sub i64 %size, 8
  %inside = icmp ule i64 %length, %rest
  %small = icmp ult i64 %length, 100000000
  %sane = and i1 %inside, %small
  br i1 %sane, label %allocate, label %invalid
invalid:
  ret i32 106
allocate:
  %flags.end = add i64 %length, %count
  %bytes = add i64 %flags.end, 1
  %header = call ptr @malloc(i64 %bytes)
  %missing = icmp eq ptr %header, null
  br i1 %missing, label %exhausted, label %parse
exhausted:
  ret i32 2
parse:
  %end = getelementptr i8, ptr %header, i64 %length
  %cleared = call ptr @memset(ptr %end, i32 0, i64 %count)
  %status = call i32 @mapsto.safetensors.read(i32 %file, ptr %header, i64 %length, i64 8)
  %complete = icmp eq i32 %status, 0
  br i1 %complete, label %tensors.read, label %done
tensors.read:
  %start = add i64 %length, 8
  %data = sub i64 %size, %start
  %result = call i32 @mapsto.safetensors.header(ptr %header, ptr %end, i32 %file, i64 %start, i64 %data, ptr %base, ptr %tensors, i64 %count)
  br label %done
done:
  %outcome = phi i32 [ %status, %parse ], [ %result, %tensors.read ]
  call void @free(ptr %header)
  ret i32 %outcome
}

; Reads all of `size` bytes at a place of the file, or returns an error code.
define internal i32 @mapsto.safetensors.read(i32 %file, ptr %to, i64 %size, i64 %place) {
  br label %loop
loop:
  %done = phi i64 [ 0, %0 ], [ %sum, %more ]
  %complete = icmp eq i64 %done, %size
  br i1 %complete, label %good, label %some
some:
  %target = getelementptr i8, ptr %to, i64 %done
  %left = sub i64 %size, %done
  %from = add i64 %place, %done
  %got = call i64 @pread(i32 %file, ptr %target, i64 %left, i64 %from)
  %end = icmp eq i64 %got, 0
  br i1 %end, label %truncated, label %check
check:
  %error = icmp slt i64 %got, 0
  br i1 %error, label %unreadable, label %more
more:
  %sum = add i64 %done, %got
  br label %loop
good:
  ret i32 0
truncated:
  ret i32 106
unreadable:
  ret i32 105
}

; The JSON text; flags, a byte a tensor, follow it.
define internal i32 @mapsto.safetensors.header(ptr %header, ptr %flags, i32 %file, i64 %start, i64 %data, ptr %base, ptr %tensors, i64 %count) {
  %cursor = alloca %mapsto.cursor, align 8
  %entry = alloca %mapsto.entry, align 8
  %name.ptr = alloca ptr, align 8
  store ptr %header, ptr %cursor, align 8
  %end.ptr = getelementptr %mapsto.cursor, ptr %cursor, i64 0, i32 1
  store ptr %flags, ptr %end.ptr, align 8
  %opened = call i1 @mapsto.json.accept(ptr %cursor, i32 123)
  br i1 %opened, label %first, label %invalid
first:
  %empty = call i1 @mapsto.json.accept(ptr %cursor, i32 125)
  br i1 %empty, label %finish, label %member
member:
  %length = call i64 @mapsto.json.string(ptr %cursor, ptr %name.ptr)
  %named = icmp sge i64 %length, 0
  br i1 %named, label %colon, label %invalid
colon:
  %separated = call i1 @mapsto.json.accept(ptr %cursor, i32 58)
  br i1 %separated, label %kind, label %invalid
kind:
  %name = load ptr, ptr %name.ptr, align 8
  %about = call i1 @mapsto.json.is(ptr %name, i64 %length, ptr @mapsto.json.metadata, i64 12)
  br i1 %about, label %metadata, label %described
metadata:
  %skipped = call i1 @mapsto.json.skip(ptr %cursor)
  br i1 %skipped, label %next, label %invalid
described:
  %parsed = call i1 @mapsto.safetensors.entry(ptr %cursor, ptr %entry)
  br i1 %parsed, label %range, label %invalid
range:
  %begin.ptr = getelementptr %mapsto.entry, ptr %entry, i64 0, i32 3
  %stop.ptr = getelementptr %mapsto.entry, ptr %entry, i64 0, i32 4
  %begin = load i64, ptr %begin.ptr, align 8
  %stop = load i64, ptr %stop.ptr, align 8
  %ordered = icmp ule i64 %begin, %stop
  %inside = icmp ule i64 %stop, %data
  %valid = and i1 %ordered, %inside
  br i1 %valid, label %search, label %invalid
search:
  %k = phi i64 [ 0, %range ], [ %k.next, %other ]
  %more = icmp slt i64 %k, %count
  br i1 %more, label %compare, label %next
compare:
  %tensor = getelementptr %mapsto.tensor, ptr %tensors, i64 %k
  %wanted = load ptr, ptr %tensor, align 8
  %wanted.length.ptr = getelementptr %mapsto.tensor, ptr %tensor, i64 0, i32 1
  %wanted.length = load i64, ptr %wanted.length.ptr, align 8
  %same = call i1 @mapsto.json.is(ptr %name, i64 %length, ptr %wanted, i64 %wanted.length)
  br i1 %same, label %found, label %other
other:
  %k.next = add i64 %k, 1
  br label %search
found:
  %flag = getelementptr i8, ptr %flags, i64 %k
  %seen = load i8, ptr %flag, align 1
  %repeated = icmp ne i8 %seen, 0
  br i1 %repeated, label %invalid, label %take
take:
  store i8 1, ptr %flag, align 1
  %code = call i32 @mapsto.safetensors.take(ptr %entry, ptr %tensor, ptr %base, i32 %file, i64 %start)
  %taken = icmp eq i32 %code, 0
  br i1 %taken, label %next, label %failed
failed:
  ret i32 %code
next:
  %continues = call i1 @mapsto.json.accept(ptr %cursor, i32 44)
  br i1 %continues, label %member, label %close
close:
  %closed = call i1 @mapsto.json.accept(ptr %cursor, i32 125)
  br i1 %closed, label %finish, label %invalid
finish:
  %rest = call i32 @mapsto.json.peek(ptr %cursor)
  %over = icmp eq i32 %rest, -1
  br i1 %over, label %all, label %invalid
all:
  %i = phi i64 [ 0, %finish ], [ %i.next, %present ]
  %unchecked = icmp slt i64 %i, %count
  br i1 %unchecked, label %present, label %complete
present:
  %mark.ptr = getelementptr i8, ptr %flags, i64 %i
  %mark = load i8, ptr %mark.ptr, align 1
  %i.next = add i64 %i, 1
  %absent = icmp eq i8 %mark, 0
  br i1 %absent, label %lacking, label %all
complete:
  ret i32 0
lacking:
  ret i32 107
invalid:
  ret i32 106
}

; Reads a tensor's data if its entry describes what is wanted.
define internal i32 @mapsto.safetensors.take(ptr %entry, ptr %tensor, ptr %base, i32 %file, i64 %start) {
  %dtype = load ptr, ptr %entry, align 8
  %dtype.length.ptr = getelementptr %mapsto.entry, ptr %entry, i64 0, i32 1
  %dtype.length = load i64, ptr %dtype.length.ptr, align 8
  %wanted.dtype.ptr = getelementptr %mapsto.tensor, ptr %tensor, i64 0, i32 2
  %wanted.dtype = load ptr, ptr %wanted.dtype.ptr, align 8
  %wanted.length.ptr = getelementptr %mapsto.tensor, ptr %tensor, i64 0, i32 3
  %wanted.length = load i64, ptr %wanted.length.ptr, align 8
  %same.dtype = call i1 @mapsto.json.is(ptr %dtype, i64 %dtype.length, ptr %wanted.dtype, i64 %wanted.length)
  %rank.ptr = getelementptr %mapsto.entry, ptr %entry, i64 0, i32 2
  %rank = load i64, ptr %rank.ptr, align 8
  %dims = getelementptr %mapsto.entry, ptr %entry, i64 0, i32 5
  %wanted.rank.ptr = getelementptr %mapsto.tensor, ptr %tensor, i64 0, i32 4
  %wanted.rank = load i64, ptr %wanted.rank.ptr, align 8
  %wanted.dims.ptr = getelementptr %mapsto.tensor, ptr %tensor, i64 0, i32 5
  %wanted.dims = load ptr, ptr %wanted.dims.ptr, align 8
  %dims.bytes = mul i64 %rank, 8
  %wanted.dims.bytes = mul i64 %wanted.rank, 8
  %same.shape = call i1 @mapsto.json.is(ptr %dims, i64 %dims.bytes, ptr %wanted.dims, i64 %wanted.dims.bytes)
  %begin.ptr = getelementptr %mapsto.entry, ptr %entry, i64 0, i32 3
  %stop.ptr = getelementptr %mapsto.entry, ptr %entry, i64 0, i32 4
  %begin = load i64, ptr %begin.ptr, align 8
  %stop = load i64, ptr %stop.ptr, align 8
  %size = sub i64 %stop, %begin
  %bytes.ptr = getelementptr %mapsto.tensor, ptr %tensor, i64 0, i32 7
  %bytes = load i64, ptr %bytes.ptr, align 8
  %same.type = and i1 %same.dtype, %same.shape
  br i1 %same.type, label %typed, label %different
different:
  ret i32 107
typed:
  %fits = icmp eq i64 %size, %bytes
  br i1 %fits, label %read, label %inconsistent
inconsistent:
  ret i32 106
read:
  %place.ptr = getelementptr %mapsto.tensor, ptr %tensor, i64 0, i32 6
  %place = load i64, ptr %place.ptr, align 8
  %target = getelementptr i8, ptr %base, i64 %place
  %from = add i64 %start, %begin
  %code = call i32 @mapsto.safetensors.read(i32 %file, ptr %target, i64 %bytes, i64 %from)
  ret i32 %code
}

; One tensor's description: an object of dtype, shape and data_offsets, in any order.
define internal i1 @mapsto.safetensors.entry(ptr %cursor, ptr %entry) {
  %key.ptr = alloca ptr, align 8
  %pair = alloca [2 x i64], align 8
  %dtype.length.ptr = getelementptr %mapsto.entry, ptr %entry, i64 0, i32 1
  %rank.ptr = getelementptr %mapsto.entry, ptr %entry, i64 0, i32 2
  %begin.ptr = getelementptr %mapsto.entry, ptr %entry, i64 0, i32 3
  %stop.ptr = getelementptr %mapsto.entry, ptr %entry, i64 0, i32 4
  %dims = getelementptr %mapsto.entry, ptr %entry, i64 0, i32 5
  store i64 -1, ptr %dtype.length.ptr, align 8
  store i64 -1, ptr %rank.ptr, align 8
  store i64 -1, ptr %begin.ptr, align 8
  %opened = call i1 @mapsto.json.accept(ptr %cursor, i32 123)
  br i1 %opened, label %member, label %invalid
member:
  %length = call i64 @mapsto.json.string(ptr %cursor, ptr %key.ptr)
  %named = icmp sge i64 %length, 0
  br i1 %named, label %colon, label %invalid
colon:
  %separated = call i1 @mapsto.json.accept(ptr %cursor, i32 58)
  br i1 %separated, label %which, label %invalid
which:
  %key = load ptr, ptr %key.ptr, align 8
  %is.dtype = call i1 @mapsto.json.is(ptr %key, i64 %length, ptr @mapsto.json.dtype, i64 5)
  br i1 %is.dtype, label %dtype, label %not.dtype
dtype:
  %dtype.length = call i64 @mapsto.json.string(ptr %cursor, ptr %entry)
  store i64 %dtype.length, ptr %dtype.length.ptr, align 8
  %typed = icmp sge i64 %dtype.length, 0
  br i1 %typed, label %next, label %invalid
not.dtype:
  %is.shape = call i1 @mapsto.json.is(ptr %key, i64 %length, ptr @mapsto.json.shape, i64 5)
  br i1 %is.shape, label %shape, label %not.shape
shape:
  %rank = call i64 @mapsto.json.numbers(ptr %cursor, ptr %dims, i64 32)
  store i64 %rank, ptr %rank.ptr, align 8
  %shaped = icmp sge i64 %rank, 0
  br i1 %shaped, label %next, label %invalid
not.shape:
  %is.offsets = call i1 @mapsto.json.is(ptr %key, i64 %length, ptr @mapsto.json.offsets, i64 12)
  br i1 %is.offsets, label %offsets, label %invalid
offsets:
  %numbers = call i64 @mapsto.json.numbers(ptr %cursor, ptr %pair, i64 2)
  %paired = icmp eq i64 %numbers, 2
  br i1 %paired, label %store, label %invalid
store:
  %begin = load i64, ptr %pair, align 8
  %second = getelementptr i64, ptr %pair, i64 1
  %stop = load i64, ptr %second, align 8
  store i64 %begin, ptr %begin.ptr, align 8
  store i64 %stop, ptr %stop.ptr, align 8
  br label %next
next:
  %continues = call i1 @mapsto.json.accept(ptr %cursor, i32 44)
  br i1 %continues, label %member, label %close
close:
  %closed = call i1 @mapsto.json.accept(ptr %cursor, i32 125)
  br i1 %closed, label %complete, label %invalid
complete:
  %a = load i64, ptr %dtype.length.ptr, align 8
  %b = load i64, ptr %rank.ptr, align 8
  %c = load i64, ptr %begin.ptr, align 8
  %ab = or i64 %a, %b
  %abc = or i64 %ab, %c
  %all = icmp sge i64 %abc, 0
  ret i1 %all
invalid:
  ret i1 false
}
