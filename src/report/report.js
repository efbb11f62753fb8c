// Draws a report's charts (uPlot) and lets its sliders choose among points that were computed when
// the page was written. No formula is here and nothing is interpolated: every number and text shown
// comes out of the page's JSON.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const plots = [];  // {build, host}: all are made again when the colours or the width change

  // The shapes of the legend, drawn around (x, y): what limits a point is told by shape and colour.
  const SHAPES = [
    (c, x, y, r) => c.arc(x, y, r, 0, 2 * Math.PI),
    (c, x, y, r) => c.rect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8),
    (c, x, y, r) => path(c, [[x, y - r * 1.2], [x + r * 1.1, y + r * 0.9], [x - r * 1.1, y + r * 0.9]]),
    (c, x, y, r) => path(c, [[x, y - r * 1.3], [x + r * 1.1, y], [x, y + r * 1.3], [x - r * 1.1, y]]),
    (c, x, y, r) => path(c, [[x, y + r * 1.2], [x + r * 1.1, y - r * 0.9], [x - r * 1.1, y - r * 0.9]]),
    (c, x, y, r) => { c.rect(x - r * 1.2, y - r * 0.4, r * 2.4, r * 0.8); c.rect(x - r * 0.4, y - r * 1.2, r * 0.8, r * 2.4); },
  ];
  function path(c, corners) {
    corners.forEach(([x, y], i) => (i ? c.lineTo(x, y) : c.moveTo(x, y)));
    c.closePath();
  }

  const short = (v) => (v === null || v === undefined ? "-" : Number(v.toPrecision(6)).toLocaleString("en"));

  const DASHES = [[], [8, 4], [2, 4], [10, 4, 2, 4]];  // lines are told by these, too

  // What every chart shares: axes in the page's colours, no dragging, a cursor that snaps to points.
  function options(host, chart, ticks) {
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--grid"), width: 1 },
                   ticks: { stroke: colour("--grid"), width: 1 }, font: "12px system-ui, sans-serif",
                   labelFont: "12px system-ui, sans-serif", labelSize: 22 };
    const x = { ...axis, label: chart.x_label };
    if (ticks) {
      // One tick for each position: names that would not fit are turned, numbers are thinned out.
      const longest = Math.max(...ticks.map((t) => t.length)), width = Math.max(260, host.clientWidth) - 80;
      const every = Math.ceil(ticks.length / Math.max(1, Math.floor(width / (8 * longest + 10))));
      const turned = every > 1 && chart.kind === "bars";
      if (turned) Object.assign(x, { rotate: 35, size: Math.min(170, 24 + 4.2 * longest) });
      x.splits = () => ticks.map((_, i) => i).filter((i) => turned || i % every === 0);
      x.values = (u, splits) => splits.map((i) => ticks[i]);
      x.grid = { show: false };
    } else {
      x.values = (u, splits) => splits.map(short);
      if (chart.log_x) {
        x.splits = (u, axis, lo, hi) => {
          const all = [];
          for (let power = 10 ** Math.floor(Math.log10(lo)); power <= hi; power *= 10) all.push(power, 2 * power, 5 * power);
          return all.filter((v) => v >= lo && v <= hi);
        };
        x.filter = (u, splits) => splits;
      }
    }
    const pad = chart.kind === "bars" ? 0.5 : 0.25;
    return {
      width: Math.max(260, host.clientWidth), height: 250 + (x.size || 50), 
      legend: { live: false, show: chart.series.length > 1,
                markers: { width: 2, dash: (u, i) => (chart.kind === "lines" && DASHES[(i - 1) % 4].length ? "dashed" : "solid") } },
      cursor: { drag: { x: false, y: false }, focus: { prox: 30 }, y: false },
      scales: {
        x: { time: false, distr: chart.log_x ? 3 : 1,
             range: ticks ? [-pad, ticks.length - 1 + pad] : (u, lo, hi) => (chart.log_x ? [lo / 1.15, hi * 1.15] : [lo - (hi - lo) * 0.03, hi + (hi - lo) * 0.03]) },
        y: { range: (u, lo, hi) => {
          if (lo === null || hi === null || !Number.isFinite(hi)) return [0, 1];
          const air = (chart.zero ? hi - Math.min(lo, 0) : hi - lo || Math.abs(hi) || 1) * 0.1 || 1;
          return [chart.zero ? Math.min(lo, 0) : lo - air, hi + air];
        } },
      },
      axes: [x, { ...axis, label: chart.y_label, size: 70, values: (u, v) => v.map(short) }],
    };
  }

  // Marks of each series' points, and a ring around `chosen` (an index along x).
  function drawMarks(u, chart, chosen) {
    const c = u.ctx, r = 5 * devicePixelRatio;
    c.save();
    chart.series.forEach((s, k) => {
      if (!u.series[k + 1].show) return;
      s.values.forEach((v, i) => {
        if (v === null) return;
        const x = u.valToPos(u.data[0][i], "x", true), y = u.valToPos(v, "y", true);
        const mark = s.marks && s.marks.length ? s.marks[i] : -1;
        if (mark >= 0) {
          c.beginPath();
          SHAPES[mark](c, x, y, r);
          c.fillStyle = colour("--m" + mark);
          c.fill();
          c.strokeStyle = colour("--card");
          c.lineWidth = devicePixelRatio;
          c.stroke();
        }
        if (i === chosen) {
          c.beginPath();
          c.arc(x, y, r * 2, 0, 2 * Math.PI);
          c.strokeStyle = colour("--ink");
          c.lineWidth = 2 * devicePixelRatio;
          c.stroke();
        }
      });
    });
    c.restore();
  }

  // "batch 64: 21.2 (4096 tokens, limited by compute)..." for the point under the cursor.
  function pointText(chart, i) {
    const at = chart.categories.length ? chart.categories[i] : short(chart.x[i]);
    const parts = chart.series.map((s) => {
      const mark = s.marks && s.marks.length && s.values[i] !== null ? data.marks[s.marks[i]] : undefined;
      const value = s.texts ? s.texts[i] : short(s.values[i]);
      return (chart.series.length > 1 ? s.label + ": " : "") + value + (mark ? ", limited by " + mark : "");
    });
    return chart.x_label + " " + at + " - " + parts.join("; ");
  }

  function listen(host, u, count, tell) {
    let at = -1;
    const out = host.nextElementSibling;
    const show = (i) => { at = i; out.textContent = i < 0 ? "" : tell(i); };
    host.onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step === undefined && event.key !== "Escape") return;
      event.preventDefault();
      const i = step === undefined ? -1 : Math.min(count - 1, Math.max(0, at + step));
      show(i);
      u.setCursor(i < 0 ? { left: -10, top: -10 } : { left: u.valToPos(u.data[0][i], "x"), top: u.over.clientHeight / 2 });
    };
    return show;
  }

  function lineChart(host, chart, chosen) {
    const ticks = chart.categories.length ? chart.categories : null;
    const x = ticks ? ticks.map((_, i) => i) : chart.x;
    const o = options(host, chart, ticks);
    o.series = [{}, ...chart.series.map((s, i) => ({
      label: s.label, stroke: colour("--s" + (i % 8)), width: 2,
      dash: DASHES[i % 4],
      points: { show: !(s.marks && s.marks.some((m) => m >= 0)), size: 8, fill: colour("--s" + (i % 8)) },
      ...(chart.kind === "points" ? { paths: () => null } : {}),
    }))];
    let show = () => {};
    o.hooks = { draw: [(u) => drawMarks(u, chart, chosen)],
                setCursor: [(u) => u.cursor.idx !== null && u.cursor.idx !== undefined && u.cursor.left >= 0 && show(u.cursor.idx)] };
    const u = new uPlot(o, [x, ...chart.series.map((s) => s.values)], host);
    show = listen(host, u, x.length, (i) => pointText(chart, i));
    return u;
  }

  // Groups of bars: each bar has a place of its own on x, so that uPlot's bars need no grouping.
  function barChart(host, chart) {
    const n = chart.series.length, slot = 1 / (n + 1), x = [], columns = chart.series.map(() => []);
    chart.categories.forEach((_, c) => chart.series.forEach((s, k) => {
      x.push(c + (k - (n - 1) / 2) * slot);
      columns.forEach((column, j) => column.push(j === k ? s.values[c] : null));
    }));
    const o = options(host, chart, chart.categories);
    o.series = [{}, ...chart.series.map((s, i) => ({
      label: s.label, stroke: colour("--s" + (i % 8)), fill: colour("--s" + (i % 8)), width: 0,
      points: { show: false }, paths: uPlot.paths.bars({ size: [0.9, 70] }),
    }))];
    let show = () => {};
    const at = (i) => Math.floor(i / n);
    // A mark above its bar.
    const marked = { series: chart.series.map((s, k) => ({ marks: (s.marks || []).flatMap((m) => chart.series.map(() => m)), values: columns[k] })) };
    o.hooks = { draw: [(u) => drawMarks(u, marked, -1)],
                setCursor: [(u) => u.cursor.idx !== null && u.cursor.idx !== undefined && u.cursor.left >= 0 && show(at(u.cursor.idx))] };
    const u = new uPlot(o, [x, ...columns], host);
    const middle = { data: [chart.categories.map((_, i) => i)], over: u.over,
                     valToPos: (v, s) => u.valToPos(v, s), setCursor: (c) => u.setCursor(c) };
    show = listen(host, middle, chart.categories.length, (i) => pointText(chart, i));
    return u;
  }

  function place(host, build) {
    const entry = { host, build, plot: null, width: 0 };
    entry.draw = () => {
      if (entry.plot) entry.plot.destroy();
      entry.width = host.clientWidth;
      entry.plot = build();
    };
    plots.push(entry);
    entry.draw();
    return entry;
  }

  for (const host of document.querySelectorAll("[data-chart]")) {
    const chart = data.charts[Number(host.dataset.chart)];
    place(host, () => (chart.kind === "bars" ? barChart(host, chart) : lineChart(host, chart, -1)));
  }

  for (const box of document.querySelectorAll("[data-what-if]")) {
    const w = data.what_ifs[Number(box.dataset.whatIf)];
    const inputs = [...box.querySelectorAll("input[type=range]")];
    const outputs = [...box.querySelectorAll(".slider output")];
    const shown = [...box.querySelectorAll(".readouts dd")];
    const radios = [...box.querySelectorAll(".along input")];
    const places = inputs.map((input) => Number(input.value));
    const point = (at) => w.points[at.reduce((index, p, a) => index * w.axes[a].texts.length + p, 0)];
    const along = () => radios.findIndex((r) => r.checked) >= 0 ? radios.findIndex((r) => r.checked) : 0;

    const line = (measure) => {
      const axis = along();
      const row = w.axes[axis].texts.map((_, i) => point(places.map((p, a) => (a === axis ? i : p))));
      return { kind: "lines", zero: true, x_label: w.axes[axis].label, y_label: w.measures[measure], categories: w.axes[axis].texts,
               series: [{ label: w.measures[measure], values: row.map((p) => p.n[measure]), marks: row.map((p) => p.mark),
                          texts: row.map((p) => (p.n[measure] === null ? p.note || "-" : short(p.n[measure]))) }] };
    };
    const charts = [...box.querySelectorAll("[data-measure]")].map((host) =>
      place(host, () => lineChart(host, line(Number(host.dataset.measure)), places[along()])));

    const update = () => {
      const p = point(places);
      inputs.forEach((input, a) => {
        outputs[a].textContent = w.axes[a].texts[places[a]];
        input.setAttribute("aria-valuetext", w.axes[a].texts[places[a]]);
      });
      p.t.forEach((text, r) => { shown[r].textContent = text; });
      if (shown.length > p.t.length) {
        const cell = shown[p.t.length], key = document.querySelectorAll(".legend .mark.m" + p.mark)[0];
        cell.textContent = p.mark < 0 ? "-" : data.marks[p.mark];
        if (key && p.mark >= 0) cell.prepend(key.cloneNode(true));
      }
      box.querySelector(".note").textContent = p.note || "";
      charts.forEach((c) => c.draw());
    };
    inputs.forEach((input, a) => input.addEventListener("input", () => { places[a] = Number(input.value); update(); }));
    radios.forEach((radio) => radio.addEventListener("change", update));
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach((p) => p.draw()));
  let waiting = 0;
  new ResizeObserver(() => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => plots.forEach((p) => p.host.clientWidth !== p.width && p.draw()));
  }).observe(document.body);
})();
