// node --test tests/page_conversation.test.mjs
import assert from "node:assert/strict";
import { test } from "node:test";
import { forgetMore, history } from "../web/conversation.js";

const said = (role, content) => ({ role, content, reasoning: "aside" });
const five = [said("user", "a"), said("assistant", "b"), said("user", "c"), said("assistant", ""), said("user", "d")];

test("the model reads roles and contents, not thoughts nor answers that never came", () => {
  assert.deepEqual(history(five, ""), [
    { role: "user", content: "a" }, { role: "assistant", content: "b" }, { role: "user", content: "c" }, { role: "user", content: "d" }]);
});

test("the system's message stays where the oldest are forgotten", () => {
  assert.deepEqual(history(five, "s", 2), [
    { role: "system", content: "s" }, { role: "user", content: "c" }, { role: "user", content: "d" }]);
});

test("a turn after the other is forgotten, but never the last message of the reader's", () => {
  assert.equal(forgetMore(five), 2);
  assert.equal(forgetMore(five, 2), 4);
  assert.equal(forgetMore(five, 4), null);
  assert.equal(forgetMore([said("user", "a"), said("assistant", "")]), null);
});
