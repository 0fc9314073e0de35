"""The figure of docs/randomness.md; every number in it is computed by minidl. Run: python docs/randomness.py."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from minidl import plots, random
from minidl.display import BLUE, GREEN, GREY, LIGHT, ORANGE

SEED, COUNTER, BLOCK, WORD = 7, 3, 2, 1  # the worked example of the page: position 4·2 + 1 = 9
RATE, SHAPE, STEPS = 0.8, (5, 3), range(1, 7)
MONO = {"family": "monospace", "fontsize": 9}
M0, M1, MASK32 = 0xD2511F53, 0xCD9E8D57, 0xFFFFFFFF


def box(
    axes: Any, x: float, y: float, width: float, height: float, text: str, colour: str = "white", edge: str = GREY
) -> None:
    """A rounded box around the centre (x, y)."""
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(FancyBboxPatch(corner, width, height, "round,pad=0,rounding_size=0.09", facecolor=colour, ec=edge))
    axes.text(x, y, text, ha="center", va="center", linespacing=1.4, **MONO)


def arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], colour: str = GREY) -> None:
    """An arrow from start to end."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0})


def title(axes: Any, text: str) -> None:
    """A panel's title, at its left."""
    axes.set_title(text, loc="left", fontsize=11, fontweight="bold")


def canvas(axes: Any, width: float, height: float) -> None:
    """No ticks, no frame; coordinates 0 … width and 0 … height."""
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()


def pipeline(axes: Any, key: tuple[int, int, int, int], words: list[int], threshold: int) -> None:
    """From the pair to four keep flags."""
    canvas(axes, 20, 3.4)
    positions = f"positions {4 * BLOCK} to {4 * BLOCK + 3}"
    title(axes, f"From a seed to four keep flags (seed {SEED}, step {COUNTER}, {positions})")
    k0, k1, c2, c3 = key
    box(axes, 1.35, 1.7, 2.5, 1.5, f"seed    {SEED}\ncounter {COUNTER}", LIGHT)
    lines = (f"key     k0 {k0:08x}", f"        k1 {k1:08x}", f"block   c0 {BLOCK:08x}", "        c1 00000000")
    box(axes, 6.7, 1.7, 4.0, 2.9, "\n".join((*lines, f"        c2 {c2:08x}", f"        c3 {c3:08x}")))
    box(axes, 12.6, 1.7, 2.9, 2.9, "\n".join(f"{word:08x}" for word in words))
    flags = "\n".join(f"{word % 2**23:7d}  {'kept' if word % 2**23 >= threshold else 'dropped':<7s}" for word in words)
    box(axes, 17.8, 1.7, 4.2, 2.9, flags)
    for start, end, above, below in (
        (2.6, 4.7, "scramble", "(Philox)"),
        (8.7, 11.15, "Philox,", "10 rounds"),
        (14.05, 15.7, "low", "23 bits"),
    ):
        arrow(axes, (start, 1.7), (end, 1.7), BLUE)
        axes.text((start + end) / 2, 1.85, above, ha="center", va="bottom", fontsize=9, color=BLUE)
        axes.text((start + end) / 2, 1.55, below, ha="center", va="top", fontsize=9, color=BLUE)


def one_round(axes: Any, key: tuple[int, int, int, int]) -> None:
    """The first of the ten rounds of the worked example, in numbers."""
    canvas(axes, 10, 8.6)
    title(axes, "One round of Philox: multiply, split, XOR")
    k0, k1, c2, c3 = key
    for left, constant, (name_a, a), (name_b, b), (key_name, k), made in (
        (0.0, M1, ("c1", 0), ("c2", c2), ("k0", k0), ("c0", "c1")),
        (5.2, M0, ("c3", c3), ("c0", BLOCK), ("k1", k1), ("c2", "c3")),
    ):
        product = b * constant
        one, two = left + 1.15, left + 3.55
        box(axes, one, 7.7, 2.1, 1.3, f"{name_a}\n{a:08x}", LIGHT)
        box(axes, two, 7.7, 2.1, 1.3, f"{name_b}\n{b:08x}", LIGHT)
        box(axes, two, 5.5, 2.1, 1.3, f"× {'M1' if constant == M1 else 'M0'}\n{constant:08x}")
        box(axes, one, 3.1, 2.1, 1.3, f"⊕ {key_name}\n{k:08x}")
        arrow(axes, (one, 7.05), (one, 3.75))
        arrow(axes, (two, 7.05), (two, 6.15))
        axes.plot([two - 0.6, two - 0.6, one + 0.6], [4.85, 4.3, 4.3], color=BLUE)
        arrow(axes, (one + 0.6, 4.3), (one + 0.6, 3.75), BLUE)
        arrow(axes, (two, 4.85), (two, 1.4), ORANGE)
        arrow(axes, (one, 2.45), (one, 1.4), BLUE)
        axes.text(two - 0.7, 4.45, f"high {product >> 32:08x}", ha="right", color=BLUE, family="monospace", fontsize=7)
        axes.text(two + 0.1, 3.0, "low", color=ORANGE, family="monospace", fontsize=8)
        box(axes, one, 0.75, 2.1, 1.3, f"new {made[0]}\n{(product >> 32) ^ a ^ k:08x}", LIGHT, BLUE)
        box(axes, two, 0.75, 2.1, 1.3, f"new {made[1]}\n{product & MASK32:08x}", LIGHT, ORANGE)


