"""What a channel wants, written into its own address: a least level, rules, quiet hours.

Belongs here: reading and applying liq_min, liq_rules and liq_quiet. Does not: sending (channels.py), or who keeps track
(delivery.py). The options are taken off before an address is used, and no error repeats an address.

    tgram://TOKEN/CHAT?liq_min=critical&liq_rules=under_way,severity&liq_quiet=22:00-07:00@Europe/Berlin
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import SecretStr

from liq_pipeline.alerting.deciding.policy import LEVEL_OF_NAME
from liq_pipeline.errors import LiqError
from liq_pipeline.settings import PAGING_RULES

_OPTIONS: Final = ("liq_min", "liq_rules", "liq_quiet")
_QUIET: Final = re.compile(r"(\d{2}):(\d{2})-(\d{2}):(\d{2})(?:@([A-Za-z0-9_+/-]+))?")


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """url: the address without them. least: a level; quiet: from, to and their zone."""

    url: SecretStr
    least: int = 0
    rules: frozenset[str] = frozenset(PAGING_RULES)
    quiet: tuple[time, time, ZoneInfo] | None = None

    def withheld(self, payload: Mapping[str, Any], now: datetime) -> str | None:
        """Why a message is not for this channel now, or None. Blindness is for everyone, always; so is the end of
        what was told, unless it is quiet. A CRITICAL breaks the quiet."""
        if payload["rule"] == "blind":
            return None
        told = (payload["severity"], payload["severity_before"])
        level = max(LEVEL_OF_NAME.get(name, 0) for name in told)
        named = {payload["rule"], *(other["rule"] for other in payload.get("also", ()))}
        if not named & self.rules:
            return f"liq_rules leaves out {', '.join(sorted(named))}"
        if level < self.least:
            return "below liq_min"
        if self.quiet is not None and payload["severity"] != "CRITICAL":
            begin, end, zone = self.quiet
            at = now.astimezone(zone).time()
            if begin <= at < end if begin <= end else at >= begin or at < end:
                return f"quiet hours until {end:%H:%M} {zone.key}"
        return None


def read_options(url: SecretStr) -> ChannelOptions:
    """The options of an address. Raises LiqError with one sentence for what cannot be read."""
    address, question, query = url.get_secret_value().partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    given = {name: value for name, value in pairs if name in _OPTIONS}
    unknown = sorted(name for name, _ in pairs if name.startswith("liq_") and name not in _OPTIONS)
    if unknown:
        raise LiqError(f"{', '.join(unknown)} is no option of an alert channel: there are {', '.join(_OPTIONS)}")
    if not given:
        return ChannelOptions(url)
    rest = urlencode([(name, value) for name, value in pairs if name not in given])
    return ChannelOptions(
        SecretStr(address + (question + rest if rest else "")),
        _least(given["liq_min"]) if "liq_min" in given else 0,
        _rules(given["liq_rules"]) if "liq_rules" in given else frozenset(PAGING_RULES),
        _quiet(given["liq_quiet"]) if "liq_quiet" in given else None,
    )


def _least(text: str) -> int:
    level = LEVEL_OF_NAME.get(text.strip().upper())
    if not level:
        raise LiqError(f"liq_min of an alert channel must be info, warning or critical, not {text!r}")
    return level


def _rules(text: str) -> frozenset[str]:
    rules = frozenset(part.strip().lower() for part in text.split(",") if part.strip())
    if not rules or not rules <= set(PAGING_RULES):
        raise LiqError(f"liq_rules of an alert channel must name some of {', '.join(PAGING_RULES)}, not {text!r}")
    return rules


def _quiet(text: str) -> tuple[time, time, ZoneInfo]:
    refusal = LiqError(f"liq_quiet of an alert channel must be like 22:00-07:00@Europe/Berlin, not {text!r}")
    found = _QUIET.fullmatch(text.strip())
    if found is None:
        raise refusal
    hours = [int(part) for part in found.groups()[:4]]
    try:
        zone = ZoneInfo(found.group(5) or "UTC")
        return time(hours[0], hours[1]), time(hours[2], hours[3]), zone
    except (ValueError, ZoneInfoNotFoundError) as error:
        raise refusal from error
