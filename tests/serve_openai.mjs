// The API as OpenAI's own client for Node sees it: serve_openai.py starts the server and runs this beside the package.
//
//   node serve_openai.mjs ADDRESS MODEL KEY TEXT    TEXT: what "123" becomes by 40 greedy tokens, as JSON
import assert from "node:assert/strict";
import OpenAI from "openai";

const [address, model, apiKey, json] = process.argv.slice(2);
const text = JSON.parse(json);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey, maxRetries: 0 });
const greedy = { model, temperature: 0, max_tokens: 40, ignore_eos: true };
const messages = [{ role: "user", content: "123" }];

const models = await client.models.list();
assert.deepEqual(models.data.map((each) => each.id), [model]);
assert.equal((await client.models.retrieve(model)).id, model);

const whole = await client.completions.create({ ...greedy, prompt: "123" });
assert.equal(whole.choices[0].text, text);
assert.equal(whole.usage.completion_tokens, 40);

let streamed = "";
for await (const event of await client.completions.create({ ...greedy, prompt: "123", stream: true })) {
  streamed += event.choices[0].text;
}
assert.equal(streamed, text);

const chat = await client.chat.completions.create({ ...greedy, messages, n: 2, logprobs: true, top_logprobs: 2 });
assert.equal(chat.choices.length, 2);
assert.equal(chat.choices[0].message.content, chat.choices[1].message.content); // greedy
assert.equal(chat.choices[0].logprobs.content.length, 40);

let said = "";
let usage = null;
const options = { ...greedy, messages, stream: true, stream_options: { include_usage: true } };
for await (const event of await client.chat.completions.create(options)) {
  said += event.choices[0]?.delta.content ?? "";
  usage = event.usage ?? usage;
}
assert.equal(said, chat.choices[0].message.content);
assert.equal(usage.completion_tokens, 40);

// The client's helper puts the pieces together by itself.
const helped = client.chat.completions.stream({ ...greedy, messages });
assert.equal(await helped.finalContent(), said);

// Answers of a given form.
const schema = {
  type: "object",
  properties: { name: { type: "string", maxLength: 8 }, age: { type: "integer", minimum: 0, maximum: 99 } },
  required: ["name", "age"],
  additionalProperties: false,
};
const warm = { model, temperature: 1, max_tokens: 300 };
const formed = await client.chat.completions.create({
  ...warm, messages, seed: 1, response_format: { type: "json_schema", json_schema: { name: "person", strict: true, schema } },
});
assert.equal(formed.choices[0].finish_reason, "stop");
const person = JSON.parse(formed.choices[0].message.content);
assert.deepEqual(Object.keys(person), ["name", "age"]);
assert.ok(Number.isInteger(person.age) && person.age >= 0 && person.age <= 99);

// Tools: the client's helper puts the pieces of a call together, and the next turn brings the result.
const tools = [{ type: "function", function: { name: "look_up", description: "Looks a person up.", parameters: schema } }];
const asking = { ...warm, messages, seed: 2, tools, tool_choice: "required", parallel_tool_calls: false };
const called = await client.chat.completions.create(asking);
assert.equal(called.choices[0].finish_reason, "tool_calls");
assert.equal(called.choices[0].message.content, null);
const [call] = called.choices[0].message.tool_calls;
assert.equal(call.function.name, "look_up");
assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ["name", "age"]);
const pieces = await client.chat.completions.stream(asking).finalChatCompletion();
assert.equal(pieces.choices[0].finish_reason, "tool_calls");
assert.equal(pieces.choices[0].message.tool_calls[0].function.arguments, call.function.arguments);
const next = await client.chat.completions.create({
  ...greedy, tools, messages: [...messages, called.choices[0].message, { role: "tool", tool_call_id: call.id, content: "42" }],
});
assert.ok(next.usage.prompt_tokens > called.usage.prompt_tokens);
await assert.rejects(client.chat.completions.create({ ...asking, tools: [{ ...tools[0], type: "other" }] }), OpenAI.BadRequestError);

// A stream that is left: the server notices (serve_connections.py), the client goes on.
const left = await client.completions.create({ ...greedy, max_tokens: 100000, prompt: "123", stream: true });
for await (const event of left) {
  assert.equal(event.object, "text_completion");
  break;
}

await assert.rejects(client.completions.create({ ...greedy, prompt: "123", n: 0 }), (error) => {
  return error instanceof OpenAI.BadRequestError && error.status === 400 && error.param === "n";
});
await assert.rejects(client.completions.create({ ...greedy, prompt: "123", model: "other" }), OpenAI.NotFoundError);
const stranger = new OpenAI({ baseURL: `${address}/v1`, apiKey: "nobody", maxRetries: 0 });
await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
console.log("OpenAI's client for Node finds what it expects");
