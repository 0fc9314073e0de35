"""Turn pytest-benchmark's JSON into benchmarks/results/*.json and the tables of benchmarks/README.md.

Run: python benchmarks/report.py FILE, as `make bench` does. A results file holds the machine, the versions, the commit
and the medians of one benchmark file; host names, users and paths of the input are left out.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
START, END = "<!-- results: written by report.py -->", "<!-- end of results -->"


def summary(raw: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """pytest-benchmark's JSON -> name of a benchmark file ("random") -> what is kept of it."""
    cpu, commit = raw["machine_info"]["cpu"], raw["commit_info"]
    about = {
        "date": raw["datetime"][:10],
        "commit": (commit.get("id") or "unknown")[:12] + (" with changes" if commit.get("dirty") else ""),
        "cpu": cpu.get("brand_raw", "unknown"),
        "cores": os.cpu_count(),
        "os": f"{platform.system()} {platform.machine()}",
        "python": raw["machine_info"]["python_version"],
        "numpy": metadata.version("numpy"),
    }
    kept: dict[str, dict[str, Any]] = {}
    for benchmark in raw["benchmarks"]:
        name = re.sub(r"^test_", "", Path(benchmark["fullname"].split("::")[0]).stem)
        stats, results = benchmark["stats"], benchmark["extra_info"].get("results_a_call", 1)
        row = {
            "group": benchmark["group"],
            "name": (benchmark["params"] or {}).get("name") or benchmark["name"],
            "rounds": stats["rounds"],
            **{key: stats[key] / results for key in ("median", "q1", "q3", "min")},
        }
        kept.setdefault(name, {"about": about, "benchmarks": []})["benchmarks"].append(row)
    return kept


def seconds(value: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def tables(name: str, results: dict[str, Any]) -> str:
    """Markdown: a heading, the machine, and a table a group with its ratios to the row that is NumPy's."""
    about, groups = results["about"], {}
    for row in results["benchmarks"]:
        groups.setdefault(row["group"], []).append(row)
    lines = [
        f"### {name}",
        "",
        f"{about['cpu']}, {about['cores']} cores, {about['os']}; Python {about['python']}, NumPy {about['numpy']}; "
        f"commit {about['commit']}, {about['date']}.",
    ]
    for group, rows in groups.items():
        yardstick = next((row["median"] for row in rows if row["name"].startswith("NumPy")), None)
        lines += ["", f"| {group} | ratio | median | quartiles | rounds |", "|---|---:|---:|---:|---:|"]
        for row in rows:
            ratio = f"{row['median'] / yardstick:.2f}" if yardstick else ""
            quartiles = f"{seconds(row['q1'])} – {seconds(row['q3'])}"
            lines.append(f"| {row['name']} | {ratio} | {seconds(row['median'])} | {quartiles} | {row['rounds']} |")
    return "\n".join(lines)


def write_readme(path: Path, results: Path) -> None:
    """Put the tables of all results files between the markers of the page."""
    page = path.read_text(encoding="utf-8")
    before, rest = page.split(START)
    after = rest.split(END)[1]
    parts = [tables(file.stem, json.loads(file.read_text(encoding="utf-8"))) for file in sorted(results.glob("*.json"))]
    path.write_text(f"{before}{START}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}", encoding="utf-8")


def main(source: str) -> None:
    """Read pytest-benchmark's JSON, write the results and the page."""
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    for name, kept in summary(json.loads(Path(source).read_text(encoding="utf-8"))).items():
        text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
        (results / f"{name}.json").write_text(text, encoding="utf-8")
    write_readme(HERE / "README.md", results)
    print(f"benchmarks: the tables are in {HERE.name}/README.md")


if __name__ == "__main__":
    main(*sys.argv[1:])
