"""make faults: plant every fault, make every rewrite, each in a process of its own, and say what the oracle said.

Then run the script of every fault, with it and without.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from faults import scripts
from faults.catalogue import FAULTS
from faults.rewrites import REWRITES, SETTINGS
from faults.running import in_processes

LOCALISED = 0.95  # of the faults, at least: to quantity and layer
UNDER_SETTINGS = ("product column by column", "dropout by a product", "L2 by rows", "adam's m as a weighted sum")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1000, help="random models that must not be flagged")
    parser.add_argument("--at-once", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="processes")
    parser.add_argument("--json", type=Path, help="write what was found")
    given = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    names = [fault.name for fault in FAULTS]
    found = list(track(in_processes(names, at_once=given.at_once), "faults", len(names), console=console))
    names = [rewrite.name for rewrite in REWRITES]
    rewrites = list(track(in_processes(names, at_once=given.at_once), "rewrites", len(names), console=console))
    for setting, values in SETTINGS.items():
        for result in in_processes(list(UNDER_SETTINGS), values, given.at_once):
            result.name = f"{setting}: {result.name}"
            rewrites.append(result)

    table = Table("planted", "", "killed", "localised", title="Faults")
    for quantity in dict.fromkeys(str(fault.quantity) for fault in FAULTS):
        group = [
            result for result, fault in zip(sorted_as(found), FAULTS, strict=True) if str(fault.quantity) == quantity
        ]
        killed, localised = (sum(getattr(one, name) for one in group) for name in ("killed", "localised"))
        table.add_row(quantity, str(len(group)), str(killed), str(localised))
    console.print(table)
    missed = [one for one in found if not one.killed]
    elsewhere = [one for one in found if one.killed and not one.localised]
    alarms = [one for one in rewrites if one.said != "right"]
    for what, group in (("missed", missed), ("named elsewhere", elsewhere), ("false alarm", alarms)):
        for one in group:
            console.print(f"{what}: {one.name}: {one.said}")
    killed, localised = len(found) - len(missed), sum(one.localised for one in found)
    console.print(
        f"{killed} of {len(found)} faults killed, {localised} localised ({localised / len(found):.1%}); "
        f"{len(alarms)} false alarms in {len(rewrites)} rewrites."
    )
    right = in_keras_alone([fault.name for fault in FAULTS], console)
    right &= random_models(given.models, console) if given.models else True
    if given.json:
        said = {"faults": [vars(one) for one in found], "rewrites": [vars(one) for one in rewrites]}
        given.json.write_text(json.dumps(said, indent=1) + "\n")
    return 0 if not missed and localised >= LOCALISED * len(found) and not alarms and right else 1


def sorted_as(found: list) -> list:
    """The results in the catalogue's order."""
    by_name = {one.name: one for one in found}
    return [by_name[fault.name] for fault in FAULTS]


def in_keras_alone(names: list[str], console: Console) -> bool:
    """Whether each fault's script shows it in Keras alone, and shows nothing where the fault is not planted."""
    console.print(f"{len(names)} scripts …")
    found = scripts.in_processes(names)
    wrong = {name: one for name, one in found.items() if (one["planted"][0], one["plain"][0]) != (1, 0)}
    for name, one in wrong.items():
        console.print(f"script: {name}: with the fault {one['planted']}, without {one['plain']}")
    console.print(f"{len(found) - len(wrong)} of {len(found)} faults shown in Keras alone.")
    return not wrong


def random_models(count: int, console: Console) -> bool:
    """Whether none of so many random models is flagged."""
    program = Path(__file__).parents[1] / "judge_models.py"
    root = program.parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    console.print(f"{count} random models …")
    return subprocess.run([sys.executable, str(program), str(count)], env=environment, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
