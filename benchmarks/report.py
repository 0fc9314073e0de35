"""Turn pytest-benchmark's JSON into benchmarks/results/*.json, and these into tables and figures.

    python benchmarks/report.py FILE            results, the tables of both READMEs, the figures: `make bench-all`
    python benchmarks/report.py --print FILE    the tables on the screen, no file touched: `make bench`

A results file holds the machine, the versions, the commit, and the medians of one benchmark file; host names, users and
paths of the input are left out. Whatever is in the pages is made of the results files.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
START, END = "<!-- results: written by report.py -->", "<!-- end of results -->"
KEPT = ("yardstick", "flop", "bytes", "parameters", "axis", "size", "peak_bytes", "worst_error_by_bound")
TITLES = {
    "step": "A training step",
    "profile": "minidl's step, call by call",
    "fit": "A whole fit",
    "predict": "Predictions",
    "operations": "Single operations",
    "cold_start": "Cold start",
    "growth": "Growth",
    "random": "Random numbers",
    "gpu": "On a GPU",
}

# ----------------------------------------------------------------------------------------- the results


def summary(raw: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """pytest-benchmark's JSON -> name of a benchmark file ("random") -> what is kept of it."""
    kept: dict[str, dict[str, Any]] = {}
    for benchmark in raw["benchmarks"]:
        name = re.sub(r"^test_", "", Path(benchmark["fullname"].split("::")[0]).stem)
        extra, stats = benchmark["extra_info"], benchmark["stats"]
        results = extra.get("results_a_call", 1)
        row = {
            "group": benchmark["group"],
            "name": extra.get("name") or (benchmark["params"] or {}).get("name") or benchmark["name"],
            "rounds": stats["rounds"],
            **{key: stats[key] / results for key in ("median", "q1", "q3", "min")},
            **{key: extra[key] for key in KEPT if key in extra},
        }
        suite = kept.setdefault(name, {"about": machine(raw), "benchmarks": [], "skipped": []})
        suite["benchmarks"].append(row)
        about = extra.get("about", {})
        suite["about"]["versions"] |= about.get("versions", {})
        if about.get("blas"):
            suite["about"]["blas"][row["name"]] = about["blas"]
    for skipped in raw.get("skipped", []):
        if skipped["suite"] in kept:
            kept[skipped["suite"]]["skipped"].append({key: skipped[key] for key in ("group", "name", "reason")})
    return kept


