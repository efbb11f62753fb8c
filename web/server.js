// The server's live numbers: a card with a chart for each, the machine's line, the sums since the
// start. It only shows; page.js asks the server and hands the answers to it.

import { Chart } from "./chart.js";
import { byId, h } from "./dom.js";
import { count, duration, percent, plural, rate } from "./numbers.js";
import { Rates } from "./rates.js";

const DASH = "–";
const orDash = (value, write) => (value === null || value === undefined ? DASH : write(value));
const share = (part, of) => (of > 0 ? percent(part / of) : DASH);

// What each card shows: `value` is its large number, `detail` the line below it, both from the last
// sample and the engine's counters.
const cards = (latest) => [
  { title: "Generated", unit: "tokens/s", lines: [{ key: "generated", label: "generated", colour: "--s0" }], format: rate,
    value: (s) => orDash(s.generated, rate), detail: (s, e) => `${count(e.generated_tokens)} since the start` },
  { title: "Prompts read", unit: "tokens/s", lines: [{ key: "prompt", label: "read", colour: "--s2" }], format: rate,
    value: (s) => orDash(s.prompt, rate), detail: (s, e) => `${count(e.prompt_tokens)} since the start, ${count(e.reused_tokens)} reused` },
  { title: "Requests", unit: "running", format: count, whole: true,
    lines: [{ key: "running", label: "running", colour: "--s3" }, { key: "waiting", label: "waiting (dashed)", colour: "--s1" }],
    value: (s, e) => count(e.running), detail: (s, e) => `${count(e.waiting)} waiting (dashed), ${count(e.finished)} finished` },
  { title: "Cache", unit: "of its pages", lines: [{ key: "pages", label: "pages", colour: "--s6" }], format: count, whole: true,
    most: () => latest().pages || undefined, value: (s, e) => share(e.pages - e.free_pages, e.pages),
    detail: (s, e) => `${count(e.pages - e.free_pages)} of ${plural(e.pages, "page")}, ${plural(e.kept, "text")} kept` },
  { title: "Passes", unit: "per second", lines: [{ key: "passes", label: "passes", colour: "--s5" }], format: rate,
    value: (s) => orDash(s.passes, rate), detail: (s, e) => `${count(e.passes)} since the start` },
  { title: "Rows per pass", unit: "tokens", lines: [{ key: "rows", label: "rows", colour: "--s7" }], format: rate,
    value: (s) => orDash(s.rows, rate), detail: (s, e) => `${e.passes ? rate(e.rows / e.passes) : DASH} on average` },
  { title: "Drafts accepted", unit: "", mtp: true, lines: [{ key: "acceptance", label: "accepted", colour: "--s4" }], format: percent, most: () => 1,
    value: (s) => orDash(s.acceptance, percent), detail: (s, e) => `${count(e.accepted)} of ${count(e.drafted)} since the start` },
];

const SUMS = [
  ["Requests finished", (e) => count(e.finished)],
  ["Tokens per request", (e) => (e.finished ? rate(e.generated_tokens / e.finished) : DASH)],
  ["Prompt tokens reused", (e) => share(e.reused_tokens, e.prompt_tokens)],
  ["Tokens per pass", (e) => (e.passes ? rate(e.generated_tokens / e.passes) : DASH)],
  ["Requests preempted", (e) => count(e.preemptions)],
  ["Kept texts evicted", (e) => count(e.evictions)],
];

function mtpText(mtp) {
  if (mtp === true) return "on";
  return mtp || "off";
}

function machine(info) {
  const known = [["Model", info.model], ["Precision", info.precision], ["CPU", info.cpu], ["Threads", info.threads],
                 ["Context", info.context && `${count(info.context)} tokens`], ["Vocabulary", info.vocab_size && count(info.vocab_size)],
                 ["Chat format", info.format ?? "none"], ["MTP drafts", mtpText(info.mtp)],
                 ["Up for", info.uptime_s >= 0 && duration(info.uptime_s)], ["Cachalot", info.version]];
  return known.filter(([, value]) => value).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value))));
}

// A chart, for those who hear it.
function inWords({ lines: [line], format }, samples) {
  const values = samples.map((s) => s[line.key]).filter((v) => v !== null && v !== undefined);
  return values.length ? `Last five minutes: ${line.label} between ${format(Math.min(...values))} and ${format(Math.max(...values))}` : "Nothing yet";
}

export function setUpServer() {
  const rates = new Rates();
  let engine = {};
  const sums = SUMS.map(([name, write]) => ({ name, write, node: h("dd", {}) }));
  const shown = cards(() => engine).map((card) => {
    const value = h("strong", {}), detail = h("p", { class: "soft" }), plot = h("div", { class: "plot", role: "img" });
    const large = h("p", { class: "value" }, value, " ", h("span", { class: "soft" }, card.unit));
    const element = h("article", { class: "card" }, h("h3", {}, card.title), large, detail, plot);
    return { ...card, element, valueNode: value, detailNode: detail, plot, chart: new Chart(plot, card) };
  });
  byId("cards").replaceChildren(...shown.map((card) => card.element), h("article", { class: "card sums" }, h("h3", {}, "Since the start"),
    h("dl", {}, ...sums.map(({ name, node }) => h("div", {}, h("dt", {}, name), node)))));

  // An answer of GET /v1/server, and when it came (seconds of a steady clock).
  function update(info, t) {
    engine = info.engine;
    const sample = rates.add(t, engine);
    byId("machine").replaceChildren(...machine(info));
    for (const card of shown) {
      card.element.hidden = Boolean(card.mtp) && mtpText(info.mtp) === "off";
      card.valueNode.textContent = card.value(sample, engine);
      card.detailNode.textContent = card.detail(sample, engine);
      card.chart.show(rates.samples);
      card.plot.setAttribute("aria-label", inWords(card, rates.samples));
    }
    byId("cards").classList.toggle("no-mtp", mtpText(info.mtp) === "off");
    for (const { write, node } of sums) node.textContent = write(engine);
  }
  return { update };
}
