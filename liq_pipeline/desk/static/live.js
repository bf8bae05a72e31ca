// Keeps a page current: one event stream, one look at the page's own address when something was committed.
// Ages count on between looks. Without this script the page is complete, only still.
"use strict";
(() => {
  const state = document.querySelector(".live-state");
  const said = document.getElementById("said");
  const live = document.querySelectorAll("[data-live]").length > 0;
  let waiting = null, busy = false, again = false;

  const show = (name, text) => {
    if (!state) return;
    state.dataset.state = name;
    state.querySelector(".text").textContent = text;
  };

  const words = (seconds) =>
    seconds < 120 ? `${Math.max(0, Math.round(seconds))}\u202fs`
      : seconds < 7200 ? `${Math.round(seconds / 60)}\u202fmin`
        : seconds < 172800 ? `${(seconds / 3600).toFixed(1)}\u202fh` : `${(seconds / 86400).toFixed(1)}\u202fd`;

  const tell = () => {
    for (const one of document.querySelectorAll("[data-since]")) {
      one.textContent = words((Date.now() - Date.parse(one.dataset.since)) / 1000);
    }
  };

  // Only what differs is replaced, so that focus, selection and scroll positions stay where they are.
  const renew = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of document.querySelectorAll("[data-live]")) {
        const now = fresh.querySelector(`[data-live="${old.dataset.live}"]`);
        if (now && now.innerHTML !== old.innerHTML) {
          const focused = old.contains(document.activeElement) && document.activeElement.id;
          old.innerHTML = now.innerHTML;
          if (focused) document.getElementById(focused)?.focus();
        }
      }
      tell();
    } catch { /* the stream says when the desk is away */ } finally {
      busy = false;
      if (again) { again = false; soon(); }
    }
  };
  const soon = () => {
    if (live && !waiting) waiting = setTimeout(() => { waiting = null; renew(); }, 150);
  };

  const world = document.body.dataset.world;
  const told = new Set();
  const source = new EventSource("/api/v1/stream");
  source.onopen = () => show("live", "live");
  source.onerror = () => show("lost", "reconnecting");
  source.addEventListener("signals", (event) => {
    document.dispatchEvent(new CustomEvent("signals", { detail: JSON.parse(event.data) }));
    soon();
  });
  source.addEventListener("world", (event) => {
    if (JSON.parse(event.data).world !== world) location.reload();
  });
  source.addEventListener("alert", (event) => {
    const change = JSON.parse(event.data);
    if (told.has(change.change_id)) return;
    told.add(change.change_id);
    if (said) said.textContent = `Alert ${change.kind}: ${change.severity} ${change.subject}, ${change.rule.replace("_", " ")}`;
    soon();
  });
  source.addEventListener("under_way", soon);
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  setInterval(tell, 1000);
  tell();

  // g then a letter goes to a page; j and k move through rows.
  const pages = { m: "/", f: "/flows", a: "/alerts", q: "/quality", h: "/health", p: "/api" };
  let went = 0;
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
    if (event.key === "g") { went = Date.now(); return; }
    if (Date.now() - went < 1500 && pages[event.key]) { location.href = pages[event.key]; return; }
    if (event.key === "j" || event.key === "k") {
      const rows = [...document.querySelectorAll("a.row")];
      const at = rows.indexOf(document.activeElement);
      rows[event.key === "j" ? Math.min(at + 1, rows.length - 1) : Math.max(at - 1, 0)]?.focus();
    }
  });
})();
