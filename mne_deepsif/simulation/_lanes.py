"""Sixteen numbers in one vector register, for numba kernels.

Numba's own loops are vectorised only where LLVM can prove that no two arrays
overlap, which fails for kernels with many arrays. These two types say it instead:
``Lanes`` (16 x float32) and ``LanesInt`` (16 x uint32), with arithmetic, ``load``,
``store``, ``splat`` and a few conversions. LLVM cuts them to what the processor has
(AVX-512, AVX2, NEON). Arithmetic uses fast-math rules: no NaN or infinity.

What these vectors are worth beside plain loops: ``benchmarks/timing/lanes.py``.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import operator

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

N_LANES = 16
_FLOAT = ir.VectorType(ir.FloatType(), N_LANES)
_INT = ir.VectorType(ir.IntType(32), N_LANES)


class _LanesType(types.Type):
    def __init__(self, name):
        super().__init__(name=name)


lanes = _LanesType("Lanes")
lanes_int = _LanesType("LanesInt")
_SCALAR = {lanes: types.float32, lanes_int: types.uint32}
_VECTOR = {lanes: _FLOAT, lanes_int: _INT}


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _VECTOR[fe_type])


def _broadcast(builder, value, vector):
    """Fill a vector with a scalar."""
    empty = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), N_LANES), [0] * N_LANES)
    return builder.shuffle_vector(one, empty, zeros)


def _register(op, name, kind):
    """Let ``op`` work on two vectors, or on a vector and a scalar."""
    scalar, vector = _SCALAR[kind], _VECTOR[kind]
    flags = ("fast",) if kind is lanes else ()

    for left, right in ((kind, kind), (scalar, kind), (kind, scalar)):

        @lower_builtin(op, left, right)
        def lower(context, builder, sig, args):
            args = [
                a if t is kind else _broadcast(builder, a, vector)
                for a, t in zip(args, sig.args, strict=True)
            ]
            return getattr(builder, name)(*args, flags=flags)


_OPERATORS = {
    operator.add: ("fadd", "add"),
    operator.sub: ("fsub", "sub"),
    operator.mul: ("fmul", "mul"),
    operator.truediv: ("fdiv", None),
    operator.xor: (None, "xor"),
    operator.lshift: (None, "shl"),
    operator.rshift: (None, "lshr"),
    operator.or_: (None, "or_"),
    operator.and_: (None, "and_"),
}
for _op, _names in _OPERATORS.items():
    _cases = []
    for _kind, _name in zip((lanes, lanes_int), _names, strict=True):
        if _name is None:
            continue
        _register(_op, _name, _kind)
        _s = _SCALAR[_kind]
        _cases += [
            signature(_kind, *pair)
            for pair in ((_kind, _kind), (_s, _kind), (_kind, _s))
        ]
    infer_global(_op)(type(f"_{_op.__name__}", (ConcreteTemplate,), {"cases": _cases}))


def _pointer(context, builder, array_type, array, index, vector):
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


@intrinsic
def load(typingctx, array, index):
    """Read 16 neighbouring elements of a flat array, from ``index`` on."""
    kind = lanes if array.dtype == types.float32 else lanes_int

    def codegen(context, builder, sig, args):
        pointer = _pointer(context, builder, sig.args[0], *args, _VECTOR[kind])
        return builder.load(pointer, align=4)

    return kind(array, types.intp), codegen


@intrinsic
def store(typingctx, array, index, value):
    """Write 16 neighbouring elements of a flat array, from ``index`` on."""

    def codegen(context, builder, sig, args):
        vector = _VECTOR[sig.args[2]]
        pointer = _pointer(context, builder, sig.args[0], *args[:2], vector)
        builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


def _unary(source, target, build):
    @intrinsic
    def function(typingctx, value):
        def codegen(context, builder, sig, args):
            return build(builder, args[0])

        return target(source), codegen

    return function


def _sqrt(builder, value):
    name, kind = f"llvm.sqrt.v{N_LANES}f32", ir.FunctionType(_FLOAT, [_FLOAT])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [value], fastmath=("fast",))


splat = _unary(types.float32, lanes, lambda b, v: _broadcast(b, v, _FLOAT))
sqrt = _unary(lanes, lanes, _sqrt)
as_float = _unary(lanes_int, lanes, lambda b, v: b.bitcast(v, _FLOAT))
as_int = _unary(lanes, lanes_int, lambda b, v: b.bitcast(v, _INT))
to_float = _unary(lanes_int, lanes, lambda b, v: b.sitofp(v, _FLOAT))  # as signed
to_int = _unary(lanes, lanes_int, lambda b, v: b.fptosi(v, _INT))


@intrinsic
def clip(typingctx, value, low, high):
    """Limit each lane to [low, high]."""

    def codegen(context, builder, sig, args):
        value = args[0]
        for bound, order in zip(args[1:], ("<", ">"), strict=True):
            bound = _broadcast(builder, bound, _FLOAT)
            outside = builder.fcmp_ordered(order, value, bound, flags=("fast",))
            value = builder.select(outside, bound, value)
        return value

    return lanes(lanes, types.float32, types.float32), codegen


def _fit(function, low, high, degree):
    """Fit a polynomial at Chebyshev nodes: within 2e-7 of the best one here."""
    nodes = np.cos(np.pi * (np.arange(200) + 0.5) / 200)
    x = low + (high - low) * (nodes + 1) / 2
    fit = np.polynomial.Polynomial.fit(x, function(x), degree).convert()
    return tuple(np.float32(c) for c in fit.coef)


_E0, _E1, _E2, _E3, _E4, _E5, _E6 = _fit(np.exp2, -0.5, 0.5, 6)
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = _fit(
    lambda x: np.log1p(x) / x, 0.5**0.5 - 1, 2**0.5 - 1, 8
)
_S0, _S1, _S2, _S3, _S4 = _fit(lambda w: np.pi * np.sinc(w**0.5), 0, 0.25, 4)
_C0, _C1, _C2, _C3, _C4, _C5 = _fit(lambda w: np.cos(np.pi * w**0.5), 0, 0.25, 5)
# typed constants: a bare Python number would turn float32 lanes into float64
_HALF, _ONE, _TWO, _M2 = (np.float32(c) for c in (0.5, 1, 2, -2))
_LOW, _HIGH, _ROUND = np.float32(-60), np.float32(60), np.float32(128.5)
_LN2, _TINY31, _TINY32 = np.float32(np.log(2)), np.float32(2**-31), np.float32(2**-32)
_U1, _U7, _U9, _U11, _U21, _U23, _U25 = (
    np.uint32(i) for i in (1, 7, 9, 11, 21, 23, 25)
)
_U127, _U128, _F128 = np.uint32(127), np.uint32(128), np.float32(128)
_SQRT_HALF, _MANTISSA = np.uint32(0x3F3504F3), np.uint32(0x7FFFFF)
_BIAS = np.uint32(0x40000000)


@njit(inline="always")
def exp2(x):
    """Two to the power of each lane, within 2e-7 for |x| < 2 (2e-6 at 40)."""
    x = clip(x, _LOW, _HIGH)
    whole = to_int(x + _ROUND) - _U128
    f = x - to_float(whole)
    p = _E0 + f * (_E1 + f * (_E2 + f * (_E3 + f * (_E4 + f * (_E5 + f * _E6)))))
    return p * as_float((whole + _U127) << _U23)


@njit(inline="always")
def logistic2(x):
    """Sigmoid ``1 / (1 + 2**x)`` of each lane."""
    return _ONE / (_ONE + exp2(x))


@njit(inline="always")
def _log(x):
    bits = as_int(x) - _SQRT_HALF
    exponent = to_float((bits + _BIAS) >> _U23) - _F128
    f = as_float((bits & _MANTISSA) + _SQRT_HALF) - _ONE
    p = _L4 + f * (_L5 + f * (_L6 + f * (_L7 + f * _L8)))
    p = _L0 + f * (_L1 + f * (_L2 + f * (_L3 + f * p)))
    return exponent * _LN2 + f * p


@njit(inline="always")
def _xoshiro(s0, s1, s2, s3):
    """One draw of xoshiro128++ per lane (Blackman and Vigna, public domain)."""
    total = s0 + s3
    draw = ((total << _U7) | (total >> _U25)) + s0
    shifted = s1 << _U9
    s2 = s2 ^ s0
    s3 = s3 ^ s1
    s1 = s1 ^ s2
    s0 = s0 ^ s3
    s2 = s2 ^ shifted
    s3 = (s3 << _U11) | (s3 >> _U21)
    return draw, s0, s1, s2, s3


@njit(inline="always")
def normal_pair(state):
    """Draw two standard normals per lane (Box-Muller, |z| < 6.7).

    ``state`` is a flat uint32 array of 4 x 16, one stream per lane, and is advanced.
    """
    s0, s1, s2, s3 = load(state, 0), load(state, 16), load(state, 32), load(state, 48)
    r1, s0, s1, s2, s3 = _xoshiro(s0, s1, s2, s3)
    r2, s0, s1, s2, s3 = _xoshiro(s0, s1, s2, s3)
    store(state, 0, s0)
    store(state, 16, s1)
    store(state, 32, s2)
    store(state, 48, s3)
    radius = sqrt(_M2 * _log((to_float(r1 >> _U1) + _HALF) * _TINY31))
    turn = to_float(r2) * _TINY32  # in [-1/2, 1/2)
    w = turn * turn
    sine = turn * (_S0 + w * (_S1 + w * (_S2 + w * (_S3 + w * _S4))))  # sin(pi turn)
    cosine = _C0 + w * (_C1 + w * (_C2 + w * (_C3 + w * (_C4 + w * _C5))))
    return radius * (_TWO * sine * cosine), radius * (_ONE - _TWO * sine * sine)


@njit(nogil=True, cache=True)
def draw_normals(state, out):
    """Fill ``out``, flat float32 of n x 16, row by row; rows come in pairs."""
    for row in range(0, out.size - 16, 32):
        first, second = normal_pair(state)
        store(out, row, first)
        store(out, row + 16, second)
    if out.size % 32:
        first, second = normal_pair(state)
        store(out, out.size - 16, first)
