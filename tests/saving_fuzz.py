"""Damages files of models and reads each: python saving_fuzz.py FOLDER COUNT.

Run by test_saving.py in a process of its own, with bounded memory, for what a C library may do to it. Each must give
the clear error, with the model as it was, or exactly the arrays that were written. Prints what it found as JSON; the
seed at work is in FOLDER/seed.
"""

import collections
import io
import json
import os
import random
import resource
import signal
import sys
import warnings
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a thread's stack counts as memory

import h5py
import numpy as np

import minidl as keras
from minidl import saving
from minidl.saving import files

BYTES = 1 << 31  # of address space, of which Python, NumPy and HDF5 take a half
SECONDS = 20  # for one file; it takes milliseconds
NUMBERS = [None, True, -1, 0, 1, 3, 10**12, 10**400, 0.5, 1e308, float("nan"), "", "x", "relu", [], {}, [[]], "../x"]


def make_model(seed=1):
    keras.utils.set_random_seed(seed)
    inner = keras.Sequential([keras.layers.Dense(3, "relu"), keras.layers.Dropout(0.3)], name="inner")
    layers = [
        keras.Input((4,)),
        keras.layers.Dense(4, kernel_regularizer="l2"),
        inner,
        keras.layers.Dense(1, "sigmoid"),
    ]
    model = keras.Sequential(layers)
    metrics = ["accuracy", keras.metrics.AUC(num_thresholds=9)]
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.9)), "bce", metrics=metrics
    )
    model.train_on_batch(np.ones((2, 4)) * seed, np.ones((2, 1)))
    return model


# ------------------------------------------------------------------------------------------- damage


def damaged(rng, data):
    """The bytes with one kind of damage."""
    data = bytearray(data)
    place = rng.randrange(len(data))
    size = rng.randint(1, 12)
    other = rng.randrange(len(data))
    kind = rng.randrange(7)
    if kind == 0:
        return bytes(data[:place])
    if kind == 1:
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        data[place] = rng.choice([0, 1, 127, 128, 255])
    elif kind == 3:
        data[place : place + size], data[other : other + size] = data[other : other + size], data[place : place + size]
    elif kind == 4:
        data[place:place] = rng.randbytes(size)
    elif kind == 5:
        del data[place : place + size]
    else:
        data[place : place + 8] = rng.choice([b"\xff" * 8, b"\0" * 8, (2**40).to_bytes(8, "little")])
    return bytes(data)


def damaged_json(rng, data):
    """JSON of which one value, key or entry is another."""
    root = json.loads(data)
    places = []

    def collect(value):
        for key in value if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], (dict, list)):
                collect(value[key])

    collect(root)
    owner, key = rng.choice(places)
    kind = rng.randrange(4)
    if kind == 0 and isinstance(owner, dict):
        owner[f"{key}x"] = owner.pop(key)
    elif kind == 1:
        del owner[key]
    elif kind == 2:
        source, other = rng.choice(places)
        owner[key] = json.loads(json.dumps(source[other])) if other in source or isinstance(other, int) else None
    else:
        owner[key] = rng.choice(NUMBERS)
    return json.dumps(root).encode()


def without_checksum(data):
    """An HDF5 file as Keras writes it: without minidl's group."""
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "a") as file:
        del file["minidl"]
    return buffer.getvalue()


def make_cases(whole, h5, tensors):
    """name -> (the file's ending, a function of rng that makes it, whether its arrays are known to be intact)."""
    members = files.unzipped(whole)
    plain = without_checksum(h5)

    def inside(name, damage):
        return lambda rng: files.zipped({**members, name: damage(rng, members[name])})

    def header(rng):
        return tensors[:8] + damaged(rng, tensors[8:300]) + tensors[300:]

    return {
        "zip": (".keras", lambda rng: damaged(rng, whole), True),
        "config in the zip": (".keras", inside("config.json", damaged_json), True),
        "bytes of the config": (".keras", inside("config.json", damaged), True),
        "metadata": (".keras", inside("metadata.json", rng_choice(damaged, damaged_json)), True),
        "HDF5 in the zip": (".keras", inside("model.weights.h5", damaged), True),
        "HDF5": (".weights.h5", lambda rng: damaged(rng, h5), True),
        "HDF5 of Keras": (".weights.h5", lambda rng: damaged(rng, plain), False),
        "safetensors": (".safetensors", lambda rng: damaged(rng, tensors), True),
        "safetensors' header": (
            ".safetensors",
            lambda rng: tensors[:8] + damaged(rng, tensors[8:300]) + tensors[300:],
            True,
        ),
    }


def rng_choice(*functions):
    return lambda rng, data: rng.choice(functions)(rng, data)


# ------------------------------------------------------------------------------------------- reading


def contents(model):
    """All that a file could change, as bytes."""
    return {name: array.tobytes() for name, array in model.get_state().items()}


def main(folder, count):
    model = make_model()
    paths = {ending: f"{folder}/m{ending}" for ending in (".keras", ".weights.h5", ".safetensors")}
    model.save(paths[".keras"])
    model.save_weights(paths[".weights.h5"])
    model.save_weights(paths[".safetensors"])
    written = {weight.tobytes() for weight in model.get_weights()}
    cases = make_cases(*(Path(path).read_bytes() for path in paths.values()))
    target = make_model(2)
    before, own = contents(target), [weight.copy() for weight in target.get_weights()]
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    outcomes = {name: collections.Counter() for name in cases}
    warnings.simplefilter("ignore")
    for seed in range(count):
        name = list(cases)[seed % len(cases)]
        ending, make, intact = cases[name]
        Path(folder, "seed").write_text(f"{seed} {name}")
        Path(paths[ending]).write_bytes(make(random.Random(seed)))
        signal.alarm(SECONDS)
        try:
            if ending == ".keras":
                found = saving.load_model(paths[ending])
            else:
                target.load_weights(paths[ending])
                found = target
        except saving.FileFormatError as error:
            assert str(error).startswith(paths[ending]), (seed, name, str(error))
            outcomes[name]["refused"] += 1
            assert contents(target) == before, (seed, name, "changed by a failed reading")
        else:
            outcomes[name]["read"] += 1
            weights = found.get_weights() if found.built else []
            if intact:
                strange = [w for w in weights if w.astype("float32").tobytes() not in written]
                assert not strange, (seed, name, "other arrays than were written", strange)
            assert all(weight.dtype.kind == "f" for weight in weights)
            if found is target:
                target = make_model(2)
                assert contents(target) == before
                target.set_weights(own)
        signal.alarm(0)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
