"""Palmer penguins: the sex of a bird from four measurements. Source and licence: minidl/data/README.md."""

from __future__ import annotations

import csv
from collections import defaultdict

import numpy as np

from minidl.backend import Array

FEATURES = ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g")
CLASSES = ("female", "male")
SHA256 = "f204db2c753b0937caac3cb35258562c14f073e4bbc76be24b4c51ce22767a93"


def load_data() -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """(x_train, y_train), (x_test, y_test): 267 and 66 of the 333 birds of which everything is known.

    x: (birds, 4) float32, the columns FEATURES: bill length, bill depth, flipper length (mm), body mass (g),
    not scaled; see standardize. y: (birds,) int64, the index into CLASSES: 0 = female, 1 = male.

    The split is fixed. With the birds sorted by species and sex, every fifth is a test bird, so each of the
    six groups gives a fifth, to within one bird. The rows are ordered so that every stretch of them holds
    about the same mix of groups: fit(validation_split=…) takes the last rows, and would else see one species.
    Errors: ValueError if the file is not the one that minidl ships.
    """
    groups = defaultdict(list)
    for bird in _read():
        if "NA" not in (bird["sex"], *(bird[name] for name in FEATURES)):
            groups[bird["species"], bird["sex"]].append(bird)
    # Sorted by group, each bird with its place in the group as a fraction.
    placed = [((i + 0.5) / len(group), bird) for _, group in sorted(groups.items()) for i, bird in enumerate(group)]
    test = placed[4::5]
    del placed[4::5]
    return _arrays(placed), _arrays(test)


def _arrays(placed: list[tuple[float, dict[str, str]]]) -> tuple[Array, Array]:
    birds = [bird for _, bird in sorted(placed, key=lambda pair: pair[0])]
    x = np.array([[float(bird[name]) for name in FEATURES] for bird in birds], np.float32)
    return x, np.array([CLASSES.index(bird["sex"]) for bird in birds], np.int64)


def _read() -> list[dict[str, str]]:
    import hashlib  # slow to import, as importlib.resources is, and not every program loads data
    from importlib.resources import files

    content = (files("minidl") / "data" / "penguins.csv").read_bytes().replace(b"\r\n", b"\n")
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise ValueError(
            f"penguins: minidl/data/penguins.csv is damaged: expected SHA-256 {SHA256}, got {found}. "
            f"Install minidl again."
        )
    return list(csv.DictReader(content.decode().splitlines()))
