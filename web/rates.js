// What the engine does per second, from the counters that the server gives: pure but for its memory
// of the last five minutes.

export const SPAN_S = 300;
const WINDOW_S = 3;  // a rate is a difference over this long: over one second a slow model flickers
const GAP_S = 5;     // nobody looked for this long: a line must not join what lies on both sides

const COUNTERS = ["generated_tokens", "prompt_tokens", "reused_tokens", "passes", "rows", "finished", "drafted", "accepted"];

export class Rates {
  #readings = [];  // {t, engine}, oldest first
  #samples = [];   // {t, ...values}; a sample of nulls is a gap

  get samples() { return this.#samples; }
  get last() { return this.#samples.at(-1); }

  // `t` in seconds of any steady clock. A counter that went back means that the server began anew.
  add(t, engine) {
    const newest = this.#readings.at(-1);
    if (newest && COUNTERS.some((name) => engine[name] < newest.engine[name])) {
      this.#readings = [];
      this.#samples = [];
    } else if (newest && t - newest.t > GAP_S) {
      this.#samples.push({ t: newest.t + 0.001 });
      this.#readings = [];
    }
    this.#readings.push({ t, engine });
    while (this.#readings.length > 2 && t - this.#readings[1].t >= WINDOW_S) this.#readings.shift();
    this.#samples.push({ t, ...between(this.#readings[0], this.#readings.at(-1)) });
    this.#samples = this.#samples.filter((s) => s.t >= t - SPAN_S);
    return this.last;
  }
}

// A value that cannot be told (no time passed, nothing drafted) is null.
export function between(before, now) {
  const span = now.t - before.t, e = now.engine;
  const grew = (name) => e[name] - before.engine[name];
  const per = (amount, of) => (of > 0 ? amount / of : null);
  return {
    generated: per(grew("generated_tokens"), span),
    prompt: per(grew("prompt_tokens"), span),
    passes: per(grew("passes"), span),
    rows: per(grew("rows"), grew("passes")),
    acceptance: per(grew("accepted"), grew("drafted")),
    running: e.running,
    waiting: e.waiting,
    pages: e.pages - e.free_pages,
  };
}
