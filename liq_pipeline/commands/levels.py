"""The command that shows the liquidation map as a table.

Belongs here: arguments and printing. Does not: the map (scoring/levels/), its table (store/levels.py).
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from liq_pipeline.commands.shared import JsonOption, endpoints_in_force, instant, json_default, out, settings_in_force
from liq_pipeline.errors import LiqError

if TYPE_CHECKING:
    from liq_pipeline.store.levels import StoredMap

BAR_WIDTH = 30


def show(
    symbol: Annotated[str | None, typer.Argument(help="A symbol, e.g. BTC; without it, a line for each.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="The map as of this time (UTC); default: the newest.")] = None,
    as_json: JsonOption = False,
) -> None:
    """The liquidation map, an estimate: USD that would be closed by force around the price. See docs/levels.md."""
    from liq_pipeline.store import levels, worlds
    from liq_pipeline.store.connection import connect

    endpoints = endpoints_in_force(settings_in_force())
    time = None if at is None else instant(at, "--at")
    with connect(endpoints.database_url, application_name="liq levels") as connection:
        world = worlds.active(connection)
        if world is None:
            raise LiqError("no world is active: start the pipeline with `liq up`.")
        symbols = world.manifest.symbols if symbol is None else (symbol.upper(),)
        if symbol is not None and symbol.upper() not in world.manifest.symbols:
            raise LiqError(f"{symbol.upper()} is not followed: LIQ_SYMBOLS has {', '.join(world.manifest.symbols)}.")
        found = [levels.map_at_time(connection, world.name, name, time) for name in symbols]
    maps = [one for one in found if one is not None]
    if as_json:
        for one in maps:
            sys.stdout.write(json.dumps(dataclasses.asdict(one), default=json_default) + "\n")
    elif not maps:
        out.print("No map has been drawn yet: the first comes within five minutes of the first score.")
    elif symbol is None:
        out.print(_overview(maps))
    else:
        for line in _map_lines(maps[0]):
            out.print(line)
    if not maps:
        raise typer.Exit(1)


def _overview(maps: list[StoredMap]) -> Table:
    within = ("longs within 1 %", "3 %", "5 %", "shorts within 1 %", "3 %", "5 %")
    table = Table("symbol", "price", *within, "up to", "time", header_style="bold")
    for one in maps:
        cells = [usd(getattr(one, f"{side}_within_{p}_usd")) for side in ("long", "short") for p in (1, 3, 5)]
        table.add_row(one.symbol, price(one.reference_usd), *cells, _range(one), f"{one.time:%Y-%m-%d %H:%M}")
    return table


def _map_lines(one: StoredMap) -> Iterator[Table | str]:
    yield f"{one.symbol} {price(one.reference_usd)} USD, {one.time:%Y-%m-%d %H:%M} UTC, world {one.world}: an ESTIMATE"
    if one.reference_usd is None or one.long_notional_usd is None or one.short_notional_usd is None:
        yield "Nobody's open interest was known long enough: the map is unknown."
        return
    table = Table("price", "distance", "side", "USD", "", header_style="bold")
    # Two bins of 0.25 % a line, within 5 %: what fits a screen.
    rows = []
    for side, notional, sign in (("short", one.short_notional_usd, 1), ("long", one.long_notional_usd, -1)):
        lines = [
            (sign * (k + 2) * one.bin_width, side, sum(notional[k : k + 2]))
            for k in range(0, round(0.05 / one.bin_width), 2)
        ]
        rows += reversed(lines) if sign > 0 else lines
    largest = max(amount for _, _, amount in rows)
    for away, side, amount in rows:
        bar = "█" * round(BAR_WIDTH * amount / largest) if largest > 0 else ""
        table.add_row(price(one.reference_usd * (1 + away)), f"{away:+.1%}", side, usd(amount), bar)
    yield table
    for side, where in (("long", "below"), ("short", "above")):
        within = ", ".join(f"{usd(getattr(one, f'{side}_within_{p}_usd'))} within {p} %" for p in (1, 3, 5))
        cluster = getattr(one, f"{side}_cluster_price_usd")
        heap = "no cluster within 10 %"
        if cluster is not None:
            heap = f"nearest cluster {usd(getattr(one, f'{side}_cluster_usd'))} at {price(cluster)}"
        yield f"{side}s {where}: {within}; {heap}"
    yield f"known of {', '.join(one.venues)}; every amount may be up to {_range(one)} times as large"
    if one.silent_venues or one.unheard_venues:
        yield f"not in it: {', '.join([*one.silent_venues, *one.unheard_venues])}"
    yield f"method {one.method_version}; measured in docs/levels.md; not for orders"


def usd(amount: float | None) -> str:
    """1.2 M, unknown as a dash."""
    if amount is None:
        return "-"
    for size, letter in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        if amount >= size:
            return f"{amount / size:.1f} {letter}"
    return f"{amount:.0f}"


def price(value: float | None) -> str:
    """Six significant digits, unknown as a dash."""
    return "-" if value is None else f"{value:,.6g}"


def _range(one: StoredMap) -> str:
    return "unknown" if one.high_factor is None else f"{one.high_factor:.2f}"
