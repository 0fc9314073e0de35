"""Make the README's table of `minidl check` on the notebook's two models, and the picture of a fault that was caught.

Each backend and mode has a process of its own; a backend that is not installed has no row. The picture needs a
headless browser (see tests/browser.py). Some minutes.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from check_cases import EPSILON_IN_THE_ROOT  # noqa: E402

MODES = {
    "TensorFlow, graph": ("tensorflow", ""),
    "TensorFlow, eager": ("tensorflow", "--eager"),
    "TensorFlow, XLA": ("tensorflow", "--jit"),
    "JAX": ("jax", ""),
    "torch": ("torch", ""),
}
EPOCHS = 10
BEGIN, END = "<!-- made by docs/oracle.py -->", "<!-- end -->"


def first():
    """The notebook's first model, for minidl check."""
    return _built("L1 and L2")


def second():
    """Its second, with dropout."""
    return _built("L1, L2 and dropout")


def _built(name):
    import keras

    from minidl.oracle import notebook

    keras.utils.set_random_seed(notebook.SEED)
    return notebook.MODELS[name](keras)


def check(folder, function, backend, *options, path=""):
    """Run minidl check; its report as a dict."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join([*path.split(), str(ROOT)])}
    command = [sys.executable, "-m", "minidl", "check", f"oracle:{function}", "--data", f"{folder}/data.npz"]
    command += ["--epochs", str(EPOCHS), "--seed", "2", "--json", f"{folder}/report.json", *options]
    done = subprocess.run(command, cwd=ROOT / "docs", env=environment, capture_output=True, text=True)
    if done.returncode == 2:
        sys.exit(done.stderr)
    return json.loads(Path(folder, "report.json").read_text())


def cell(tensors):
    """= bit-equal, ≈ within bound, ✕ divergent, with the worst ULPs; – not observed."""
    from minidl.oracle.report import ulps_text

    verdicts = {tensor["verdict"] for tensor in tensors}
    seen = [float(tensor["ulps"]) for tensor in tensors if tensor["verdict"] != "not observed"]
    if not seen:
        return "–" if tensors else ""
    mark = "✕" if "divergent" in verdicts else "≈" if "within bound" in verdicts else "="
    return f"{mark} {ulps_text(max(seen))}"


def table(folder):
    """The README's lines."""
    from importlib.util import find_spec

    from minidl.oracle.steps import QUANTITIES

    lines, versions = [], {}
    for function, title in (("first", "L1 and L2"), ("second", "L1, L2 and dropout")):
        lines += ["", f"| {title} | verdict | {' | '.join(q.replace('_', '-') for q in QUANTITIES)} |"]
        lines += ["|---|---|" + "--:|" * len(QUANTITIES)]
        for name, (backend, option) in MODES.items():
            if find_spec(backend) is None:
                print(f"{backend} is not installed: no row")
                continue
            report = check(folder, function, backend, "--no-drift", *option.split())
            versions |= report["about"]["versions"]
            of = {q: [one for one in report["tensors"] if one["quantity"] == q] for q in QUANTITIES}
            cells = [cell(of[q]) or "–" * (q == "mask" and "dropout" in title) for q in QUANTITIES]
            lines.append(f"| {name} | {'right' if report['ok'] else 'divergent'} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
            steps = report["steps"]
    said = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "python")
    return [f"Worst ULPs over {steps} steps ({EPOCHS} epochs on the penguins) with {said}:", *lines, ""]


def picture(folder):
    """The report on a planted fault, in a browser."""
    import browser

    Path(folder, "sitecustomize.py").write_text(EPSILON_IN_THE_ROOT)
    report = check(folder, "first", "tensorflow", "--report", f"{folder}/report.html", path=str(folder))
    assert not report["ok"]
    browser.screenshot(Path(folder, "report.html"), ROOT / "docs" / "oracle-report.png", width=1000, height=1150)


def main():
    """Write the table into the README, and the picture; with --picture that alone."""
    import numpy as np

    from minidl.oracle import notebook

    with tempfile.TemporaryDirectory() as folder:
        (x, y), _ = notebook.data()
        np.savez(f"{folder}/data.npz", x=x, y=y)
        if "--picture" not in sys.argv:
            lines = table(folder)
            readme = (ROOT / "README.md").read_text(encoding="utf-8")
            before, rest = readme.split(BEGIN)
            text = f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}" + rest.split(END, 1)[1]
            (ROOT / "README.md").write_text(text, encoding="utf-8")
        picture(folder)


if __name__ == "__main__":
    main()
