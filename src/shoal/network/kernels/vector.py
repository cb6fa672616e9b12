"""Vectors of 16 numbers as values inside numba functions.

numba leaves vectorisation to LLVM, which does well on plain loops and badly on those a sparse
kernel is made of: add up a few gathered rows with the sum in registers, turn a comparison
into a bit mask. Here is the little that it takes to write those out. A vector has `LANES`
entries on every machine; LLVM splits it into the registers that there are.

An argument `like` is an array whose entries' precision the result has. 16-bit unsigned
integers are read as bfloat16, the upper halves of float32.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

__all__ = [
    "LANES",
    "absolute",
    "add",
    "at_least",
    "count_bits",
    "entry",
    "first_bit",
    "lane_of",
    "load",
    "load_part",
    "maximum",
    "multiply_add",
    "select",
    "splat",
    "store",
    "store_part",
    "total",
]

LANES = 16

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_FLOATS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}
_NAMES = {ir.FloatType(): "f32", ir.DoubleType(): "f64", _I16: "i16"}


class _Vector(types.Type):
    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"Vector({LANES} x {dtype})")


_VECTORS = {dtype: _Vector(dtype) for dtype in _FLOATS}


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, ir.VectorType(_FLOATS[vector.dtype], LANES))


# --- building blocks in LLVM's words ----------------------------------------------------------


def _precision(array):
    """The numba type in which the entries of an array are read."""
    return types.float32 if array.dtype == types.uint16 else array.dtype


def _call(builder, name, result, *args, fastmath=()):
    signature = ir.FunctionType(result, [arg.type for arg in args])
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    return builder.call(function, args, fastmath=fastmath)


def _kind(vector):
    return f"v{vector.count}{_NAMES[vector.element]}"


def _repeat(builder, x):
    vector = ir.VectorType(x.type, LANES)
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, x, _I32(0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_I32, LANES), None))


def _lanes_below(builder, n):
    ramp = ir.Constant(ir.VectorType(_I64, LANES), [_I64(lane) for lane in range(LANES)])
    return builder.icmp_signed("<", ramp, _repeat(builder, n))


def _pointer(context, builder, array_type, array, index):
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _vector_pointer(context, builder, array_type, array, index):
    pointer = _pointer(context, builder, array_type, array, index)
    element = context.get_data_type(array_type.dtype)
    vector = ir.VectorType(element, LANES)
    align = context.get_abi_sizeof(element)
    return builder.bitcast(pointer, vector.as_pointer()), vector, align


def _widened(builder, value, target):
    """Bits of bfloat16 as floats, and floats in the precision of `target`; or as they are."""
    bits = {_I16: _I32, ir.VectorType(_I16, LANES): ir.VectorType(_I32, LANES)}.get(value.type)
    if bits is not None:
        shift = _I32(16) if bits == _I32 else _repeat(builder, _I32(16))
        floats = ir.FloatType() if bits == _I32 else ir.VectorType(ir.FloatType(), LANES)
        value = builder.bitcast(builder.shl(builder.zext(value, bits), shift), floats)
    return value if value.type == target else builder.fpext(value, target)


def _operation(build):
    """An intrinsic on vectors of one type that gives such a vector."""

    def codegen(context, builder, signature, args):
        return build(builder, *args)

    return codegen


# --- reading and writing ----------------------------------------------------------------------


def _load(context, builder, signature, args):
    pointer, vector, align = _vector_pointer(context, builder, signature.args[1], *args[1:3])
    if len(args) == 3:
        value = builder.load(pointer, align=align)
    else:
        mask, zeros = _lanes_below(builder, args[3]), ir.Constant(vector, None)
        name = f"llvm.masked.load.{_kind(vector)}.p0"
        value = _call(builder, name, vector, pointer, _I32(align), mask, zeros)
    return _widened(builder, value, context.get_value_type(signature.return_type))


@intrinsic
def load(typing_context, like, array, index):
    """array[index : index + LANES] of a 1-d array."""
    return _VECTORS[_precision(like)](like, array, types.intp), _load


@intrinsic
def load_part(typing_context, like, array, index, n):
    """array[index : index + n], then zeros; n <= LANES, and nothing beyond is read."""
    return _VECTORS[_precision(like)](like, array, types.intp, types.intp), _load


@intrinsic
def entry(typing_context, like, array, index):
    """array[index] as a number."""

    def codegen(context, builder, signature, args):
        value = builder.load(_pointer(context, builder, signature.args[1], *args[1:3]))
        return _widened(builder, value, context.get_value_type(signature.return_type))

    return _precision(like)(like, array, types.intp), codegen


def _store(context, builder, signature, args):
    pointer, vector, align = _vector_pointer(context, builder, signature.args[0], *args[:2])
    if len(args) == 3:
        builder.store(args[2], pointer, align=align)
    else:
        mask, name = _lanes_below(builder, args[3]), f"llvm.masked.store.{_kind(vector)}.p0"
        _call(builder, name, ir.VoidType(), args[2], pointer, _I32(align), mask)
    return context.get_dummy_value()


@intrinsic
def store(typing_context, array, index, vector):
    """array[index : index + LANES] = vector."""
    return types.void(array, types.intp, vector), _store


@intrinsic
def store_part(typing_context, array, index, vector, n):
    """array[index : index + n] = vector[:n]; nothing beyond is touched."""
    return types.void(array, types.intp, vector, types.intp), _store


@intrinsic
def splat(typing_context, like, x):
    """All lanes x, rounded to the precision of `like`."""
    dtype = _precision(like)

    def codegen(context, builder, signature, args):
        return _repeat(builder, context.cast(builder, args[1], signature.args[1], dtype))

    return _VECTORS[dtype](like, x), codegen


# --- arithmetic -------------------------------------------------------------------------------


@intrinsic
def add(typing_context, a, b):
    """a + b."""
    return a(a, b), _operation(lambda builder, a, b: builder.fadd(a, b))


@intrinsic
def multiply_add(typing_context, a, b, c):
    """a * b + c, rounded once."""

    def build(builder, *args):
        return _call(builder, f"llvm.fma.{_kind(args[0].type)}", args[0].type, *args)

    return a(a, b, c), _operation(build)


@intrinsic
def absolute(typing_context, a):
    """|a|."""

    def build(builder, a):
        return _call(builder, f"llvm.fabs.{_kind(a.type)}", a.type, a)

    return a(a), _operation(build)


@intrinsic
def maximum(typing_context, a, b):
    """The larger of a and b; b where either is NaN."""
    build = lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b)  # noqa: E731
    return a(a, b), _operation(build)


@intrinsic
def select(typing_context, flag, a, b):
    """a if the flag is set, else b."""
    build = lambda builder, flag, a, b: builder.select(flag, a, b)  # noqa: E731
    return a(types.boolean, a, b), _operation(build)


@intrinsic
def total(typing_context, a):
    """The sum of the lanes, in an order that is the machine's."""

    def build(builder, a):
        name, zero = f"llvm.vector.reduce.fadd.{_kind(a.type)}", a.type.element(-0.0)
        return _call(builder, name, a.type.element, zero, a, fastmath=("reassoc",))

    return a.dtype(a), _operation(build)


@intrinsic
def lane_of(typing_context, a, lane):
    """The number in a lane."""
    return a.dtype(a, types.intp), _operation(lambda builder, a, n: builder.extract_element(a, n))


# --- bits -------------------------------------------------------------------------------------


@intrinsic
def at_least(typing_context, a, b):
    """Bit l set where lane l of a is at least that of b; clear where either is NaN."""

    def build(builder, a, b):
        mask = builder.fcmp_ordered(">=", a, b)
        return builder.zext(builder.bitcast(mask, ir.IntType(LANES)), _I64)

    return types.uint64(a, b), _operation(build)


@intrinsic
def first_bit(typing_context, bits):
    """The index of the lowest set bit, 64 if there is none."""
    none = ir.Constant(ir.IntType(1), 0)
    return types.intp(types.uint64), _operation(lambda builder, bits: builder.cttz(bits, none))


@intrinsic
def count_bits(typing_context, bits):
    """How many bits are set."""
    return types.intp(types.uint64), _operation(lambda builder, bits: builder.ctpop(bits))
