"""The instructions that compute: arithmetic, comparisons, casts, intrinsics, lanes.

Each method appends one line (or a short fixed sequence) to the current block and returns its
result.  Operands of one instruction must have equal types; nothing is broadcast or converted
silently.  LLVM's own functions for `exp`, `log`, `sin` and the like are absent on purpose: on
vectors they become scalar libm calls (see `vector_math`).
"""

from collections.abc import Sequence

from mapsto.lowering.llvm import half_precision
from mapsto.lowering.llvm.types import (
    FAST_MATH_TEXT,
    I32,
    FastMath,
    LLVMType,
    Operand,
    constant,
    undefined,
)


class InstructionWriter:
    """Appends instructions to `lines`; subclasses own the blocks and the declarations.

    `has_fma` false makes `fma` a multiplication and an addition: `llvm.fma` would call libm there.
    Such targets have no conversions of f16 either.
    """

    def __init__(self, has_fma: bool) -> None:
        self.has_fma = has_fma
        self.lines: list[str] = []
        self._values = 0

    def declare(self, name: str, result: LLVMType, parameters: Sequence[LLVMType]) -> None:
        """Make an external function or intrinsic known to the module."""
        raise NotImplementedError

    def emit(self, type: LLVMType, text: str) -> Operand:
        """Append `%new = text` and return the new value, of the given type."""
        self._values += 1
        name = f"%v{self._values}"
        self.lines.append(f"  {name} = {text}")
        return Operand(name, type)

    def emit_void(self, text: str) -> None:
        """Append an instruction without a result."""
        self.lines.append(f"  {text}")

    # ---- floating-point arithmetic

    def _float(self, name: str, a: Operand, b: Operand, flags: FastMath) -> Operand:
        _check_same(name, a, b)
        return self.emit(a.type, f"{name} {FAST_MATH_TEXT[flags]}{a.type.text} {a.text}, {b.text}")

    def fadd(self, a: Operand, b: Operand, flags: FastMath = FastMath.NONE) -> Operand:
        return self._float("fadd", a, b, flags)

    def fsub(self, a: Operand, b: Operand, flags: FastMath = FastMath.NONE) -> Operand:
        return self._float("fsub", a, b, flags)

    def fmul(self, a: Operand, b: Operand, flags: FastMath = FastMath.NONE) -> Operand:
        return self._float("fmul", a, b, flags)

    def fdiv(self, a: Operand, b: Operand, flags: FastMath = FastMath.NONE) -> Operand:
        return self._float("fdiv", a, b, flags)

    def frem(self, a: Operand, b: Operand) -> Operand:
        """The remainder with the dividend's sign; LLVM calls libm's `fmod` for each lane."""
        return self._float("frem", a, b, FastMath.NONE)

    def fneg(self, a: Operand) -> Operand:
        return self.emit(a.type, f"fneg {a.type.text} {a.text}")

    def fma(self, a: Operand, b: Operand, c: Operand, flags: FastMath = FastMath.NONE) -> Operand:
        """`a * b + c`, rounded once where the target has the instruction, else twice."""
        if self.has_fma:
            return self.intrinsic("fma", a, b, c, flags=flags)
        return self.fadd(self.fmul(a, b, flags), c, flags)

    # ---- integer arithmetic

    def _integer(self, name: str, a: Operand, b: Operand) -> Operand:
        _check_same(name, a, b)
        return self.emit(a.type, f"{name} {a.type.text} {a.text}, {b.text}")

    def add(self, a: Operand, b: Operand, wrap: str = "") -> Operand:
        """Integer addition; `wrap` may be "nsw", "nuw" or "nuw nsw" as in LLVM."""
        return self._integer(f"add {wrap}" if wrap else "add", a, b)

    def sub(self, a: Operand, b: Operand, wrap: str = "") -> Operand:
        return self._integer(f"sub {wrap}" if wrap else "sub", a, b)

    def mul(self, a: Operand, b: Operand, wrap: str = "") -> Operand:
        return self._integer(f"mul {wrap}" if wrap else "mul", a, b)

    def sdiv(self, a: Operand, b: Operand) -> Operand:
        return self._integer("sdiv", a, b)

    def udiv(self, a: Operand, b: Operand) -> Operand:
        return self._integer("udiv", a, b)

    def srem(self, a: Operand, b: Operand) -> Operand:
        return self._integer("srem", a, b)

    def urem(self, a: Operand, b: Operand) -> Operand:
        return self._integer("urem", a, b)

    def and_(self, a: Operand, b: Operand) -> Operand:
        return self._integer("and", a, b)

    def or_(self, a: Operand, b: Operand) -> Operand:
        return self._integer("or", a, b)

    def xor(self, a: Operand, b: Operand) -> Operand:
        return self._integer("xor", a, b)

    def not_(self, a: Operand) -> Operand:
        return self.xor(a, constant(a.type, -1 if a.type.kind != "i1" else 1))

    def shl(self, a: Operand, b: Operand) -> Operand:
        return self._integer("shl", a, b)

    def lshr(self, a: Operand, b: Operand) -> Operand:
        return self._integer("lshr", a, b)

    def ashr(self, a: Operand, b: Operand) -> Operand:
        return self._integer("ashr", a, b)

    # ---- comparisons and selection

    def icmp(self, predicate: str, a: Operand, b: Operand) -> Operand:
        """`predicate`: eq ne slt sle sgt sge ult ule ugt uge."""
        _check_same("icmp", a, b)
        return self.emit(a.type.mask, f"icmp {predicate} {a.type.text} {a.text}, {b.text}")

    def fcmp(self, predicate: str, a: Operand, b: Operand) -> Operand:
        """`predicate`: oeq ogt oge olt ole one ord ueq ugt uge ult ule une uno."""
        _check_same("fcmp", a, b)
        return self.emit(a.type.mask, f"fcmp {predicate} {a.type.text} {a.text}, {b.text}")

    def select(self, condition: Operand, a: Operand, b: Operand) -> Operand:
        """`a` where the condition (i1, or one for each lane) holds, else `b`."""
        _check_same("select", a, b)
        return self.emit(a.type, f"select {condition}, {a}, {b}")

    # ---- casts

    def _cast(self, name: str, a: Operand, to: LLVMType) -> Operand:
        return self.emit(to, f"{name} {a} to {to.text}")

    def sitofp(self, a: Operand, to: LLVMType) -> Operand:
        return self._cast("sitofp", a, to)

    def uitofp(self, a: Operand, to: LLVMType) -> Operand:
        return self._cast("uitofp", a, to)

    def fptosi(self, a: Operand, to: LLVMType) -> Operand:
        """Toward zero; poison when out of range."""
        return self._cast("fptosi", a, to)

    def fptosi_saturating(self, a: Operand, to: LLVMType) -> Operand:
        """Toward zero, clamped to the integer's range, NaN to 0."""
        return self._overloaded("fptosi.sat", to, (a,))

    def fptoui_saturating(self, a: Operand, to: LLVMType) -> Operand:
        return self._overloaded("fptoui.sat", to, (a,))

    def fptrunc(self, a: Operand, to: LLVMType) -> Operand:
        """To a narrower float, to nearest even; f64 reaches 16 bits through f32."""
        if to.bits == 16 and a.type.bits == 64:
            return self.fptrunc(self.fptrunc(a, a.type.with_kind("float")), to)
        if to.kind == "bfloat":
            return half_precision.round_to_bfloat(self, a)
        if to.kind == "half" and not self.has_fma:
            return half_precision.round_to_half(self, a)
        return self._cast("fptrunc", a, to)

    def fpext(self, a: Operand, to: LLVMType) -> Operand:
        """To a wider float."""
        extend = half_precision.extension(a.type.kind, self.has_fma)
        if extend is None:
            return self._cast("fpext", a, to)
        single = extend(self, a, a.type.with_kind("float"))
        return single if to.bits == 32 else self._cast("fpext", single, to)

    def zext(self, a: Operand, to: LLVMType) -> Operand:
        return self._cast("zext", a, to)

    def sext(self, a: Operand, to: LLVMType) -> Operand:
        return self._cast("sext", a, to)

    def trunc(self, a: Operand, to: LLVMType) -> Operand:
        return self._cast("trunc", a, to)

    def bitcast(self, a: Operand, to: LLVMType) -> Operand:
        return self._cast("bitcast", a, to)

    def ptrtoint(self, a: Operand, to: LLVMType) -> Operand:
        return self._cast("ptrtoint", a, to)

    # ---- intrinsics

    def intrinsic(self, name: str, *arguments: Operand, flags: FastMath = FastMath.NONE) -> Operand:
        """`llvm.NAME` overloaded on one type, that of every argument and of the result."""
        type = arguments[0].type
        full = f"llvm.{name}.{type.suffix}"
        self.declare(full, type, [type] * len(arguments))
        operands = ", ".join(f"{type.text} {argument.text}" for argument in arguments)
        return self.emit(type, f"call {FAST_MATH_TEXT[flags]}{type.text} @{full}({operands})")

    def _overloaded(self, name: str, result: LLVMType, arguments: Sequence[Operand]) -> Operand:
        types = [argument.type for argument in arguments]
        full = ".".join([f"llvm.{name}", result.suffix, *(type.suffix for type in types)])
        self.declare(full, result, types)
        operands = ", ".join(map(str, arguments))
        return self.emit(result, f"call {result.text} @{full}({operands})")

    def sqrt(self, a: Operand) -> Operand:
        return self.intrinsic("sqrt", a)

    def fabs(self, a: Operand) -> Operand:
        return self.intrinsic("fabs", a)

    def floor(self, a: Operand) -> Operand:
        return self.intrinsic("floor", a)

    def ceil(self, a: Operand) -> Operand:
        return self.intrinsic("ceil", a)

    def round_to_integral(self, a: Operand) -> Operand:
        """To the nearest integer, ties to even."""
        return self.intrinsic("roundeven", a)

    def truncate_to_integral(self, a: Operand) -> Operand:
        return self.intrinsic("trunc", a)

    def copysign(self, magnitude: Operand, sign: Operand) -> Operand:
        return self.intrinsic("copysign", magnitude, sign)

    def minnum(self, a: Operand, b: Operand) -> Operand:
        """The smaller; the other where one is NaN."""
        return self.intrinsic("minnum", a, b)

    def maxnum(self, a: Operand, b: Operand) -> Operand:
        return self.intrinsic("maxnum", a, b)

    def minimum(self, a: Operand, b: Operand) -> Operand:
        """The smaller; NaN where either is NaN; -0 before +0."""
        return self.intrinsic("minimum", a, b)

    def maximum(self, a: Operand, b: Operand) -> Operand:
        return self.intrinsic("maximum", a, b)

    def smin(self, a: Operand, b: Operand) -> Operand:
        return self.intrinsic("smin", a, b)

    def smax(self, a: Operand, b: Operand) -> Operand:
        return self.intrinsic("smax", a, b)

    def umin(self, a: Operand, b: Operand) -> Operand:
        return self.intrinsic("umin", a, b)

    def umax(self, a: Operand, b: Operand) -> Operand:
        return self.intrinsic("umax", a, b)

    def absolute(self, a: Operand) -> Operand:
        """Absolute value of an integer; that of the least integer is itself."""
        return self.select(
            self.icmp("slt", a, constant(a.type, 0)), self.sub(constant(a.type, 0), a), a
        )

    # ---- lanes

    def splat(self, scalar: Operand, lanes: int) -> Operand:
        """A vector with `scalar` in every lane; the scalar itself for one lane."""
        if lanes == 1:
            return scalar
        vector = scalar.type.vector(lanes)
        first = self.insertelement(undefined(vector), scalar, 0)
        return self.shufflevector(first, undefined(vector), [0] * lanes)

    def insertelement(self, vector: Operand, scalar: Operand, index: int | Operand) -> Operand:
        return self.emit(vector.type, f"insertelement {vector}, {scalar}, {_index(index)}")

    def extractelement(self, vector: Operand, index: int | Operand) -> Operand:
        return self.emit(vector.type.scalar, f"extractelement {vector}, {_index(index)}")

    def shufflevector(self, a: Operand, b: Operand, lanes: Sequence[int]) -> Operand:
        """Lanes of `a` followed by those of `b`, picked by number; -1 leaves a lane undefined."""
        _check_same("shufflevector", a, b)
        if len(set(lanes)) == 1 and lanes[0] == 0:
            mask = "zeroinitializer"
        else:
            picks = ("i32 poison" if lane < 0 else f"i32 {lane}" for lane in lanes)
            mask = f"<{', '.join(picks)}>"
        type = a.type.vector(len(lanes))
        return self.emit(type, f"shufflevector {a}, {b}, <{len(lanes)} x i32> {mask}")

    def reduce(
        self,
        kind: str,
        a: Operand,
        start: Operand | None = None,
        flags: FastMath = FastMath.REASSOC,
    ) -> Operand:
        """Combine the lanes of a vector into a scalar.

        `kind`: fadd and fmul (which need `start`), fmin fmax fminimum fmaximum, add mul and or xor
        smin smax umin umax.  A sum or product is a tree in no fixed order unless `flags` is `NONE`.
        """
        scalar = a.type.scalar
        types = [a.type] if start is None else [scalar, a.type]
        operands = str(a) if start is None else f"{start}, {a}"
        name = f"llvm.vector.reduce.{kind}.{a.type.suffix}"
        self.declare(name, scalar, types)
        flag = FAST_MATH_TEXT[flags] if scalar.is_float else ""
        return self.emit(scalar, f"call {flag}{scalar.text} @{name}({operands})")


def _index(index: int | Operand) -> str:
    return str(constant(I32, index)) if isinstance(index, int) else str(index)


def _check_same(name: str, a: Operand, b: Operand) -> None:
    if a.type != b.type:
        raise TypeError(f"{name} of {a.type} and {b.type}")
