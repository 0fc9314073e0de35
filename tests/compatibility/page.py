"""docs/compatibility.md: each section is made of the rows that running its entries gives."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

from compatibility import territory
from compatibility.engine import Bench, Entry, Row, settings

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"

INTRODUCTION = """\
# What of Keras works

Every public name of Keras that a script for a plain multilayer perceptron uses, and every argument of each, as
`inspect.signature` lists them. Each was run in Keras {keras} on TensorFlow {tensorflow} and in minidl, in float64, from
one seed: once without the argument and once with it, so that Keras's own result had to change. A name or an argument
counts as *supported* if both ran and agreed (numbers to 10⁻¹² of the largest, all else exactly), as *refused* if minidl
raised an error that names it, and as *absent* if minidl does not have the name. There is no fourth kind: anything
else fails the tests, as does a name or an argument of Keras that nothing tries.

`make docs` writes this page and `tests/test_compatibility.py` compares it with what it finds.

{summary}
"""


def rows_of(bench: Bench, section: str) -> dict[str, list[Row]]:
    """path -> the rows of its settings; of a name that minidl lacks or refuses, the first alone."""
    found: dict[str, list[Row]] = {}
    for entry in territory.entries_of(section):
        rows = found.setdefault(entry.path, [])
        for argument, trial in settings(entry):
            if argument is None and rows:
                continue
            rows.append(bench.row(entry, argument, trial))
            if argument is None and rows[-1].verdict in ("absent", "refused"):
                break
        rows.extend(
            Row(entry.path, name, "", rows[0].verdict)
            for name in entry.required
            if rows[0].verdict == "supported" and name not in entry.arguments and name not in {r.argument for r in rows}
        )
    return found


def defects(rows: dict[str, list[Row]]) -> list[str]:
    """What is neither supported nor refused nor absent."""
    return [
        f"{row.path} {row.argument or ''} {row.label}: {row.reason}"
        for found in rows.values()
        for row in found
        if row.verdict == "defect"
    ]


def table(rows: dict[str, list[Row]]) -> list[str]:
    """The lines of a section's table: names of which the same is to be said share a row; first what is supported."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for path, found in rows.items():
        for line in cells(found):
            alike.setdefault(line, []).append(f"`{path.rpartition('.')[2]}`")
    lines = ["| Name | Arguments | | Reason or remark |", "|---|---|---|---|"]
    for (arguments, verdict, reason), names in sorted(alike.items(), key=lambda line: line[0][1] != "supported"):
        lines.append(f"| {', '.join(names)} | {arguments} | {verdict} | {reason} |".replace("|  |", "| |"))
    return lines


def cells(rows: list[Row]) -> list[tuple[str, str, str]]:
    """(arguments, verdict, reason) of one name: first all that is supported, then each refusal."""
    if rows[0].verdict != "supported":
        return [("", rows[0].verdict, escaped(rows[0].reason))]
    refused = [row for row in rows if row.verdict == "refused"]
    supported: dict[str, list[Row]] = {}
    for row in rows:
        if row.argument is not None and row.verdict == "supported":
            supported.setdefault(row.argument, []).append(row)
    partly = {row.argument for row in refused}
    listed = [
        f"`{name}`" + (f" ({', '.join(row.label for row in found)})" if name in partly and found[0].label else "")
        for name, found in supported.items()
    ]
    remarks = dict.fromkeys(
        f"`{row.argument}`: {row.reason}" for row in rows if row.verdict == "supported" and row.reason
    )
    found = [(", ".join(listed), "supported", escaped("; ".join(remarks)))]
    for row in refused:
        what = f"`{row.argument}`" + (f" ({row.label})" if row.label else "")
        found.append((what, "refused", escaped(row.reason)))
    return found


def escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def section_text(section: str, rows: dict[str, list[Row]]) -> str:
    """A section of the page."""
    title = f"The class `{section}`" if section in territory.MEMBERS else f"`{section}`"
    return "\n".join([f"## {title}", "", territory.SECTIONS[section], "", *table(rows), ""])


def outside_text() -> str:
    """The last section: what is left out."""
    lines = ["## Outside minidl's territory", ""]
    for why, sections in territory.OUTSIDE.items():
        names = [
            f"`{where.strip() + '.' if where.strip() != 'keras' else ''}{name}`"
            for where, found in sections.items()
            for name in found.split()
        ]
        lines.append(f"- {why[0].upper()}{why[1:]}: {', '.join(names)}.")
    modules = ", ".join(f"`{name}`" for name in sorted(territory.MODULES_OUTSIDE - {"datasets"}))
    lines.append(f"- Whole modules: {modules}; `datasets` (they are downloads; `minidl.datasets` has its own).")
    return "\n".join([*lines, ""])


def counts(text: str) -> dict[str, int]:
    """Arguments and names without any, by verdict, as the tables have them."""
    found = dict.fromkeys(("supported", "refused", "absent"), 0)
    for line in text.splitlines():
        cell = [each.strip() for each in line.strip("|").replace("\\|", "").split("|")]
        if len(cell) == 4 and cell[2] in found:
            arguments = len(cell[1].split("`, `")) if cell[1] else 0
            found[cell[2]] += cell[0].count("`") // 2 * max(1, arguments)
    return found


def summary_text(keras: Any, sections: str) -> str:
    """Title, versions and counts."""
    found = counts(sections)
    summary = (
        f"**{found['supported']}** arguments (and names without any) are supported, **{found['refused']}** refused, "
        f"**{found['absent']}** names absent."
    )
    distribution = "tensorflow-cpu" if not _version("tensorflow") else "tensorflow"
    return INTRODUCTION.format(keras=keras.__version__, tensorflow=_version(distribution), summary=summary)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def entries_named(path: str) -> list[Entry]:
    return [entry for entry in territory.ENTRIES if entry.path == path]


def write(keras: Any, minidl: Any) -> list[str]:
    """Run everything and write the page. Returns the defects; with any, nothing is written."""
    bench, texts, found = Bench(keras, minidl), [], []
    for section in territory.SECTIONS:
        rows = rows_of(bench, section)
        found += defects(rows)
        texts.append(section_text(section, rows))
    sections = "\n".join(texts)
    if not found:
        PAGE.write_text("\n".join([summary_text(keras, sections), sections, outside_text()]), encoding="utf-8")
    return found
