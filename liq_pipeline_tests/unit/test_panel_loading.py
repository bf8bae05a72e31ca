"""A panel is what was known at each time, on one grid; what does not fit becomes unknown and is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation.panels import panel as panels
from liq_pipeline.evaluation.panels.panel import load_panel, panel_from_frame


def frame(step: str = "5min", rows: int = 24, symbols: tuple[str, ...] = ("BTC", "ETH")) -> pd.DataFrame:
    times = pd.date_range("2026-01-16", periods=rows, freq=step, tz="UTC")
    parts = [
        pd.DataFrame({"time": times, "symbol": s, "price_usd": 100.0 + np.arange(rows), "open_interest_base": 10.0})
        for s in symbols
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("step", ["5min", "15min", "1h"])
def test_the_step_is_inferred(step: str) -> None:
    panel = panel_from_frame(frame(step))
    assert panel.step_seconds == pd.Timedelta(step).total_seconds()
    assert panel["price_usd"].shape == (2, 24)


def test_csv_and_parquet_read_alike(tmp_path: Path) -> None:
    rows = frame()
    rows.to_csv(tmp_path / "p.csv", index=False)
    rows.to_parquet(tmp_path / "p.parquet")
    a, b = load_panel(tmp_path / "p.csv"), load_panel(tmp_path / "p.parquet")
    assert a.symbols == b.symbols == ("BTC", "ETH")
    assert np.array_equal(a.time, b.time)
    for name, values in a.columns.items():
        assert np.array_equal(values, b[name], equal_nan=True), name


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_epoch_times_of_any_unit_are_read(unit: int) -> None:
    rows = frame()
    expected = panel_from_frame(rows).time
    rows["time"] = rows["time"].dt.as_unit("s").astype("int64") * unit
    word = {1: "seconds", 10**3: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}[unit]
    for written in (rows, rows.assign(time=rows["time"].astype(float)), rows.assign(time=rows["time"].astype(str))):
        panel = panel_from_frame(written)
        assert np.array_equal(panel.time, expected)
        assert any(f"time read as {word}" in note and "2026-01-16 00:00:00" in note for note in panel.notes)


def test_contracts_are_read_as_coins_and_said() -> None:
    panel = panel_from_frame(frame(symbols=("BTCUSDT", "ETH-PERP", "WIF")))
    assert panel.symbols == ("BTC", "ETH", "WIF")
    assert "read as coins: BTCUSDT as BTC, ETH-PERP as ETH" in panel.notes


def test_two_series_of_one_coin_are_refused() -> None:
    with pytest.raises(LiqError, match=r"several series of BTC \(BTCUSD, BTCUSDT\)"):
        panel_from_frame(frame(symbols=("BTCUSD", "BTCUSDT")))


def test_a_panel_without_the_leaders_names_what_is_lost() -> None:
    assert any("no BTC and no ETH in the panel" in note for note in panel_from_frame(frame(symbols=("WIF",))).notes)
    assert not any("no BTC" in note for note in panel_from_frame(frame()).notes)


def test_absent_columns_and_cells_are_unknown_not_zero() -> None:
    rows = frame()
    rows.loc[3, "open_interest_base"] = np.nan
    panel = panel_from_frame(rows)
    assert not panel.has("funding_rate_per_8h")
    assert np.isnan(panel["open_interest_base"][0, 3])
    assert np.isnan(panel["open_interest_usd"][0, 3])


def test_missing_rows_leave_holes_in_a_regular_grid() -> None:
    rows = frame().drop(index=[5, 6])
    panel = panel_from_frame(rows)
    assert np.isnan(panel["price_usd"][0, 5:7]).all()
    assert np.isfinite(panel["price_usd"][1]).all()
    assert (np.diff(panel.time) == 300).all()


def test_order_of_rows_and_case_of_symbols_do_not_matter() -> None:
    rows = frame()
    shuffled = rows.sample(frac=1, random_state=1)
    shuffled["symbol"] = shuffled["symbol"].str.lower()
    assert np.array_equal(panel_from_frame(rows)["price_usd"], panel_from_frame(shuffled)["price_usd"])


def test_price_and_open_interest_follow_from_each_other() -> None:
    rows = frame()
    rows["open_interest_usd"] = rows["price_usd"] * rows["open_interest_base"]
    panel = panel_from_frame(rows.drop(columns="price_usd"))
    assert panel["price_usd"][0, 7] == pytest.approx(107.0)
    assert any("derived" in note for note in panel.notes)


def test_a_stamp_seconds_off_is_its_grid_point_and_a_later_one_is_the_next() -> None:
    rows = frame(symbols=("BTC",))
    rows.loc[4, "time"] += pd.Timedelta(seconds=3)
    rows.loc[23, "time"] += pd.Timedelta(seconds=90)
    panel = panel_from_frame(rows)
    assert panel["price_usd"][0, 4] == 104.0
    assert np.isnan(panel["price_usd"][0, 23])
    assert panel["price_usd"][0, 24] == 123.0
    assert any("off the 300 s grid" in note for note in panel.notes)


def test_the_later_of_two_rows_of_one_time_counts_and_is_noted() -> None:
    rows = frame(symbols=("BTC",))
    again = rows.loc[[2]].assign(price_usd=55.0)
    panel = panel_from_frame(pd.concat([rows, again]))
    assert panel["price_usd"][0, 2] == 55.0
    assert any("share symbol and time" in note for note in panel.notes)


def test_impossible_numbers_become_unknown_and_are_counted() -> None:
    rows = frame(symbols=("BTC",))
    rows.loc[1, "price_usd"], rows.loc[2, "price_usd"] = -3.0, np.inf
    panel = panel_from_frame(rows)
    assert np.isnan(panel["price_usd"][0, 1:3]).all()
    assert "2 impossible values of price_usd count as unknown" in panel.notes


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: f.drop(columns="symbol"), "has no column symbol"),
        (lambda f: f.iloc[:0], "has no rows"),
        (lambda f: f.drop(columns="price_usd"), "no column price_usd"),
        (lambda f: f.iloc[[0]], "step cannot be inferred"),
        (lambda f: f.assign(time="yesterday"), "cannot be read"),
        (lambda f: frame("7min"), "must divide an hour"),
    ],
)
def test_what_is_no_panel_is_refused_in_one_sentence(change, sentence: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(LiqError, match=sentence):
        panel_from_frame(change(frame()))


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LiqError, match=r"missing\.csv"):
        load_panel(tmp_path / "missing.csv")


def test_a_coarser_panel_keeps_the_points_of_its_grid() -> None:
    panel = panel_from_frame(frame(rows=25))
    hourly = panel.coarser(3600)
    assert hourly["price_usd"][0].tolist() == [100.0, 112.0, 124.0]


def test_a_packed_panel_is_read_and_one_that_unpacks_without_end_or_is_cut_short_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = frame()
    rows.to_csv(tmp_path / "p.csv.gz", index=False)
    assert load_panel(tmp_path / "p.csv.gz").rows == 48
    monkeypatch.setattr(panels, "MOST_CSV_BYTES", 1000)
    with pytest.raises(LiqError, match="unpacks to more than"):
        load_panel(tmp_path / "p.csv.gz")
    monkeypatch.undo()
    (tmp_path / "q.csv.gz").write_bytes((tmp_path / "p.csv.gz").read_bytes()[:-30])
    with pytest.raises(LiqError, match="cannot be read as a CSV or Parquet panel"):
        load_panel(tmp_path / "q.csv.gz")
    rows.to_parquet(tmp_path / "p.parquet")
    monkeypatch.setattr(panels, "MOST_ROWS", 40)
    with pytest.raises(LiqError, match="says that it has 48 rows"):
        load_panel(tmp_path / "p.parquet")
