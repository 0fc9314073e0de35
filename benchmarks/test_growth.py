"""How the time of a step grows with width, batch and depth: powers of two, as far as memory and time go.

The networks: four layers, W-W-W-W-1, on 128 rows; 256-256-256-256-1 on B rows; 64 wide and D layers deep on 128 rows.
Of fit's step and the matrix products alone at every size, and of JAX's jitted step at every other power, up to 64 deep:
it compiles for each. A size is left out, with all that are larger, where the peers' arrays and those of the check in
float64 would fill half of the memory, or where, by the size before it, it would take longer than its axis has:
`--growth-seconds` is for all three, and what an axis leaves over the next one has.
"""

import os
import time

import pytest
from conftest import skip
from networks import grown
from peers import FLOOR, MINIDL_STEP
from test_step import measure_steps

JAX = "JAX, jit a step"
EXPONENTS = {"width": range(3, 16), "batch": range(0, 21), "depth": range(0, 13)}
CASES = [
    (axis, 2**k, name)
    for axis, exponents in EXPONENTS.items()
    for k in exponents
    for name in (FLOOR, MINIDL_STEP, JAX)
    if name != JAX or ((k % 2 == 1 if axis == "width" else k % 2 == 0) and (axis != "depth" or k <= 6))
]
REFERENCE = 12  # numbers of 8 bytes that verify.py holds for each parameter, and for each unit of a row, about
EACH = 4  # numbers of 4 bytes of a peer: weights, gradients, m, v
started = {}  # "all" -> when the first size was
last = {}  # axis -> (flop, seconds that all took) of the largest size that was measured
left_out = {}  # axis -> why its larger sizes are


def why_left_out(axis, size, seconds):
    """Why a size is left out, or None. seconds: what all axes have."""
    case, now = grown(axis, size), time.perf_counter()
    numbers = case.parameters + case.batch * sum(case.widths)
    if numbers * (8 * REFERENCE + 4 * EACH * 2) > memory() / 2:
        return "its arrays, and those of the check, would fill half of the memory"
    started.setdefault("all", now)
    ends = started["all"] + seconds * (1 + list(EXPONENTS).index(axis)) / len(EXPONENTS)
    flop, taken = last.get(axis, (case.flop, 0.0))
    needed = taken * case.flop / flop
    if now + needed > ends:
        return f"it would take {needed:.0f} s, and its axis has {max(0, ends - now):.0f} s left"
    return None


def memory():
    """Bytes of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 * 2**30


def measure_growth(pool, names, axis, size, settings):
    settings = {
        "rounds": min(5, settings["rounds"]),
        "seconds": min(1, settings["seconds"]),
        "round_seconds": settings["round_seconds"] / 2,
    }
    start, case = time.perf_counter(), grown(axis, size)
    found = measure_steps(pool, names, case, settings, steps=1)
    last[axis] = case.flop, time.perf_counter() - start
    for result in found.values():
        if not isinstance(result, Exception):
            result[1].update(axis=axis, size=size)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("axis", "size", "name"), CASES)
def test_growth(request, compare, measured, pool, settings, axis, size, name):
    group = f"{axis} {size}"
    if group not in measured:
        if axis not in left_out:
            why = why_left_out(axis, size, request.config.getoption("growth_seconds"))
            if why:
                left_out[axis] = why
        if axis in left_out:
            skip(request, group, name, left_out[axis])
    compare(group, name, lambda names: measure_growth(pool, names, axis, size, settings))
