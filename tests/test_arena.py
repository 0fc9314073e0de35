"""arena.py: one buffer, of which the parameters are views."""

import numpy as np
import pytest

from minidl.arena import Arena

PARAMETERS = [("a", "kernel", (4, 3)), ("a", "bias", (3,)), ("b", "kernel", (3, 1)), ("b", "bias", (1,))]


def test_segments_cover_the_buffer_exactly_once():
    arena = Arena(PARAMETERS, "float64")
    assert arena.size == 12 + 3 + 3 + 1
    covered = np.zeros(arena.size, int)
    for segment, (layer, name, shape) in zip(arena.segments, PARAMETERS, strict=True):
        assert (segment.layer, segment.name, segment.shape) == (layer, name, shape)
        assert segment.stop - segment.start == np.prod(shape)
        covered[segment.start : segment.stop] += 1
    assert (covered == 1).all()
    assert [s.start for s in arena.segments] == [0, 12, 15, 18]  # in the order given


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_buffers_are_zeros_of_the_dtype_and_apart(dtype):
    arena = Arena(PARAMETERS, dtype)
    buffers = [arena.theta, arena.grads, arena.new_buffer(), arena.new_buffer()]
    for buffer in buffers:
        assert buffer.shape == (19,) and buffer.dtype == dtype and (buffer == 0).all()
    for i, buffer in enumerate(buffers):
        assert not any(np.shares_memory(buffer, other) for other in buffers[i + 1 :])


def test_views_write_through_both_ways():
    arena = Arena(PARAMETERS, "float32")
    views = arena.views(arena.theta)
    arena.theta[:] = np.arange(19)
    assert [view.shape for view in views] == [shape for _, _, shape in PARAMETERS]
    assert np.array_equal(views[0], np.arange(12).reshape(4, 3))  # C order
    views[1][2] = -7
    assert arena.theta[14] == -7


def test_an_arena_of_nothing():
    arena = Arena([], "float32")
    assert (arena.size, arena.segments, arena.views(arena.theta)) == (0, [], [])
