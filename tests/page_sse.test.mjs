// node --test tests/page_sse.test.mjs: the page's reader of server-sent events.
import assert from "node:assert/strict";
import test from "node:test";

import { SseParser } from "../web/sse.js";

const bytes = (text) => new TextEncoder().encode(text);

// Everything that comes out when `stream` arrives in pieces that end at `cuts`.
function read(stream, cuts = []) {
  const parser = new SseParser(), out = [];
  let from = 0;
  for (const to of [...cuts, stream.length]) {
    out.push(...parser.push(stream.subarray(from, to)));
    from = to;
  }
  return [...out, ...parser.finish()];
}

// One to four bytes a character, all three line ends, an empty event, comments, other fields.
const STREAM = bytes('data: {"a":"é€😀"}\n\n: still here\r\n\r\nevent: x\rid: 7\rdata:one\rdata: two\r\rdata\n\ndata: [DONE]\n\n');
const EVENTS = ['{"a":"é€😀"}', "one\ntwo", "", "[DONE]"];

test("events of a stream in one piece", () => assert.deepEqual(read(STREAM), EVENTS));

test("any one cut gives the same events", () => {
  for (let cut = 0; cut <= STREAM.length; cut++) assert.deepEqual(read(STREAM, [cut]), EVENTS, `cut at byte ${cut}`);
});

test("byte by byte gives the same events", () => {
  assert.deepEqual(read(STREAM, Array.from(STREAM.keys())), EVENTS);
});

test("an event is given as soon as its blank line is there, not at the end", () => {
  const parser = new SseParser();
  assert.deepEqual(parser.push(bytes("data: 1\n")), []);
  assert.deepEqual(parser.push(bytes("\n")), ["1"]);
});

test("CR ends a line at once; the LF that may follow it ends no second one", () => {
  const parser = new SseParser();
  assert.deepEqual(parser.push(bytes("data: 1\r\r")), ["1"]);
  assert.deepEqual(parser.push(bytes("\ndata: 2\n\n")), ["2"]);
});

test("only the first space after the colon goes", () => {
  assert.deepEqual(read(bytes("data:  two spaces \n\n")), [" two spaces "]);
});

test("a byte order mark is no part of the first field", () => {
  assert.deepEqual(read(Uint8Array.of(0xef, 0xbb, 0xbf, ...bytes("data: 1\n\n"))), ["1"]);
});

test("an event that was cut off does not count", () => assert.deepEqual(read(bytes("data: 1\n\ndata: 2\n")), ["1"]));

test("bytes that are not UTF-8 become U+FFFD and break nothing", () => {
  assert.deepEqual(read(Uint8Array.of(...bytes("data: "), 0xff, ...bytes("\n\ndata: 2\n\n"))), ["\ufffd", "2"]);
});
