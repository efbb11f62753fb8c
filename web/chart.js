// One chart of the last five minutes (uPlot), in the page's colours, light and dark.

import { SPAN_S } from "./rates.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const HEIGHT = 130;
const WHOLE = [1, 2, 5].flatMap((n) => [0, 1, 2, 3, 4, 5, 6].map((power) => n * 10 ** power)).sort((a, b) => a - b);

function ago(s) {
  return s === 0 ? "now" : `−${s / 60} min`;
}

export class Chart {
  #host;
  #lines;   // [{key, label, colour}], the first one filled
  #format;
  #most;    // () => the top of the scale, or undefined: as high as the values
  #whole;   // ticks at whole numbers only
  #plot = null;
  #data;

  constructor(host, { lines, format, whole = false, most = () => undefined }) {
    this.#host = host;
    this.#lines = lines;
    this.#format = format;
    this.#most = most;
    this.#whole = whole;
    this.#data = [[], ...lines.map(() => [])];
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#make());
    new ResizeObserver(() => {
      if (!this.#plot) this.#make();
      else if (host.clientWidth > 0 && host.clientWidth !== this.#plot.width) this.#plot.setSize({ width: host.clientWidth, height: HEIGHT });
    }).observe(host);
  }

  // Samples with their time `t`, the newest one being now.
  show(samples) {
    const now = samples.at(-1).t;
    this.#data = [samples.map((s) => s.t - now), ...this.#lines.map(({ key }) => samples.map((s) => s[key] ?? null))];
    this.#plot?.setData(this.#data);
  }

  #make() {
    if (this.#host.clientWidth === 0) return;  // not shown yet
    this.#plot?.destroy();
    const line = { stroke: colour("--line"), width: 1 };
    const axis = { stroke: colour("--soft"), font: "11px system-ui, sans-serif", ticks: { show: false }, grid: line };
    this.#plot = new globalThis.uPlot({
      width: this.#host.clientWidth,
      height: HEIGHT,
      padding: [8, 12, 0, 0],
      legend: { show: false },
      cursor: { show: false },
      scales: {
        x: { time: false, range: [-SPAN_S, 0] },
        y: { range: (u, low, high) => [0, this.#most() ?? Math.max(1, (high ?? 0) * 1.15)] },
      },
      axes: [
        { ...axis, size: 22, splits: () => [-SPAN_S, -180, -60, 0], values: (u, at) => at.map((s) => ago(-s)), grid: { show: false } },
        { ...axis, size: 46, space: 34, incrs: this.#whole ? WHOLE : undefined, values: (u, at) => at.map(this.#format) },
      ],
      series: [{}, ...this.#lines.map((l, i) => ({
        stroke: colour(l.colour), width: 2, points: { show: false }, dash: i ? [5, 4] : undefined,
        fill: i ? undefined : colour(l.colour) + "22",
      }))],
    }, this.#data, this.#host);
  }
}
