"""Write docs/compatibility.md: run every name and argument of Keras in live Keras and in minidl (some minutes)."""

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import keras
from compatibility import engine, page

import minidl

if __name__ == "__main__":
    with engine.restored(keras):
        defects = page.write(keras, minidl)
    if defects:
        sys.exit("\n".join([f"{len(defects)} names or arguments do neither what Keras does nor refuse:", *defects]))
