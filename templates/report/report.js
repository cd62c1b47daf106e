"use strict";
(() => {
  const LETTER = 6.2;
  const charts = [...document.querySelectorAll(".chart")];
  const detail = document.getElementById("detail");
  const span = charts.length ? Number(charts[0].dataset.span) : 1;
  let zoom = 1;
  let from = 0; // left edge, as a part of the span
  const SVG = charts.length ? charts[0].namespaceURI : "";

  // The title of a bar is its detail without a script; with one, the browser's own tooltip would come second.
  const stops = [...document.querySelectorAll(".bar, .mark")].map((node) => {
    const title = node.querySelector("title");
    node.setAttribute("aria-label", title.textContent.replaceAll("\n", ", "));
    node.dataset.detail = title.textContent;
    title.remove();
    return {
      node,
      text: node.querySelector("text"),
      words: node.dataset.text || "",
      short: node.dataset.short || "",
      x: parseFloat(node.getAttribute("x")) / 100,
      width: parseFloat(node.getAttribute("width")) / 100 || 0,
      y: Number(node.getAttribute("y")),
      chart: node.closest(".chart"),
    };
  });
  const byNode = new Map(stops.map((stop) => [stop.node, stop]));

  const show = (node, point) => {
    detail.textContent = node.dataset.detail;
    detail.hidden = false;
    const box = node.getBoundingClientRect();
    const own = detail.getBoundingClientRect();
    const x = point ? point.clientX + 14 : Math.max(box.left, node.closest(".chart").getBoundingClientRect().left);
    const below = point ? point.clientY + 18 : box.bottom + 8;
    const above = (point ? point.clientY : box.top) - own.height - 8;
    detail.style.left = `${Math.max(8, Math.min(x, innerWidth - own.width - 12))}px`;
    detail.style.top = `${Math.max(8, below + own.height > innerHeight ? above : below)}px`;
  };
  const hide = () => { detail.hidden = true; };

  // Labels: as much as fits, and at the left edge of the screen where a bar begins before it.
  const fit = () => {
    const widths = new Map(charts.map((chart) => [chart, chart.clientWidth || chart.getBoundingClientRect().width]));
    for (const stop of stops) {
      const full = widths.get(stop.chart) * zoom;
      if (!stop.words || !full) continue;
      const left = (stop.x - from) * full;
      const hidden = Math.max(0, -left);
      const room = stop.width * full - hidden - 10;
      const letters = Math.floor(room / LETTER);
      let words = stop.words;
      if (words.length > letters) {
        const cut = letters > 3 ? `${words.slice(0, letters - 1)}…` : "";
        words = stop.short ? (stop.short.length <= letters ? stop.short : "") : cut;
      }
      if (!words && !stop.text) continue;
      if (!stop.text) {
        stop.text = document.createElementNS(SVG, "text");
        stop.text.setAttribute("y", Math.floor(Number(stop.node.getAttribute("height")) / 2) + 4);
        stop.node.append(stop.text);
      }
      stop.text.textContent = words;
      stop.text.setAttribute("x", hidden + 6);
    }
  };

  const ticks = (chart) => {
    const width = chart.clientWidth || chart.getBoundingClientRect().width;
    const seen = span / zoom;
    const raw = seen / Math.max(2, Math.min(8, width / 64));
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= raw);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const axis = chart.querySelector(".axis");
    axis.replaceChildren();
    for (let index = Math.ceil((from * span) / step); index * step < from * span + seen * 0.97; index += 1) {
      const at = `${((100 * index * step) / span).toFixed(4)}%`;
      const line = document.createElementNS(SVG, "line");
      for (const [name, value] of [["x1", at], ["x2", at], ["y1", 0], ["y2", chart.getAttribute("height")]]) {
        line.setAttribute(name, value);
      }
      const text = document.createElementNS(SVG, "text");
      text.setAttribute("x", at);
      text.setAttribute("dx", 4);
      text.setAttribute("y", 12);
      text.textContent = step < 0.01 ? `${(index * step * 1000).toFixed(Math.max(0, digits - 3))} ms` : `${(index * step).toFixed(digits)} s`;
      axis.append(line, text);
    }
  };

  const draw = () => {
    zoom = Math.min(2000, Math.max(1, zoom));
    from = Math.min(1 - 1 / zoom, Math.max(0, from));
    for (const chart of charts) {
      const scaler = chart.querySelector(".scaler");
      scaler.setAttribute("width", `${100 * zoom}%`);
      scaler.setAttribute("x", `${-100 * zoom * from}%`);
      chart.classList.toggle("zoomed", zoom > 1);
      ticks(chart);
    }
    fit();
  };
  const zoomAt = (factor, part) => {
    const at = from + part / zoom;
    zoom = factor ? zoom * factor : 1;
    zoom = Math.min(2000, Math.max(1, zoom));
    from = at - part / zoom;
    draw();
  };
  const zoomTo = (stop) => {
    zoom = stop.width ? 0.9 / stop.width : zoom * 4;
    zoom = Math.min(2000, Math.max(1, zoom));
    from = stop.x + stop.width / 2 - 0.5 / zoom;
    draw();
  };

  // A flame chart is one stop of Tab; arrow keys move inside it.
  const step = (stop, key) => {
    const peers = stops.filter((one) => one.chart === stop.chart && one.words);
    const end = stop.x + stop.width;
    if (key === "ArrowRight") return peers.filter((one) => one.y === stop.y && one.x > stop.x).sort((a, b) => a.x - b.x)[0];
    if (key === "ArrowLeft") return peers.filter((one) => one.y === stop.y && one.x < stop.x).sort((a, b) => b.x - a.x)[0];
    if (key === "ArrowDown") return peers.filter((one) => one.y > stop.y && one.x >= stop.x - 1e-9 && one.x <= end).sort((a, b) => a.y - b.y || a.x - b.x)[0];
    if (key === "ArrowUp") return peers.filter((one) => one.y < stop.y && one.x <= stop.x + 1e-9 && one.x + one.width >= stop.x).sort((a, b) => b.y - a.y)[0];
    return undefined;
  };

  for (const chart of charts) {
    chart.addEventListener("pointermove", (event) => {
      const node = event.target.closest(".bar, .mark");
      if (node) show(node, event);
      else hide();
    });
    chart.addEventListener("pointerleave", hide);
    chart.addEventListener("dblclick", (event) => {
      const node = event.target.closest(".bar");
      if (node) zoomTo(byNode.get(node));
    });
    chart.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const box = chart.getBoundingClientRect();
      zoomAt(event.deltaY < 0 ? 1.25 : 0.8, (event.clientX - box.left) / box.width);
    }, { passive: false });
    chart.addEventListener("pointerdown", (event) => {
      if (zoom === 1 || event.button) return;
      const begin = { x: event.clientX, from };
      const width = chart.getBoundingClientRect().width;
      const move = (next) => { from = begin.from - (next.clientX - begin.x) / width / zoom; draw(); };
      const end = () => { removeEventListener("pointermove", move); removeEventListener("pointerup", end); };
      addEventListener("pointermove", move);
      addEventListener("pointerup", end);
    });
    chart.addEventListener("keydown", (event) => {
      const stop = byNode.get(event.target);
      if (!stop || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape") hide();
      else if (event.key === "+" || event.key === "=") zoomAt(2, Math.min(1, Math.max(0, (stop.x - from) * zoom)));
      else if (event.key === "-") zoomAt(0.5, 0.5);
      else if (event.key === "0") zoomAt(0, 0);
      else if (event.key === "Enter") zoomTo(stop);
      else if (event.key.startsWith("Arrow")) {
        const next = step(stop, event.key);
        if (next) {
          if (stop.chart.classList.contains("flame")) {
            stop.node.setAttribute("tabindex", -1);
            next.node.setAttribute("tabindex", 0);
          }
          next.node.focus();
        }
      } else return;
      event.preventDefault();
    });
  }
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.parentElement.hidden = false;
    button.addEventListener("click", () => zoomAt(Number(button.dataset.zoom), 0.5));
  }
  for (const node of document.querySelectorAll("details")) node.addEventListener("toggle", draw);
  // Not on the charts: a drawing that listens for the focus is a stop of Tab itself.
  document.addEventListener("focusin", (event) => {
    if (byNode.has(event.target)) show(event.target);
    else hide();
  });
  // A bar that gets the focus may have been scrolled into sight by that.
  addEventListener("scroll", () => { if (byNode.has(document.activeElement)) show(document.activeElement); else hide(); }, { passive: true });
  addEventListener("resize", draw);
  addEventListener("beforeprint", () => {
    zoom = 1;
    for (const node of document.querySelectorAll("details")) node.open = true;
    draw();
  });
  draw();
})();
