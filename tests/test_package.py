"""The package as a whole: which module may import which, what `import minidl` costs, what the wheel holds."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import minidl

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minidl"

# The house from the top down: a module may import those of lower lines only. A package counts as one module.
FLOORS = [
    "__main__",
    "cli",
    "bench demo doctor pytest_plugin",
    "explain plots study traces",
    "oracle",
    "__init__",
    "keras",
    "many wrappers",
    "sklearn",
    "nn utils",
    "models",
    "saving summary trainer",
    "loops",
    "on_device",
    "batches fused",
    "fused_update training",
    "threads",
    "calls metrics",
    "callbacks layers losses optimizers",
    "activations constraints initializers regularizers schedules",
    "masks",
    "arena datasets random serialization",
    "ops",
    "array_functions checks elementwise variables",
    "device",
    "backend cublas progress",
    "config",
    "cuda display interrupts naming",
]
FLOOR = {module: len(FLOORS) - i for i, line in enumerate(FLOORS) for module in line.split()}


def module_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {module_of(path) for path in FILES}


def imported_modules(path):
    """(line, module of minidl) for each import, inside functions too, but not for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: write the import as absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, *inside = name.split(".")
            if package == "minidl":
                yield node.lineno, inside[0] if inside and inside[0] in MODULES else "__init__"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path):
    module = module_of(path)
    for line, imported in [(0, module), *imported_modules(path)]:
        assert imported in FLOOR, f"{imported} is new: give it a place in FLOORS"
        assert imported == module or FLOOR[imported] < FLOOR[module], (
            f"{path.relative_to(ROOT)}:{line} imports {imported}, which is not below {module} in FLOORS"
        )


def run_python(*arguments):
    result = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


LOADED = "import sys, numpy; before = set(sys.modules); import {}; print(*set(sys.modules) - before)"


def test_an_import_loads_what_is_asked_for():
    alone = "import sys; before = set(sys.modules); import minidl; print(*set(sys.modules) - before)"
    assert set(run_python("-c", alone).split()) <= {"minidl", "importlib", "importlib._bootstrap", "importlib._abc"} | {
        "importlib._bootstrap_external",
        "warnings",
    }
    loaded = set(run_python("-c", LOADED.format("minidl.keras")).split())
    assert {name.split(".")[0] for name in loaded} - {"minidl", "numpy"} - sys.stdlib_module_names == set()
    own = {name.split(".")[1] for name in loaded if name.startswith("minidl.")}
    above = {module for module in FLOOR if FLOOR[module] >= FLOOR["many"]} - {"__init__", "keras", "wrappers"}
    assert {"keras", "models", "wrappers"} <= own
    assert own & (above | {"nn", "plots", "sklearn", "summary"}) == set()
    assert loaded & {"argparse", "ctypes", "multiprocessing", "socket", "subprocess", "tempfile", "unittest"} == set()


def test_each_name_is_there_at_its_first_use():
    program = (
        "import minidl; print(*(name for name in minidl.__all__ if getattr(minidl, name) is None), 'none missing')"
    )
    assert run_python("-c", program) == "none missing\n"
    assert set(minidl.__all__) <= set(dir(minidl)) and minidl.Sequential is minidl.models.Sequential
    with pytest.raises(AttributeError, match="module 'minidl' has no attribute 'Sequental'"):
        minidl.Sequental  # noqa: B018
    listed = {node.name for node in imports_for_type_checkers(PACKAGE / "__init__.py")}
    assert listed == set(minidl.__all__)


def imports_for_type_checkers(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from (alias for statement in node.body for alias in statement.names)


@pytest.mark.parametrize(("module", "milliseconds"), [("minidl", 10), ("minidl.keras", 50)])
def test_import_takes_few_milliseconds_beyond_numpy(monkeypatch, tmp_path, module, milliseconds):
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    program = f"import time, numpy; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    run_python("-c", program)  # compiles minidl, which an installed package has done already
    # the best of up to twenty: whatever else the machine does, such as the other tests, can only add to it
    assert any(float(run_python("-c", program)) <= milliseconds / 1000 for _ in range(20))


def test_version_from_the_command_line():
    assert minidl.__version__ in run_python("-m", "minidl", "--version")


def test_wheel_holds_the_package_its_data_and_its_types(tmp_path):
    pytest.importorskip("hatchling")
    run_python("-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"minidl-{minidl.__version__}-")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        content = archive.read("minidl/data/penguins.csv")
    assert content == (PACKAGE / "data" / "penguins.csv").read_bytes()
    expected = {path.relative_to(ROOT).as_posix() for path in FILES}
    assert expected | {"minidl/py.typed", "minidl/data/README.md"} <= names
    assert {name.split("/")[0] for name in names} == {"minidl", f"minidl-{minidl.__version__}.dist-info"}
