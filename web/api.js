// The server's API: JSON in and out, streams of events, errors with the server's own words, and the
// key, which is asked for where the server wants one and kept until the tab is closed.

import { SseParser } from "./sse.js";

const KEY = "cachalot.key";

export class ApiError extends Error {
  constructor(message, { status = 0, code = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

let key = null;
try { key = sessionStorage.getItem(KEY); } catch { /* a browser that keeps nothing */ }

let askForKey = async () => false;
// `ask(message)` resolves to true once useKey() was called, to false where the reader declines.
export function onKeyNeeded(ask) { askForKey = ask; }
export function useKey(value) {
  key = value;
  try { sessionStorage.setItem(KEY, value); } catch { /* it lasts as long as the page, then */ }
}

const aborted = (signal) => new Promise((resolve, reject) => {
  signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
});
export const stopped = (error) => error.name === "AbortError";

// A Response with status 2xx. `ask: false` is for what runs by itself: a 401 then is an error.
export async function request(path, { method = "GET", body, signal, ask = true } = {}) {
  for (;;) {
    const used = key, headers = {};
    if (used) headers.Authorization = `Bearer ${used}`;
    if (body) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal, cache: "no-store" });
    } catch (error) {
      throw stopped(error) ? error : new ApiError(`The server at ${location.host} does not answer. Is it still running?`);
    }
    if (response.ok) return response;
    const error = await errorOf(response);
    if (response.status !== 401 || !ask) throw error;
    if (key === used && !(await Promise.race([askForKey(error.message), aborted(signal)]))) throw error;
  }
}

export const getJson = async (path, options) => (await request(path, options)).json();

// Whether a page is there for a plain request, which is what a frame makes.
export async function exists(path) {
  try {
    return (await fetch(path, { method: "HEAD", cache: "no-store" })).status === 200;
  } catch {
    return false;
  }
}

// The events of a streamed answer, as objects. Throws what the server sends as an error, before or
// after the stream began, and where the connection ends before the answer does.
export async function* stream(path, body, signal) {
  const response = await request(path, { method: "POST", body, signal });
  const reader = response.body.getReader(), parser = new SseParser();
  try {
    for (;;) {
      const { done, value } = await read(reader);
      for (const data of done ? parser.finish() : parser.push(value)) {
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new ApiError(event.error.message, { code: event.error.code });
        yield event;
      }
      if (done) throw new ApiError("The connection was closed before the answer was complete.");
    }
  } finally {
    reader.cancel().catch(() => {});  // where the reader of these events went away first
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    throw stopped(error) ? error : new ApiError("The connection broke before the answer was complete.");
  }
}

async function errorOf(response) {
  let error = {};
  try { error = (await response.json()).error ?? {}; } catch { /* not this server's error, a proxy's */ }
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  const message = error.message || `The server answered ${response.status} ${response.statusText}`.trim() + ".";
  return new ApiError(message, { status: response.status, code: error.code, retryAfter });
}
