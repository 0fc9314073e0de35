"""Scripts as a Keras user types them, each run with Keras and, its import changed, with minidl: the same results.

What is left is rounding: each library rounds a number by half an ulp a few dozen times a step, say 50, and the next
steps carry that on. Over the at most 36 steps of a script that is 36 · 2 · 25 = 1,800 ulps between the two, of the
largest number of its array, if a step hands errors on as they are; 44 is the most that was seen. A mask, an order or a
rule that differs shows as 1e-3 and more, a constant rounded otherwise as 1e-8: hence float64. In float32 the random
numbers are others: a script with each kind of mask and noise runs in it too.
"""

from pathlib import Path

import numpy as np
import pytest
from keras_cases import floatx

from minidl import naming

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.py"))
IMPORT = "import keras\n"
ULPS = 1800  # 4.0e-13 in float64, 2.1e-4 in float32
NOT_IN_FLOAT64 = ("02", "14")  # Keras has no top-k and no OrthogonalRegularizer in it
MASKS_AND_NOISE = ("06", "16", "17", "21", "22")
CASES = [
    pytest.param(path, dtype, id=f"{path.stem}-{dtype}")
    for path in SCRIPTS
    for dtype in ("float64", "float32")
    if (
        path.stem[:2] in NOT_IN_FLOAT64 + MASKS_AND_NOISE if dtype == "float32" else path.stem[:2] not in NOT_IN_FLOAT64
    )
]


def run(path, folder, monkeypatch, imports=IMPORT):
    """What a script leaves as result, run in an empty folder."""
    source = path.read_text(encoding="utf-8")
    assert source.count(IMPORT) == 1 and "from keras" not in source
    folder.mkdir()
    monkeypatch.chdir(folder)
    namespace = {"__name__": "__main__"}
    exec(compile(source.replace(IMPORT, imports), str(path), "exec"), namespace)
    return namespace["result"]


def differences(ours, theirs, place="result"):
    """(place, difference relative to the largest number there) for every number; anything else must be equal."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs), f"{place}: {list(ours)}, Keras {list(theirs)}"
        for name, value in theirs.items():
            yield from differences(ours[name], value, f"{place}[{name!r}]")
    elif isinstance(theirs, (list, tuple)) and not all(isinstance(value, (int, float)) for value in theirs):
        assert len(ours) == len(theirs), f"{place}: {len(ours)} entries, Keras {len(theirs)}"
        for i, (own, value) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(own, value, f"{place}[{i}]")
    elif theirs is None or isinstance(theirs, (str, bool)):
        assert ours == theirs, f"{place}: {ours!r}, Keras {theirs!r}"
    else:
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert ours.shape == theirs.shape, f"{place}: shape {ours.shape}, Keras {theirs.shape}"
        assert np.isfinite(theirs).all() and np.isfinite(ours).all(), f"{place}: {ours}, Keras {theirs}"
        if theirs.size:
            largest = np.abs(theirs).max()
            yield place, float(np.abs(ours - theirs).max() / (largest if largest else 1.0))


@pytest.mark.keras
@pytest.mark.parametrize(("path", "dtype"), CASES)
def test_script_gives_with_minidl_what_it_gives_with_keras(keras, path, dtype, tmp_path, monkeypatch):
    with floatx(keras, dtype):
        keras.utils.clear_session(free_memory=False)
        theirs = run(path, tmp_path / "keras", monkeypatch)
        naming.reset_names()
        ours = run(path, tmp_path / "minidl", monkeypatch, "import minidl as keras\n")
    assert {"history", "weights"} <= theirs.keys()
    found = dict(differences(ours, theirs))
    worst = max(found, key=found.get)
    ulps = found[worst] / np.finfo(dtype).eps
    print(f"{path.stem} {dtype}: {ulps:.0f} ulps, {found[worst]:.1e} at {worst}")
    assert ulps <= ULPS, f"{worst} differs by {found[worst]:.3g} of its largest number, {ulps:.0f} ulps"


def test_there_are_twenty_and_more():
    assert len(SCRIPTS) >= 20
