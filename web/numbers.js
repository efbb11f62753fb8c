// How numbers are written on this page. Pure functions.

const digits = (most) => new Intl.NumberFormat("en", { maximumFractionDigits: most });
const whole = digits(0), tenths = digits(1), hundredths = digits(2);

export const count = (n) => whole.format(n);
// Three digits that mean something: 0.42, 8.4, 21.3, 512.
export const rate = (n) => (n >= 100 ? whole : n >= 10 ? tenths : hundredths).format(n);
export const percent = (share) => `${(share >= 0.1 ? whole : tenths).format(share * 100)}%`;
export const seconds = (s) => (s < 1 ? `${count(s * 1000)} ms` : `${rate(s)} s`);
export const plural = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;

export function duration(s) {
  const days = Math.floor(s / 86400), hours = Math.floor(s / 3600) % 24, minutes = Math.floor(s / 60) % 60;
  if (days) return `${plural(days, "day")} ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return `${minutes} min`;
  return `${count(s)} s`;
}

// The line below an answer: what it cost, from `usage` and `timings` of the API. Either may be missing.
export function speedLine(usage, timings) {
  const parts = [];
  const u = usage ?? {}, t = timings ?? {};
  const prompt = u.prompt_tokens ?? t.prompt_tokens;
  const reused = u.prompt_tokens_details?.cached_tokens ?? 0;
  const fresh = u.completion_tokens ?? t.predicted_tokens;
  if (prompt !== undefined) parts.push(plural(prompt, "prompt token") + (reused ? ` (${count(reused)} reused)` : ""));
  if (fresh !== undefined) parts.push(plural(fresh, "token"));
  if (t.predicted_per_second > 0) parts.push(`${rate(t.predicted_per_second)} tokens/s`);
  if (t.first_token_s >= 0) parts.push(`first token after ${seconds(t.first_token_s)}`);
  if (t.queue_s >= 0.1) parts.push(`waited ${seconds(t.queue_s)}`);
  if (t.drafted > 0) parts.push(`${count(t.accepted)} of ${plural(t.drafted, "draft")} accepted`);
  return parts.join(" · ");
}