def machine(raw: dict[str, Any]) -> dict[str, Any]:
    """Where, when and of what commit it was measured; versions and blas get what the peers say."""
    cpu, commit = raw["machine_info"]["cpu"], raw["commit_info"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else None
    return {
        "date": raw["datetime"][:10],
        "commit": (commit.get("id") or "unknown")[:12] + (" with changes" if commit.get("dirty") else ""),
        "cpu": cpu.get("brand_raw", "unknown"),
        "cores": os.cpu_count(),
        "memory_gib": memory and round(memory, 1),
        "threads": raw.get("threads", 1),
        "os": f"{platform.system()} {platform.machine()}",
        "python": raw["machine_info"]["python_version"],
        "versions": {"numpy": metadata.version("numpy")},
        "blas": {},
    }


def machine_info() -> dict[str, Any]:
    """What `machine` reads in pytest-benchmark's JSON, found without it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []

    def git(*arguments: str) -> str:
        ran = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True)
        return ran.stdout.strip()

    return {
        "machine_info": {
            "cpu": {"brand_raw": names[0] if names else platform.processor()},
            "python_version": platform.python_version(),
        },
        "commit_info": {"id": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))},
        "datetime": datetime.now(UTC).isoformat(),
        "threads": os.cpu_count(),
    }


def spread(samples: list[float]) -> dict[str, Any]:
    """Median, quartiles and least of some samples, as pytest-benchmark's."""
    if len(samples) < 2:
        return {"rounds": len(samples), **dict.fromkeys(("median", "q1", "q3", "min"), samples[0])}
    q1, middle, q3 = statistics.quantiles(samples, n=4, method="inclusive")
    return {"rounds": len(samples), "median": middle, "q1": q1, "q3": q3, "min": min(samples)}


# ------------------------------------------------------------------------------------------ the tables


def seconds(value: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def ratio_of(value: float) -> str:
    """Two decimals, from 10 on three digits."""
    return f"{value:.2f}" if value < 10 else f"{value:.3g}"


def described(about: dict[str, Any]) -> str:
    """The machine in a line."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(about["versions"].items()))
    threads = f"{about['threads']} thread{'s' if about['threads'] != 1 else ''}"
    texts = " ".join(about["blas"].values())
    core_types = sorted(set(re.findall(r"openblas \S+ (\w+)", texts)))
    blas = f"; OpenBLAS for {', '.join(core_types)}" if core_types else ""
    return (
        f"{about['cpu']}, {about['cores']} cores, {threads}, {about['os']}; Python {about['python']}, {versions}"
        f"{blas}; commit {about['commit']}, {about['date']}."
    )


def yardstick_of(rows: list[dict[str, Any]]) -> float | None:
    """The median of the row whose name begins with NumPy, else of minidl's first."""
    for prefix in ("NumPy", "minidl"):
        for row in rows:
            if row["name"].startswith(prefix):
                return row["median"]
    return None


def tables(name: str, results: dict[str, Any]) -> str:
    """Markdown: a heading, the machine, and a table a group with its ratios to the yardstick, and what was skipped."""
    lines = [f"### {TITLES.get(name, name)}", "", described(results["about"])]
    if name == "growth":
        return "\n".join(lines + growth_tables(results))
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in [*results["benchmarks"], *results.get("skipped", [])]:
        groups.setdefault(row["group"], []).append(row)
    for group, rows in groups.items():
        measured = [row for row in rows if "median" in row]
        memory = any("peak_bytes" in row for row in measured)
        head, line = f"| {group} | ratio | median | quartiles | rounds |", "|---|---:|---:|---:|---:|"
        lines += ["", head + (" peak of memory |" if memory else ""), line + ("---:|" if memory else "")]
        common = yardstick_of(measured)
        for row in measured:
            yardstick = row.get("yardstick") or common
            cells = [
                row["name"],
                ratio_of(row["median"] / yardstick) if yardstick else "",
                seconds(row["median"]),
                f"{seconds(row['q1'])} – {seconds(row['q3'])}",
                str(row["rounds"]),
            ]
            if memory:
                cells.append(f"{row['peak_bytes'] / 2**20:.0f} MiB")
            lines.append(f"| {' | '.join(cells)} |")
        for row in rows:
            if "reason" in row:
                lines.append(f"| {row['name']} | – | {row['reason']} | | |{' |' if memory else ''}")
    return "\n".join(lines)


def slope(sizes: list[float], values: list[float]) -> float:
    """Of log value over log size, by least squares."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def upper_half(points: list[Any]) -> list[Any]:
    """The points of larger size, and at least three: there what grows fastest shows."""
    return points[-max(3, len(points) // 2) :]


def growths(results: dict[str, Any]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """axis -> name -> rows by size."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {row["axis"]: {} for row in results["benchmarks"]}
    for row in sorted(results["benchmarks"], key=lambda row: row["size"]):
        found[row["axis"]].setdefault(row["name"], []).append(row)
    return found


def slopes(rows: list[dict[str, Any]]) -> tuple[float, float] | None:
    """The slope fitted to the upper half, and that of the matrix products' operations over the same sizes."""
    if len(rows) < 3:
        return None
    rows = upper_half(rows)
    sizes = [row["size"] for row in rows]
    return slope(sizes, [row["median"] for row in rows]), slope(sizes, [row["flop"] for row in rows])


def growth_tables(results: dict[str, Any]) -> list[str]:
    """A table an axis: a row a size, a column a peer, and below the slopes."""
    lines: list[str] = []
    for axis, by_name in growths(results).items():
        sizes = sorted({row["size"] for rows in by_name.values() for row in rows})
        lines += ["", f"| {axis} | {' | '.join(by_name)} |", "|---|" + "---:|" * len(by_name)]
        for size in sizes:
            cells = [
                next((seconds(row["median"]) for row in rows if row["size"] == size), "–") for rows in by_name.values()
            ]
            lines.append(f"| {size} | {' | '.join(cells)} |")
        found = [slopes(rows) for rows in by_name.values()]
        cells = [f"{pair[0]:.2f} of {pair[1]:.2f}" if pair else "–" for pair in found]
        lines.append(f"| slope of the upper half, of that of the operations | {' | '.join(cells)} |")
        reasons = {
            f"{row['group']}: {row['reason']}" for row in results.get("skipped", []) if row["group"].startswith(axis)
        }
        if reasons:
            first = min(reasons, key=lambda text: int(re.findall(r" (\d+):", text)[0]))
            lines += ["", f"Left out from {first}."]
    return lines


def comparison(results: dict[str, dict[str, Any]]) -> str:
    """For the README: the steps' ratios to the matrix products, and the cold starts."""
    lines: list[str] = []
    if "step" in results:
        found = results["step"]
        groups: dict[str, dict[str, str | float]] = {}
        for row in found["benchmarks"]:
            groups.setdefault(row["group"], {})[row["name"]] = row["median"]
        for row in found.get("skipped", []):
            groups.setdefault(row["group"], {})[row["name"]] = (
                "not offered" if "has no" in row["reason"] else "not installed"
            )
        plain = {group: rows for group, rows in groups.items() if "L1" not in group}
        noted = {group: rows for group, rows in groups.items() if "L1" in group}
        columns = [*plain, *[group for group in noted if group.startswith("A")]]
        titles = [group.partition(",")[0] + ("; L1, L2, dropout" if group in noted else "") for group in columns]
        names = list(dict.fromkeys(name for group in columns for name in groups[group]))
        lines += [
            f"| time of a step / of its matrix products | {' | '.join(titles)} |",
            "|---|" + "---:|" * len(columns),
        ]
        for name in names:
            cells = []
            for group in columns:
                value, floor = groups[group].get(name), yardstick_of_group(groups[group])
                if isinstance(value, float) and floor:
                    cells.append(f"1 = {seconds(value)}" if name.startswith("NumPy") else ratio_of(value / floor))
                else:
                    cells.append(value if isinstance(value, str) else "–")
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines += ["", described(found["about"])]
    if "cold_start" in results:
        rows = results["cold_start"]["benchmarks"]
        base = yardstick_of(rows)
        lines += [
            "",
            "| from the start of Python to 50 epochs of the notebook's model | ratio | time | peak of memory |",
        ]
        lines += ["|---|---:|---:|---:|"]
        for row in rows:
            ratio = ratio_of(row["median"] / base) if base else ""
            lines.append(
                f"| {row['name']} | {ratio} | {seconds(row['median'])} | {row['peak_bytes'] / 2**20:.0f} MiB |"
            )
        for row in results["cold_start"].get("skipped", []):
            lines.append(f"| {row['name']} | – | {row['reason']} | |")
    return "\n".join(lines)


def yardstick_of_group(rows: dict[str, Any]) -> float | None:
    """The floor of a group, if it was measured."""
    return next((value for name, value in rows.items() if name.startswith("NumPy") and isinstance(value, float)), None)


# ------------------------------------------------------------------------------------------- the pages


def read(results: Path) -> dict[str, dict[str, Any]]:
    """All results files, in the order of TITLES."""
    order = list(TITLES)
    found = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(results.glob("*.json"))}
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def between_markers(path: Path, text: str) -> None:
    """Put the text between the markers of the page."""
    page = path.read_text(encoding="utf-8")
    before, rest = page.split(START)
    after = rest.split(END)[1]
    path.write_text(f"{before}{START}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def write_readme(path: Path, results: Path) -> None:
    """Put the tables of all results files between the markers of the page."""
    between_markers(path, "\n\n".join(tables(name, found) for name, found in read(results).items()))


def write_comparison(path: Path, results: Path) -> None:
    """Put the comparison between the markers of the page."""
    between_markers(path, comparison(read(results)))


def main(*arguments: str) -> None:
    """Read pytest-benchmark's JSON; write the results and the pages, or print the tables."""
    *options, source = arguments
    kept = summary(json.loads(Path(source).read_text(encoding="utf-8")))
    if "--print" in options:
        print("\n\n".join(tables(name, found) for name, found in kept.items()))
        return
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    for name, found in kept.items():
        text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
        (results / f"{name}.json").write_text(text, encoding="utf-8")
    write_readme(HERE / "README.md", results)
    write_comparison(HERE.parent / "README.md", results)
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    import figures

    figures.draw_all(read(results), HERE / "figures")
    print("benchmarks: the tables are in benchmarks/README.md and README.md, the figures in benchmarks/figures")


if __name__ == "__main__":
    main(*sys.argv[1:])
