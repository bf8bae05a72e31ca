// Draws the charts of a page from the API: the same answers that programs get. Each chart when it comes into view.
"use strict";
(() => {
  const holder = document.getElementById("chart-data");
  if (!holder || !window.LightweightCharts) return;
  const L = window.LightweightCharts;
  const about = JSON.parse(holder.textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const seconds = (text) => Math.floor(Date.parse(text) / 1000);
  const palette = ["#2f7ed8", "#8a63d2", "#d98324", "#2a9d8f", "#c2568f", "#7a8a2a", "#5b6ee1", "#b05c3b", "#4d8f4d", "#888f99", "#a0522d", "#3d9db3"];
  const compact = (value) => Math.abs(value) >= 1e9 ? `${(value / 1e9).toFixed(2)}B` : Math.abs(value) >= 1e6 ? `${(value / 1e6).toFixed(1)}M` : Math.abs(value) >= 1e3 ? `${(value / 1e3).toFixed(1)}k` : value.toFixed(0);
  const charts = [];

  const look = () => ({
    layout: { background: { color: "transparent" }, textColor: css("--dim"), fontFamily: "system-ui, sans-serif", fontSize: 11, attributionLogo: false },
    grid: { vertLines: { color: css("--line-soft") }, horzLines: { color: css("--line-soft") } },
    rightPriceScale: { borderColor: css("--line"), minimumWidth: 68, scaleMargins: { top: 0.08, bottom: 0.06 } },
    timeScale: { borderColor: css("--line"), timeVisible: true, secondsVisible: false, rightOffset: 1 },
  });
  const range = { from: seconds(about.from), to: seconds(about.to) };
  const step = { "1m": 60, "5m": 300, "1h": 3600 }[about.step];
  const places = [];
  for (let time = Math.floor(range.from / step) * step; time <= range.to; time += step) places.push({ time });
  // The whole span, not up to the last bucket that something is known of.
  const fit = (chart) => chart.timeScale().setVisibleLogicalRange({ from: -0.5, to: places.length - 0.5 });
  const make = (place) => {
    const chart = L.createChart(place, {
      ...look(), autoSize: true, handleScroll: false, handleScale: false,
      crosshair: { mode: L.CrosshairMode.Magnet },
      localization: { locale: "en-GB" },
    });
    // Every bucket of the span has its place, also where nothing is known of it; and it has it first: what is drawn
    // before its places exist is shifted out of the picture by them, and alerts with it.
    chart.addSeries(L.LineSeries, { priceScaleId: "places", lastValueVisible: false, priceLineVisible: false }).setData(places);
    chart.timeScale().subscribeSizeChange(() => fit(chart));
    charts.push(chart);
    return chart;
  };
  const line = (chart, color, format, more = {}) => chart.addSeries(L.LineSeries, {
    color, lineWidth: 1.5, priceLineVisible: false, lastValueVisible: false, crosshairMarkerRadius: 2,
    priceFormat: format ? { type: "custom", formatter: format, minMove: 1e-9 } : undefined, ...more,
  });
  // A hole in the data is a hole in the line, and so is what is unknown. The library joins over both; a point's colour is
  // that of the way to the next one, so the last point before a hole leads on unseen. Values that sources tell every
  // five minutes have no hole between them, whatever the buckets: `longest` is how far apart two may be.
  const quiet = Math.max(1.5 * step, 900), scored = 1.5 * step;
  const of = (rows, value, longest = quiet) => {
    const found = [];
    let known = null;
    for (const row of rows) {
      const time = seconds(row.time), told = value(row);
      const unknown = told === null || told === undefined;
      if (known && (unknown || time - known.time > longest)) known.color = known.topLineColor = known.bottomLineColor = "transparent";
      if (unknown) continue;
      known = { time, value: told };
      found.push(known);
    }
    return found;
  };
  const percent = (digits) => (value) => `${(value * 100).toFixed(digits)} %`;
  const byVenue = (chart, rows, field, format, legend) => {
    const venues = [...new Set(rows.flatMap((row) => Object.keys(row[field])))].sort();
    venues.forEach((venue, place) => {
      line(chart, palette[place % palette.length], format).setData(of(rows.filter((row) => venue in row[field]), (row) => row[field][venue]));
      if (legend && place < 12) {
        const one = document.createElement("span");
        one.className = "key";
        one.textContent = venue;
        const style = new CSSStyleSheet();
        style.replaceSync(`.venue-${place}::before { background: ${palette[place % palette.length]}; }`);
        document.adoptedStyleSheets = [...document.adoptedStyleSheets, style];
        one.classList.add(`venue-${place}`);
        legend.append(one);
      }
    });
  };

  const draw = {
    prices(place, rows) {
      const chart = make(place);
      const top = rows.length ? rows[rows.length - 1].close_usd : 1;
      const digits = top >= 10000 ? 0 : top >= 10 ? 2 : top >= 0.1 ? 4 : 6;
      // A bucket with one price is a candle without a body: alone, on a pixel's width, such candles are an empty picture.
      const priceFormat = { type: "price", precision: digits, minMove: 10 ** -digits };
      line(chart, css("--possible"), null, { lineWidth: 1, crosshairMarkerVisible: false, priceFormat }).setData(of(rows, (row) => row.close_usd));
      const series = chart.addSeries(L.CandlestickSeries, {
        upColor: css("--up"), downColor: css("--down"), borderVisible: false, wickUpColor: css("--up"), wickDownColor: css("--down"),
        priceFormat, priceLineVisible: false,
      });
      series.setData(rows.map((row) => ({ time: seconds(row.time), open: row.open_usd, high: row.high_usd, low: row.low_usd, close: row.close_usd })));
      const color = { CRITICAL: css("--critical"), WARNING: css("--warning"), INFO: css("--info") };
      const times = rows.map((row) => seconds(row.time));
      const marks = (about.alerts || []).filter((alert) => times.length && alert.time >= times[0]).map((alert) => ({
        time: times.filter((time) => time <= alert.time).pop(), id: alert.id, text: alert.rule,
        position: alert.side === "short" ? "belowBar" : "aboveBar", shape: alert.side === "short" ? "arrowUp" : "arrowDown",
        color: color[alert.severity] || css("--dim"),
      }));
      // Words that would lie over each other are left out; the arrows stay, and the table below has them all.
      const written = {};
      for (const mark of marks) {
        if (mark.time - (written[mark.position] ?? -Infinity) < (range.to - range.from) / 9) delete mark.text;
        else written[mark.position] = mark.time;
      }
      L.createSeriesMarkers(series, marks);
      chart.subscribeClick((event) => { if (event.hoveredObjectId) location.href = `/alerts/${event.hoveredObjectId}`; });
      return chart;
    },
    risk(place, rows) {
      const chart = make(place);
      const whole = (value) => value.toFixed(0);
      const scale = { autoscaleInfoProvider: () => ({ priceRange: { minValue: 0, maxValue: 100 } }) };
      line(chart, css("--possible"), whole, scale).setData(of(rows, (row) => row.score_high_max, scored));
      const main = line(chart, palette[0], whole, { ...scale, lineWidth: 2 });
      main.setData(of(rows, (row) => row.risk_max, scored));
      for (const [level, name] of [[50, "--warning"], [70, "--critical"]]) {
        main.createPriceLine({ price: level, color: css(name), lineWidth: 1, lineStyle: 2, axisLabelVisible: false });
      }
      return chart;
    },
    probability(place, rows) {
      const chart = make(place);
      line(chart, palette[1], percent(2), { lineWidth: 2 }).setData(of(rows, (row) => row.cascade_probability_4h_max, scored));
      return chart;
    },
    "open-interest"(place, rows) {
      const chart = make(place);
      line(chart, palette[3], compact, { lineWidth: 2 }).setData(of(rows, (row) => row.total_base));
      return chart;
    },
    funding(place, rows, legend) { const chart = make(place); byVenue(chart, rows, "by_venue_per_8h", percent(4), legend); return chart; },
    "long-short"(place, rows, legend) { const chart = make(place); byVenue(chart, rows, "by_venue_long_share", percent(1), null); return chart; },
    liquidations(place, rows) {
      const chart = make(place);
      const bars = (color, value) => chart.addSeries(L.HistogramSeries, {
        color, priceLineVisible: false, lastValueVisible: false, priceFormat: { type: "custom", formatter: (v) => compact(Math.abs(v)), minMove: 1 },
      }).setData(rows.map((row) => ({ time: seconds(row.time), value: value(row) })));
      bars("#d64545", (row) => row.long_usd);
      bars("#2a9d6f", (row) => -row.short_usd);
      return chart;
    },
    pressure(place, rows) {
      const chart = make(place);
      const series = chart.addSeries(L.BaselineSeries, {
        baseValue: { type: "price", price: 0 }, lineWidth: 1.5, priceLineVisible: false,
        topLineColor: css("--up"), bottomLineColor: css("--down"), topFillColor1: "transparent", topFillColor2: "transparent",
        bottomFillColor1: "transparent", bottomFillColor2: "transparent",
        priceFormat: { type: "custom", formatter: (value) => value.toFixed(0), minMove: 0.01 },
        autoscaleInfoProvider: () => ({ priceRange: { minValue: -100, maxValue: 100 } }),
      });
      series.setData(of(rows, (row) => row.pressure_avg, scored));
      return chart;
    },
  };

  const answers = new Map();
  const ask = (path) => {
    const query = new URLSearchParams({ from: about.from, to: about.to, step: about.step });
    const url = path === "pressure" ? `/api/v1/flows/pressure?${query}` : `/api/v1/symbols/${encodeURIComponent(about.symbol)}/${path}?${query}`;
    if (!answers.has(url)) answers.set(url, fetch(url).then((answer) => answer.ok ? answer.json() : Promise.reject(answer.status)));
    return answers.get(url);
  };
  const source = (place) => place.dataset.chart === "probability" ? "risk" : place.dataset.chart;
  const fill = async (place) => {
    const kind = place.dataset.chart;
    const empty = (text) => {
      const one = document.createElement("p");
      one.className = "nothing";
      one.textContent = text;
      place.append(one);
    };
    try {
      const answer = await ask(source(place));
      if (!answer.data.length) { empty("nothing stored in this span"); return; }
      const chart = draw[kind](place, answer.data, place.closest("figure").querySelector(".venues"));
      fit(chart);
    } catch (error) {
      empty("this chart could not be loaded");
      console.warn("chart", kind, error);
    }
  };
  // One chart at a time, each when the browser has a moment: several in one frame hold up a phone's page.
  const moment = () => new Promise((go) => window.requestIdleCallback ? requestIdleCallback(go, { timeout: 1000 }) : setTimeout(go, 50));
  let turn = Promise.resolve();
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      ask(source(target)).catch(() => {}); // asked at once, drawn in turn
      turn = turn.then(moment).then(() => fill(target));
    }
  }, { rootMargin: "60px" });
  for (const place of document.querySelectorAll("[data-chart]")) seen.observe(place);
  dark.addEventListener("change", () => { for (const chart of charts) chart.applyOptions(look()); });
})();
