"""What importing the definitions costs beside importing the libraries that they stand on.

Belongs here: that ratio. Does not: what may be imported (a test guards it: test_defs_graph.py).
The code server, the zygote and every cold run pay for this import. Both are timed in turn, in fresh processes.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Final

OURS: Final = "import liq_pipeline.definitions"
LIBRARIES: Final = "import dagster, pandas, sqlalchemy"
AT_MOST: Final = 1.3


def cost(code: str) -> tuple[float, float]:
    """Wall and CPU seconds of a fresh process that runs the code."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - begun, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench imports", description=__doc__)
    parser.add_argument("--import-rounds", type=int, default=7)
    options, _ = parser.parse_known_args(arguments)
    cost(OURS)  # writes the compiled files
    seen = [(cost(LIBRARIES), cost(OURS)) for _ in range(options.import_rounds)]
    print(f"\nimports, {options.import_rounds} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} after")
    for index, kind in enumerate(("wall", "CPU")):
        libraries, ours = (statistics.median(pair[side][index] for pair in seen) for side in (0, 1))
        print(f"  {kind}: dagster, pandas, sqlalchemy {libraries:.2f} s; our definitions {ours:.2f} s", end="")
        print(f"; ratio {ours / libraries:.2f} (at most {AT_MOST:g}: {'yes' if ours / libraries <= AT_MOST else 'NO'})")
