"""One cold start: python cold_start.py LIBRARY, a new process that trains the notebook's first model for 50 epochs.

Prints, as JSON, the peak of memory and the weights at the end. The rows come in the data's order and the initial
weights are given, so that every library does the same.
"""

import importlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
EPOCHS = 50


def main(library: str) -> None:
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    peer = importlib.import_module("peers.keras_names").Peer(library, "fit")
    from networks import PENGUINS  # NumPy comes after the library, which may set up the BLAS

    peer.load(PENGUINS)
    peer.run(PENGUINS.batches * EPOCHS)
    print(json.dumps({"peak": peak_memory(), "weights": [w.tolist() for w in peer.weights()]}))


def peak_memory() -> int:
    """Bytes. Linux's own count of this program: that of getrusage begins with the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main(sys.argv[1])
