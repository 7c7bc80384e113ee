; Reads JSON from memory, as far as the header of a safetensors file needs it: objects, strings and
; lists of natural numbers.  A part of safetensors_loader.ll.

%mapsto.cursor = type { ptr, ptr } ; next byte, end

declare i32 @memcmp(ptr, ptr, i64)

; The next byte after white space, which stays; -1 at the end.
define internal i32 @mapsto.json.peek(ptr %cursor) {
  %end.ptr = getelementptr %mapsto.cursor, ptr %cursor, i64 0, i32 1
  %end = load ptr, ptr %end.ptr, align 8
  br label %loop
loop:
  %at = load ptr, ptr %cursor, align 8
  %over = icmp eq ptr %at, %end
  br i1 %over, label %none, label %look
look:
  %byte = load i8, ptr %at, align 1
  switch i8 %byte, label %found [
    i8 32, label %skip
    i8 9, label %skip
    i8 10, label %skip
    i8 13, label %skip
  ]
skip:
  %next = getelementptr i8, ptr %at, i64 1
  store ptr %next, ptr %cursor, align 8
  br label %loop
found:
  %value = zext i8 %byte to i32
  ret i32 %value
none:
  ret i32 -1
}

; Steps over a character, if it comes next.
define internal i1 @mapsto.json.accept(ptr %cursor, i32 %character) {
  %next = call i32 @mapsto.json.peek(ptr %cursor)
  %same = icmp eq i32 %next, %character
  br i1 %same, label %step, label %done
step:
  %at = load ptr, ptr %cursor, align 8
  %after = getelementptr i8, ptr %at, i64 1
  store ptr %after, ptr %cursor, align 8
  br label %done
done:
  ret i1 %same
}

; The length of a string, escapes as they stand, and its address; -1 if there is none.
define internal i64 @mapsto.json.string(ptr %cursor, ptr %address) {
  %end.ptr = getelementptr %mapsto.cursor, ptr %cursor, i64 0, i32 1
  %end = load ptr, ptr %end.ptr, align 8
  %opened = call i1 @mapsto.json.accept(ptr %cursor, i32 34)
  br i1 %opened, label %start, label %none
start:
  %begin = load ptr, ptr %cursor, align 8
  br label %loop
loop:
  %at = phi ptr [ %begin, %start ], [ %following, %plain ], [ %beyond, %escape ]
  %over = icmp uge ptr %at, %end
  br i1 %over, label %none, label %look
look:
  %byte = load i8, ptr %at, align 1
  %following = getelementptr i8, ptr %at, i64 1
  switch i8 %byte, label %plain [
    i8 34, label %close
    i8 92, label %escape
  ]
plain:
  br label %loop
escape:
  %beyond = getelementptr i8, ptr %at, i64 2
  br label %loop
close:
  store ptr %following, ptr %cursor, align 8
  store ptr %begin, ptr %address, align 8
  %last = ptrtoint ptr %at to i64
  %first = ptrtoint ptr %begin to i64
  %length = sub i64 %last, %first
  ret i64 %length
none:
  ret i64 -1
}

; A natural number below 2^56; -1 if there is none.
define internal i64 @mapsto.json.number(ptr %cursor) {
  %end.ptr = getelementptr %mapsto.cursor, ptr %cursor, i64 0, i32 1
  %end = load ptr, ptr %end.ptr, align 8
  %next = call i32 @mapsto.json.peek(ptr %cursor)
  %begin = load ptr, ptr %cursor, align 8
  br label %loop
loop:
  %at = phi ptr [ %begin, %0 ], [ %after, %digit ]
  %value = phi i64 [ 0, %0 ], [ %sum, %digit ]
  %over = icmp eq ptr %at, %end
  br i1 %over, label %done, label %look
look:
  %byte = load i8, ptr %at, align 1
  %offset = sub i8 %byte, 48
  %is.digit = icmp ult i8 %offset, 10
  br i1 %is.digit, label %digit, label %done
digit:
  %wide = zext i8 %offset to i64
  %scaled = mul i64 %value, 10
  %sum = add i64 %scaled, %wide
  %after = getelementptr i8, ptr %at, i64 1
  %large = icmp ugt i64 %sum, 72057594037927936
  br i1 %large, label %none, label %loop
done:
  %empty = icmp eq ptr %at, %begin
  br i1 %empty, label %none, label %some
some:
  store ptr %at, ptr %cursor, align 8
  ret i64 %value
none:
  ret i64 -1
}

; The count of a list of numbers, written to an array; -1 if there is none or it is too long.
define internal i64 @mapsto.json.numbers(ptr %cursor, ptr %array, i64 %capacity) {
  %opened = call i1 @mapsto.json.accept(ptr %cursor, i32 91)
  br i1 %opened, label %first, label %none
first:
  %empty = call i1 @mapsto.json.accept(ptr %cursor, i32 93)
  br i1 %empty, label %zero, label %loop
zero:
  ret i64 0
loop:
  %count = phi i64 [ 0, %first ], [ %more, %next ]
  %number = call i64 @mapsto.json.number(ptr %cursor)
  %good = icmp sge i64 %number, 0
  %room = icmp slt i64 %count, %capacity
  %keep = and i1 %good, %room
  br i1 %keep, label %next, label %none
next:
  %slot = getelementptr i64, ptr %array, i64 %count
  store i64 %number, ptr %slot, align 8
  %more = add i64 %count, 1
  %continues = call i1 @mapsto.json.accept(ptr %cursor, i32 44)
  br i1 %continues, label %loop, label %close
close:
  %closed = call i1 @mapsto.json.accept(ptr %cursor, i32 93)
  br i1 %closed, label %done, label %none
done:
  ret i64 %more
none:
  ret i64 -1
}

; Steps over an object whose values are strings.
define internal i1 @mapsto.json.skip(ptr %cursor) {
  %ignored = alloca ptr, align 8
  %opened = call i1 @mapsto.json.accept(ptr %cursor, i32 123)
  br i1 %opened, label %first, label %invalid
first:
  %empty = call i1 @mapsto.json.accept(ptr %cursor, i32 125)
  br i1 %empty, label %done, label %member
member:
  %key = call i64 @mapsto.json.string(ptr %cursor, ptr %ignored)
  %separated = call i1 @mapsto.json.accept(ptr %cursor, i32 58)
  %value = call i64 @mapsto.json.string(ptr %cursor, ptr %ignored)
  %least = or i64 %key, %value
  %strings = icmp sge i64 %least, 0
  %good = and i1 %strings, %separated
  br i1 %good, label %next, label %invalid
next:
  %continues = call i1 @mapsto.json.accept(ptr %cursor, i32 44)
  br i1 %continues, label %member, label %close
close:
  %closed = call i1 @mapsto.json.accept(ptr %cursor, i32 125)
  br i1 %closed, label %done, label %invalid
done:
  ret i1 true
invalid:
  ret i1 false
}

; Whether two pieces of memory are the same.
define internal i1 @mapsto.json.is(ptr %a, i64 %a.length, ptr %b, i64 %b.length) {
  %equal = icmp eq i64 %a.length, %b.length
  br i1 %equal, label %compare, label %no
compare:
  %order = call i32 @memcmp(ptr %a, ptr %b, i64 %a.length)
  %same = icmp eq i32 %order, 0
  ret i1 %same
no:
  ret i1 false
}
