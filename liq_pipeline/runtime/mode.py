"""Which world this installation shows: decided once at start-up, said with its reason, and kept.

Belongs here: the rule. Does not: asking the sources (sources/access/probe.py does; it is handed in).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from liq_pipeline.runtime.endpoints import EffectiveMode
from liq_pipeline.runtime.home import Home
from liq_pipeline.settings import Settings


class Probe(Protocol):
    """What asking the sources at start-up found out (sources/access/probe.py: ProbeResult)."""

    @property
    def prices_ok(self) -> Sequence[str]: ...
    @property
    def derivatives_ok(self) -> Sequence[str]: ...
    @property
    def failures(self) -> Mapping[str, str]:
        """source -> why it did not answer"""
        ...


def decide_mode(settings: Settings, home: Home, probe: Callable[[Settings], Probe]) -> tuple[EffectiveMode, str]:
    """The mode in force and the reason, one sentence; the choice is kept in the home.

    auto: live if at least one price and one derivatives source answer, else simulated. A home that was ever live
    never starts simulated by itself: it starts live and blind. probe is only called where its answer counts.
    """
    if settings.mode != "auto":
        chosen, reason = settings.mode, f"asked for (LIQ_MODE or --mode says {settings.mode})"
    else:
        chosen, reason = _decide(settings, home, probe)
    _keep(home, chosen)
    return chosen, reason


def _decide(settings: Settings, home: Home, probe: Callable[[Settings], Probe]) -> tuple[EffectiveMode, str]:
    kept = home.remembered()
    if kept.get("auto_mode") == "simulated" and "first_live_at" not in kept:
        return "simulated", "this home chose simulated at its first start and keeps it: LIQ_MODE=live changes that"
    found = probe(settings)
    if found.prices_ok and found.derivatives_ok:
        home.remember(auto_mode="live")
        return "live", f"prices answer from {_names(found.prices_ok)}, derivatives from {_names(found.derivatives_ok)}"
    if "first_live_at" in kept:
        return "live", (
            f"this home has been live since {kept['first_live_at']}, so it starts live and BLIND: {_silence(found)}; "
            "it never turns to simulated data by itself"
        )
    home.remember(auto_mode="simulated")
    return "simulated", f"no live data can be had from here: {_silence(found)}"


def _keep(home: Home, chosen: EffectiveMode) -> None:
    if chosen == "live" and "first_live_at" not in home.remembered():
        home.remember(first_live_at=datetime.now(UTC).isoformat(timespec="seconds"))


def _names(sources: Sequence[str], most: int = 4) -> str:
    more = len(sources) - most
    return ", ".join(sources[:most]) + (f" and {more} more" if more > 0 else "")


def _silence(found: Probe) -> str:
    """Which half is missing, and the commonest reasons given."""
    missing = [what for what, names in (("price", found.prices_ok), ("derivatives", found.derivatives_ok)) if not names]
    shown = [f"{name}: {reason}" for name, reason in list(found.failures.items())[:2]]
    more = len(found.failures) - len(shown)
    details = "; ".join(shown) + (f"; and {more} more" if more > 0 else "")
    return f"no {' and no '.join(missing)} source answers" + (f" ({details})" if details else "")
