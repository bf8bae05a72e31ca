"""`python -m bench [NAME ...]`: run the named benchmarks, all by default.

Belongs here: finding and starting benchmarks. Does not: measuring.
A benchmark is a module of this package with a function main(arguments: list[str]) -> None.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path


def main() -> None:
    """Run what was asked for. Arguments that begin with -- go to every benchmark."""
    names = sorted(
        module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if not module.name.startswith("_")
    )
    asked = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    unknown = sorted(set(asked) - set(names))
    if unknown:
        sys.exit(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(names)}")
    for name in asked or names:
        importlib.import_module(f"bench.{name}").main(
            [argument for argument in sys.argv[1:] if argument.startswith("--")]
        )


if __name__ == "__main__":
    main()
