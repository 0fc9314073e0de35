"""Whole trainings on the host's device under a sanitizer: what a launch is told of sizes, the sanitizer sees.

python training.py address|thread
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import device_cases  # noqa: E402
from cuda_host import host  # noqa: E402

CASES = {
    "address": [
        "notebook, dropout",
        "sample weights",
        "three labels, tiled products",
        "sums of several tiles",
        "class numbers, more than a warp's lanes",
        "AdamW, biases do not decay",
        "clipped by norms",
    ],
    "thread": ["one small batch"],  # where each CUDA thread costs a millisecond
}


def main(sanitize):
    for name in CASES[sanitize]:
        print(name, flush=True)
        model, (x, y), arguments = device_cases.CASES[name]()
        device = host.HostDevice(sanitize=sanitize)
        model.fit(x, y, epochs=1, verbose=0, device=device, **arguments)
        model.evaluate(x, y, verbose=0, device=device)
        model.predict(x, verbose=0, device=device)


if __name__ == "__main__":
    main(*sys.argv[1:])
