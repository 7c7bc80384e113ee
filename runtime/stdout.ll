; Where a library writes what its programs print: the standard output of C.

@text_format = private constant [5 x i8] c"%.*s\00"

declare i32 @printf(ptr, ...)
declare i32 @fflush(ptr)

define void @mapsto_write(ptr %text, i64 %bytes) {
  %count = trunc i64 %bytes to i32
  %written = call i32 (ptr, ...) @printf(ptr @text_format, i32 %count, ptr %text)
  %flushed = call i32 @fflush(ptr null)
  ret void
}
