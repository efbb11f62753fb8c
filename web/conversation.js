// What of a conversation the model is asked to read.

// The conversation as the API takes it: without the `forgotten` oldest messages, thoughts, and
// answers that never came.
export function history(messages, system, forgotten = 0) {
  const said = messages.slice(forgotten).filter((m) => m.content).map(({ role, content }) => ({ role, content }));
  return system ? [{ role: "system", content: system }, ...said] : said;
}

// How many of the oldest messages to forget where the context holds no more: up to the next message
// of the reader's. Null where only the last one is left, which cannot be left out.
export function forgetMore(messages, forgotten = 0) {
  const next = messages.findIndex((m, i) => i > forgotten && m.role === "user");
  return next < 0 ? null : next;
}
