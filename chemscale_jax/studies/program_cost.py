"""Floating-point operations and memory of a program, counted without running it.

JAX traces a program to a list of operations on arrays of known shapes before XLA
compiles it. They are counted here: a matrix product of (m, k) and (k, n) as 2 m k n,
any other arithmetic as one per number that comes out (reductions: that goes in), and
the body of a loop as often as it is run. XLA's own count of the compiled program takes
the body of a loop once, whatever its length, so that it is of no use for networks that
scan over their layers; without loops the two agree, which a test holds them to.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from chemscale_jax.studies.devices import Cost

# Operations that move or name numbers and compute none.
_MOVES = frozenset(
    """
    broadcast_in_dim reshape transpose squeeze expand_dims convert_element_type
    bitcast_convert_type copy copy_p device_put stop_gradient optimization_barrier
    iota rng_bit_generator random_seed random_wrap random_unwrap random_fold_in
    random_bits random_split threefry2x32 slice dynamic_slice dynamic_update_slice
    gather scatter concatenate pad rev split select_n sharding_constraint pvary
    mesh_cast reduce_precision create_token
    """.split()
)
# Of what goes in, one each.
_REDUCTIONS = frozenset(
    """
    reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin
    cumsum cumlogsumexp cummax cummin cumprod
    """.split()
)
# Operations that XLA does not melt into those that read their result, so that arrays
# go to memory and back: all that goes in and out, of reductions what comes out.
_ANCHORS = frozenset(
    "dot_general conv_general_dilated gather sort dynamic_slice".split()
)
# Never kept: a loop that reads it makes the numbers as it needs them.
_FREE = frozenset({"broadcast_in_dim", "iota", "reshape", "squeeze", "expand_dims"})


def cost_of(function: Any, *args: Any) -> Cost:
    """The cost of ``function(*args)``.

    Args:
        function: can be traced by JAX.
        *args: trees of arrays or of ``jax.ShapeDtypeStruct``.
    """
    closed = jax.make_jaxpr(function)(*args)
    return _count(closed.jaxpr)


def _count(jaxpr: Jaxpr) -> Cost:
    flops = operations = traffic = 0.0
    open_loops = 0
    alive = peak = 0.0
    last_use = _last_uses(jaxpr)
    for index, eqn in enumerate(jaxpr.eqns):
        name = eqn.primitive.name
        times, inner = _inner(eqn)
        within = 0.0
        if inner:
            costs = [_count(sub) for sub in inner]
            # Of several branches one is taken; the largest is counted.
            most = max(costs, key=lambda cost: cost.flops)
            flops += times * most.flops
            operations += times * most.operations
            traffic += times * most.traffic_bytes
            open_loops += most.open_loops + (name == "while")
            within = max(cost.peak_bytes for cost in costs)
        else:
            flops += _flops(eqn)
            operations += name not in _MOVES
            if name in _ANCHORS or "scatter" in name:
                traffic += sum(map(_bytes, (*eqn.invars, *eqn.outvars)))
            elif name in _REDUCTIONS:
                traffic += sum(map(_bytes, eqn.outvars))
        kept = 0.0 if name in _FREE else float(sum(map(_bytes, eqn.outvars)))
        alive += kept
        peak = max(peak, alive + within)
        alive -= sum(last_use.get(index, ()))
    return Cost(flops, operations, traffic, peak, open_loops)


def _last_uses(jaxpr: Jaxpr) -> dict[int, list[float]]:
    """Number of an operation -> sizes of results that nobody reads after it."""
    made: dict[Any, float] = {}
    last: dict[Any, int] = {}
    for index, eqn in enumerate(jaxpr.eqns):
        for var in eqn.invars:
            if not isinstance(var, Literal) and var in made:
                last[var] = index
        for var in eqn.outvars:
            if eqn.primitive.name not in _FREE:
                made[var] = float(_bytes(var))
                last[var] = index
    results = {var for var in jaxpr.outvars if not isinstance(var, Literal)}
    ends: dict[int, list[float]] = {}
    for var, index in last.items():
        if var not in results:
            ends.setdefault(index, []).append(made[var])
    return ends


def _inner(eqn: Any) -> tuple[float, list[Jaxpr]]:
    """How often an operation runs programs of its own, and which."""
    if eqn.primitive.name == "scan":
        return float(eqn.params["length"]), [eqn.params["jaxpr"].jaxpr]
    if eqn.primitive.name == "while":
        return 1.0, [eqn.params["body_jaxpr"].jaxpr]
    if eqn.primitive.name.startswith(("custom_jvp", "custom_vjp")):
        # The rule for derivatives is not run here.
        called = eqn.params.get("call_jaxpr", eqn.params.get("fun_jaxpr"))
        return 1.0, [called.jaxpr if isinstance(called, ClosedJaxpr) else called]
    if "scatter" in eqn.primitive.name or "reduce" in eqn.primitive.name:
        return 1.0, []  # what they hold says how two numbers are joined
    return 1.0, list(_programs(eqn.params.values()))


def _programs(values: Any) -> Iterator[Jaxpr]:
    for value in values:
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _programs(value)


def _flops(eqn: Any) -> float:
    name = eqn.primitive.name
    if name in _MOVES:
        return 0.0
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        inner = math.prod(shape[axis] for axis in contracted)
        return 2.0 * _size(eqn.outvars[0]) * inner
    if name == "conv_general_dilated":
        numbers = eqn.params["dimension_numbers"]
        kernel = eqn.invars[1].aval.shape
        window = math.prod(kernel[axis] for axis in numbers.rhs_spec[1:])
        return 2.0 * _size(eqn.outvars[0]) * window
    if name in _REDUCTIONS:
        return float(_size(eqn.invars[0]))
    if "scatter" in name:  # with an operation, such as scatter-add: one per update
        return float(_size(eqn.invars[-1]))
    if name == "sort":
        n = max(eqn.invars[0].aval.shape[eqn.params["dimension"]], 2)
        return float(_size(eqn.invars[0])) * math.log2(n)
    return float(sum(map(_size, eqn.outvars)))


def _size(var: Any) -> int:
    return math.prod(getattr(var.aval, "shape", ()))


def _bytes(var: Any) -> int:
    dtype = getattr(var.aval, "dtype", None)
    return _size(var) * getattr(dtype, "itemsize", 4)
