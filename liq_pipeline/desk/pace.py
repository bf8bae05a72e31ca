"""How often one caller may ask: enough for any reader, too little to take the machine from the ticks.

Belongs here: counting by address. Does not: who may come in at all (desk/doors.py), how many questions are worked on
at once (desk/api/memory.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

PER_SECOND: Final = 500.0
BURST: Final = 3_000.0
MOST_ADDRESSES: Final = 4_096
"""Known at once; the one that asked longest ago is forgotten, and so begins anew."""


class Pace:
    """A bucket of BURST questions for each address that fills again at PER_SECOND. clock: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float], *, per_second: float = PER_SECOND, burst: float = BURST) -> None:
        self._clock = clock
        self._per_second = per_second
        self._burst = burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, address: str) -> bool:
        """Whether it may ask now; if so, that is counted."""
        now = self._clock()
        left, at = self._left.pop(address, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_second)
        may = left >= 1
        self._left[address] = (left - 1 if may else left, now)
        while len(self._left) > MOST_ADDRESSES:
            self._left.popitem(last=False)
        return may