def comparison(axes: Any, word: int, threshold: int, words: list[int]) -> None:
    """The 32 bits of one word, and its low 23 on the line of integers with the threshold."""
    canvas(axes, 10, 8.6)
    title(axes, "A word's low 23 bits against the threshold")
    for j in range(32):
        bit, used = (word >> (31 - j)) & 1, j >= 9
        corner = (0.2 + 0.3 * j, 6.5)
        axes.add_patch(Rectangle(corner, 0.3, 0.8, facecolor="#CDE4F3" if used else "white", edgecolor=GREY, lw=0.6))
        style = {"fontsize": 8, "family": "monospace", "color": "black" if used else GREY}
        axes.text(corner[0] + 0.15, 6.9, str(bit), ha="center", va="center", **style)
    axes.text(1.55, 7.5, "9 bits unused", ha="center", color=GREY, fontsize=9)
    axes.text(6.35, 7.5, f"{word:08x} mod 2²³ = {word % 2**23}", ha="center", color=BLUE, fontsize=9)

    def place(fraction: int) -> float:
        return 0.3 + 9.4 * fraction / 2**23

    line, cut = 3.6, place(threshold)
    axes.add_patch(Rectangle((place(0), line - 0.25), cut - place(0), 0.5, facecolor=LIGHT))
    axes.add_patch(Rectangle((cut, line - 0.25), place(2**23) - cut, 0.5, facecolor="#BFE3D6"))
    axes.plot([cut, cut], [line - 1.5, line + 0.6], color=ORANGE, linewidth=2)
    formula = f"T = ⌈f32({RATE}) · 2²³⌉ = {threshold}"
    axes.text(cut, line - 1.7, formula, ha="center", va="top", color=ORANGE, fontsize=9)
    for x, text, colour in (
        (place(0), "0", "black"),
        ((place(0) + cut) / 2, "below T: dropped", GREY),
        ((place(2**23) + cut) / 2, "kept", GREEN),
        (place(2**23), "2²³", "black"),
    ):
        axes.text(x, line - 0.5, text, ha="center", va="top", color=colour, fontsize=9)
    for each in words:
        kept = each % 2**23 >= threshold
        axes.plot(place(each % 2**23), line, "o", color=GREEN if kept else GREY, markersize=8 if each == word else 5.5)
    arrow(axes, (6.35, 6.4), (place(word % 2**23), line + 0.2), BLUE)
    axes.text(5, 0.6, "The dots are the block's four words; the large one is the word above.", ha="center", fontsize=9)


def grids(figure: Any, masks: Any) -> None:
    """The masks of a few consecutive steps; the positions of the worked example's block are outlined."""
    figure.suptitle(
        f"Masks of steps {STEPS[0]} to {STEPS[-1]}: Dropout({RATE}, seed={SEED}) on {SHAPE[0]} rows of {SHAPE[1]} "
        f"units (green: kept; outlined: the block above)",
        x=0.008, ha="left", fontsize=11, fontweight="bold",
    )  # fmt: skip
    for axes, step, mask in zip(figure.subplots(1, len(masks)), STEPS, masks, strict=True):
        axes.set(xlim=(-0.05, SHAPE[1] + 0.05), ylim=(SHAPE[0] + 0.05, -0.05), aspect="equal")
        axes.set_axis_off()
        axes.set_title(f"step {step}: pair ({SEED}, {step})", fontsize=9)
        for position, kept in enumerate(mask.ravel()):
            row, column = divmod(position, SHAPE[1])
            ours = step == COUNTER and position // 4 == BLOCK
            face = GREEN if kept else LIGHT
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor=face, edgecolor="white", linewidth=1.5))
            if ours:
                axes.add_patch(Rectangle((column + 0.05, row + 0.05), 0.9, 0.9, fill=False, ec=ORANGE, lw=2, zorder=3))
            colour = "white" if kept else GREY
            axes.text(column + 0.5, row + 0.5, str(position), ha="center", va="center", fontsize=8, color=colour)


def main() -> None:
    """Draw docs/randomness-mask.png."""
    key = random.tensorflow_key_counter(SEED, COUNTER)
    words = random.philox4x32((BLOCK, 0, *key[2:]), key[:2]).tolist()
    masks = random.dropout_masks(SHAPE, RATE, (SEED, STEPS[0]), len(STEPS))
    threshold = math.ceil(float(np.float32(RATE)) * 2**23)

    figure = Figure(figsize=(10, 9.6), layout="constrained", facecolor="white")
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=(2.2, 4.6, 2.6), hspace=0.04)
    pipeline(top.subplots(), key, words, threshold)
    left, right = middle.subplots(1, 2)
    one_round(left, key)
    comparison(right, words[WORD], threshold, words)
    grids(bottom, masks)
    plots.save(figure, Path(__file__).with_name("randomness-mask.png"))


if __name__ == "__main__":
    main()
