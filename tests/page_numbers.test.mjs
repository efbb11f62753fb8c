// node --test tests/page_numbers.test.mjs: the page's numbers: speed lines, and rates from counters.
import assert from "node:assert/strict";
import test from "node:test";

import { count, duration, percent, rate, seconds, speedLine } from "../web/numbers.js";
import { between, Rates, SPAN_S } from "../web/rates.js";

const engine = (values = {}) => ({ generated_tokens: 0, prompt_tokens: 0, reused_tokens: 0, passes: 0, rows: 0, finished: 0, drafted: 0,
                                   accepted: 0, running: 0, waiting: 0, kept: 0, pages: 10, free_pages: 10, ...values });

test("numbers are short", () => {
  assert.equal(count(1234567), "1,234,567");
  assert.deepEqual([0.4242, 8.444, 21.34, 512.6].map(rate), ["0.42", "8.44", "21.3", "513"]);
  assert.deepEqual([0.042, 2.5].map(seconds), ["42 ms", "2.5 s"]);
  assert.deepEqual([0.0123, 0.876].map(percent), ["1.2%", "88%"]);
  assert.deepEqual([59, 60, 3660, 90000].map(duration), ["59 s", "1 min", "1 h 1 min", "1 day 1 h"]);
});

test("the speed line tells what it was given and nothing else", () => {
  const usage = { prompt_tokens: 412, completion_tokens: 1, prompt_tokens_details: { cached_tokens: 384 } };
  const timings = { predicted_per_second: 21.34, first_token_s: 0.25, queue_s: 0.01, drafted: 40, accepted: 31 };
  assert.equal(speedLine(usage, timings),
               "412 prompt tokens (384 reused) · 1 token · 21.3 tokens/s · first token after 250 ms · 31 of 40 drafts accepted");
  assert.equal(speedLine({ prompt_tokens: 1, completion_tokens: 2 }, { drafted: 0 }), "1 prompt token · 2 tokens");
  assert.equal(speedLine(undefined, undefined), "");
});

test("rates are differences over time, shares are of what happened", () => {
  const before = { t: 10, engine: engine({ passes: 100, rows: 300, generated_tokens: 50, drafted: 8, accepted: 4 }) };
  const now = { t: 12, engine: engine({ passes: 104, rows: 320, generated_tokens: 60, drafted: 16, accepted: 10, prompt_tokens: 64,
                                        running: 2, waiting: 1, free_pages: 7 }) };
  assert.deepEqual(between(before, now), { generated: 5, prompt: 32, passes: 2, rows: 5, acceptance: 0.75, running: 2, waiting: 1, pages: 3 });
});

test("what cannot be told is null", () => {
  const same = { t: 10, engine: engine() };
  assert.deepEqual(between(same, same), { generated: null, prompt: null, passes: null, rows: null, acceptance: null, running: 0, waiting: 0, pages: 0 });
});

test("a rate is taken over at least three seconds once they have passed", () => {
  const rates = new Rates();
  [0, 6, 6, 6, 6].forEach((tokens, t) => rates.add(t, engine({ generated_tokens: tokens })));
  assert.deepEqual(rates.samples.map((s) => s.generated), [null, 6, 3, 2, 0]);
});

test("five minutes are kept", () => {
  const rates = new Rates();
  for (let t = 0; t <= 2 * SPAN_S; t++) rates.add(t, engine());
  assert.equal(rates.samples[0].t, SPAN_S);
  assert.equal(rates.last.t, 2 * SPAN_S);
});

test("a server that began anew has no past", () => {
  const rates = new Rates();
  rates.add(0, engine({ generated_tokens: 100 }));
  rates.add(1, engine({ generated_tokens: 3 }));
  assert.equal(rates.samples.length, 1);
  assert.equal(rates.last.generated, null);
});

test("a time in which nobody looked is a gap, not a line", () => {
  const rates = new Rates();
  rates.add(0, engine());
  rates.add(60, engine({ generated_tokens: 600 }));
  assert.deepEqual(rates.samples.map((s) => s.generated), [null, undefined, null]);
});
