"""kernels/*.cu compiled for GPUs by NVRTC, without a GPU: for every architecture from sm_75 on that it knows."""

import re

import pytest
from cuda_host import nvrtc

if nvrtc.find() is None:
    pytest.skip("needs the package nvidia-cuda-nvrtc-cu12", allow_module_level=True)

SOURCES = sorted(nvrtc.KERNELS.glob("*.cu"))
ARCHITECTURES = [a for a in nvrtc.architectures() if 75 <= a <= 120]


def kernels_of(text):
    """The names that a .cu file's macros make: name##_##suffix, or INSTANTIATE_ONE(name, T, suffix)."""
    names = set(re.findall(r"__global__ void (\w+?)_?##", text)) | set(re.findall(r"INSTANTIATE_ONE\((\w+), T", text))
    return {f"{name}_{dtype}" for name in names - {"name"} for dtype in ("float32", "float64")}


def documented():
    """(version, kernel -> [registers for each of TABLE_ARCHITECTURES, shared bytes]) from kernels/README.md."""
    text = (nvrtc.KERNELS / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|([\d |]+)\|$", text, re.MULTILINE)
    version = re.search(r"NVRTC (\d+)\.(\d+)", text)
    return (int(version[1]), int(version[2])), {name: [int(n) for n in cells.split("|")] for name, cells in rows}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernel_compiles_without_spills_and_within_its_registers(source, architecture):
    binary, found = nvrtc.resources(source, architecture)
    assert set(found) == kernels_of(source.read_text(encoding="utf-8"))
    for kernel, resources in found.items():
        assert kernel.encode() in binary
        assert resources.spilled == 0, f"{kernel} spills {resources.spilled} bytes on sm_{architecture}"
    version, table = documented()
    if architecture in nvrtc.TABLE_ARCHITECTURES and version == nvrtc.version():
        column = nvrtc.TABLE_ARCHITECTURES.index(architecture)
        for kernel, resources in found.items():
            *registers, shared = table[kernel]
            assert resources.registers <= registers[column], f"{kernel}: more registers than kernels/README.md says"
            assert resources.shared == shared, f"{kernel}: other shared memory than kernels/README.md says"


def test_all_architectures_of_interest_are_known():
    assert {75, 80, 86, 89, 90} <= set(ARCHITECTURES)
    assert set(nvrtc.TABLE_ARCHITECTURES) <= set(ARCHITECTURES) or nvrtc.version() < (12, 8)


@pytest.mark.parametrize("stem", ["adam", "matmul"])
def test_arithmetic_is_rounded_as_numpy_rounds_it(stem):
    """No multiplication is contracted with an addition, no subnormal flushed, no quotient or root approximated.

    adam_alpha is left out: the power in it is a function of CUDA's library, with fma inside.
    """
    source = nvrtc.KERNELS / f"{stem}.cu"
    text = source.read_text(encoding="utf-8")

    def instructions(flags):
        ptx, _ = nvrtc.compile_source(text, source.name, target="compute_75", flags=flags)
        functions = re.split(r"(?=\.entry|\.func)", ptx.decode())[1:]
        kernels = [f for f in functions if f.startswith(f".entry {stem}") and not f.startswith(".entry adam_alpha")]
        assert len(kernels) >= 2
        return set(re.findall(r"\b(?:fma|mul|add|sub|div|sqrt)\.[a-z.]*f(?:32|64)\b", "\n".join(kernels)))

    found = instructions(nvrtc.FLAGS)
    assert not [i for i in found if i.startswith("fma") or ".ftz" in i or "approx" in i], found
    assert {"mul.rn.f32", "mul.rn.f64", "add.rn.f32", "add.rn.f64"} <= found
    assert any(i.startswith("fma") for i in instructions(("--std=c++17",)))  # as it would be without the flags


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_whole_training_knows_which_memory_it_reads(dtype):
    """Numbers are loaded from shared or from global memory, by the instruction for it: see InShared in common.cuh."""
    source = nvrtc.KERNELS / "train_step.cu"
    ptx, _ = nvrtc.compile_source(source.read_text(encoding="utf-8"), source.name, target="compute_75")
    (kernel,) = (
        f for f in re.split(r"(?=\.entry|\.func)", ptx.decode()) if f.startswith(f".entry train_epochs_{dtype}")
    )
    found = re.findall(r"\b(?:ld|st)\.(?:(\w+)\.)?(?:v[24]\.)?f(?:32|64)\b", kernel)
    assert len(found) > 100 and set(found) == {"shared", "global", "param"}


def test_errors_show_the_kernels_line():
    broken = '#include "common.cuh"\nextern "C" __global__ void broken(float* out) {\n    out[0] = undeclared;\n}\n'
    with pytest.raises(nvrtc.CompilationError, match=r'broken\.cu\(3\): error: .*"undeclared"'):
        nvrtc.compile_source(broken, "broken.cu", target="sm_75")
