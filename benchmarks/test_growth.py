"""How the time of a step grows with width, batch and depth: powers of two, as far as memory and time go.

The networks: four layers, W-W-W-W-1, on 128 rows; 256-256-256-256-1 on B rows; 64 wide and D layers deep on 128 rows.
Of fit's step, JAX's jitted one, and the matrix products alone. A size is left out where its arrays would fill a quarter
of the memory, or where a step would take over half a second by the size before it.
"""

import os

import pytest
from conftest import skip
from networks import grown
from peers import FLOOR, MINIDL_STEP
from test_step import measure_steps

NAMES = [FLOOR, MINIDL_STEP, "JAX, jit a step"]
SIZES = {
    "width": [2**k for k in range(3, 15)],
    "batch": [2**k for k in range(0, 17)],
    "depth": [2**k for k in range(0, 9)],
}
LONGEST = 0.5  # seconds of a step
last = {}  # axis -> (size, seconds of a step) of the slowest peer at the largest size that was measured


def too_large(axis, size):
    """Why a size is left out, or None. Steps take eight times as long, at most, when a width doubles thrice."""
    case = grown(axis, size)
    numbers = 4 * case.parameters + 4 * case.batch * sum(case.widths)
    if 4 * numbers > memory() / 4 / len(NAMES):
        return "its arrays would fill a quarter of the memory"
    if axis in last:
        size_before, seconds = last[axis]
        if seconds * case.flop / grown(axis, size_before).flop > LONGEST:
            return f"a step would take over {LONGEST:g} s"
    return None


def memory():
    """Bytes of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 * 2**30


def measure_growth(pool, names, axis, size, settings):
    settings = {**settings, "rounds": min(5, settings["rounds"]), "round_seconds": settings["round_seconds"] / 2}
    found = measure_steps(pool, names, grown(axis, size), settings, steps=1)
    slowest = max((min(f[0]) for f in found.values() if not isinstance(f, Exception)), default=0.0)
    last[axis] = size, slowest
    for result in found.values():
        if not isinstance(result, Exception):
            result[1].update(axis=axis, size=size)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("axis", "size"), [(axis, size) for axis, sizes in SIZES.items() for size in sizes])
def test_growth(request, compare, measured, pool, settings, axis, size, name):
    group = f"{axis} {size}"
    why = None if group in measured else too_large(axis, size)
    if why:
        skip(request, group, name, why)
    compare(group, name, lambda names: measure_growth(pool, names, axis, size, settings))
