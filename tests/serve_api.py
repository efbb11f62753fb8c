#!/usr/bin/env python3
"""`cachalot serve`, end to end: what its answers say, beside what `cachalot generate` says.

    tests/serve_api.py --bin BUILD [Answers.test_echo ...]

What connections do is in serve_connections.py, how a server is started, guarded and stopped in serve_life.py.
"""
import concurrent.futures
import json
import re
import unittest

from serve_client import (ASSISTANT, BOS, CONTEXT, ENDLESS, FIRST_TOOL_TOKEN, USER, Server, Stream, generate, opened, run_tests, text_of,
                          wait_until)

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TOKENS = 40
GREEDY = {"temperature": 0, "ignore_eos": True, "max_tokens": TOKENS}
QUESTION = [{"role": "user", "content": "123"}]
QUESTION_TOKENS = [BOS, USER, *b"123", ASSISTANT]  # what V3's format makes of it
PROMPT_TOKENS = 4                                  # of "123": BOS, and a token for each digit


class WithServer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = opened(cls, "--name", "small-model")


class Answers(WithServer):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.want = generate("--prompt", "123", "--max-tokens", str(TOKENS), "--logprobs", "2")
        ids = ",".join(map(str, QUESTION_TOKENS))
        cls.want_chat = generate("--tokens", ids, "--max-tokens", str(TOKENS), "--logprobs", "2")

    def complete(self, path=COMPLETIONS, **members):
        what = {"messages": QUESTION} if path == CHAT else {"prompt": "123"}
        answer = self.server.post(path, **{**what, **GREEDY, **members})
        self.assertEqual(200, answer.status, answer.body)
        return answer.json

    def stream(self, path=COMPLETIONS, **members):
        what = {"messages": QUESTION} if path == CHAT else {"prompt": "123"}
        return list(Stream(self.server, path, **{**what, **GREEDY, **members}))

    def test_whole_answers_are_those_of_generate(self):
        for path, want, prompt in (COMPLETIONS, self.want, PROMPT_TOKENS), (CHAT, self.want_chat, len(QUESTION_TOKENS)):
            with self.subTest(path):
                answer = self.complete(path)
                self.assertEqual("small-model", answer["model"])
                self.assertEqual("chat.completion" if path == CHAT else "text_completion", answer["object"])
                [choice] = answer["choices"]
                self.assertEqual(want["text"], text_of(choice))
                self.assertEqual("length", choice["finish_reason"])
                usage = answer["usage"]
                self.assertEqual((prompt, TOKENS, prompt + TOKENS),
                                 (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]))
                self.assertEqual(prompt, usage["prompt_cache_hit_tokens"] + usage["prompt_cache_miss_tokens"])
                self.assertEqual(TOKENS, answer["timings"]["predicted_tokens"])

    def test_streams_say_what_whole_answers_say(self):
        for path, want in (COMPLETIONS, self.want), (CHAT, self.want_chat):
            with self.subTest(path):
                events = self.stream(path, stream_options={"include_usage": True})
                self.assertEqual(1, len({event["id"] for event in events}))
                *pieces, usage = events
                self.assertEqual(want["text"], "".join(text_of(event["choices"][0]) for event in pieces))
                ends = [event["choices"][0]["finish_reason"] for event in pieces]
                self.assertEqual([None] * (len(ends) - 1) + ["length"], ends)
                self.assertEqual([], usage["choices"])
                self.assertEqual(TOKENS, usage["usage"]["completion_tokens"])
                if path == CHAT:
                    self.assertEqual("assistant", pieces[0]["choices"][0]["delta"]["role"])
        self.assertFalse(any("usage" in event and event["usage"] for event in self.stream()))

    def test_a_text_that_was_read_before_is_reused_and_says_the_same(self):
        prompt = "0123456789" * 20
        first = self.complete(prompt=prompt)
        again = self.complete(prompt=prompt)
        self.assertEqual(text_of(first["choices"][0]), text_of(again["choices"][0]))
        self.assertGreaterEqual(again["usage"]["prompt_tokens_details"]["cached_tokens"], 192)  # of 201: whole blocks

    def test_several_choices_are_those_of_generate(self):
        sampling = ["--temperature", "1", "--seed", "3"]
        want = generate("--prompt", "123", "--max-tokens", str(TOKENS), "-n", "3", *sampling)["choices"]
        answer = self.complete(n=3, temperature=1, seed=3)
        self.assertEqual([0, 1, 2], [choice["index"] for choice in answer["choices"]])
        self.assertEqual([choice["text"] for choice in want], [text_of(choice) for choice in answer["choices"]])
        self.assertEqual(3, len({text_of(choice) for choice in answer["choices"]}))
        self.assertEqual((PROMPT_TOKENS, 3 * TOKENS),
                         (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]))
        texts = ["", "", ""]
        for event in self.stream(n=3, temperature=1, seed=3):
            [choice] = event["choices"]
            texts[choice["index"]] += text_of(choice)
        self.assertEqual([choice["text"] for choice in want], texts)

    def test_without_a_seed_answers_differ(self):
        texts = {text_of(self.complete(temperature=1)["choices"][0]) for _ in range(3)}
        self.assertEqual(3, len(texts))  # of 40 tokens of a model that is unsure of each

    def test_stop_strings_end_a_text_before_them(self):
        text = self.want["text"]
        stop = re.search(r"[!-~]{3}", text[len(text) // 2:]).group()
        for stops in stop, ["never to be seen", stop]:
            answer = self.complete(stop=stops)
            self.assertEqual((text[: text.index(stop)], "stop"),
                             (text_of(answer["choices"][0]), answer["choices"][0]["finish_reason"]))
        events = self.stream(stop=stop)
        self.assertEqual(text[: text.index(stop)], "".join(text_of(event["choices"][0]) for event in events))
        self.assertEqual("stop", events[-1]["choices"][0]["finish_reason"])

    def test_log_probabilities_are_those_of_generate(self):
        [choice] = self.complete(CHAT, logprobs=True, top_logprobs=2)["choices"]
        content = choice["logprobs"]["content"]
        self.assertEqual(TOKENS, len(content))
        for got, want in zip(content, self.want_chat["logprobs"]):
            self.assertAlmostEqual(want["logprob"], got["logprob"], delta=1e-6 * abs(want["logprob"]))
            self.assertEqual(2, len(got["top_logprobs"]))
            # Greedy: the token that was taken is the likeliest one.
            self.assertEqual(got["bytes"], got["top_logprobs"][0]["bytes"])
        [choice] = self.complete(logprobs=2)["choices"]
        for got, want in zip(choice["logprobs"]["token_logprobs"], self.want["logprobs"]):
            self.assertAlmostEqual(want["logprob"], got, delta=1e-6 * abs(want["logprob"]))
        self.assertEqual(TOKENS, len(choice["logprobs"]["tokens"]))
        streamed = [entry for event in self.stream(CHAT, logprobs=True)
                    for entry in (event["choices"][0].get("logprobs") or {}).get("content", [])]
        self.assertEqual([entry["logprob"] for entry in content], [entry["logprob"] for entry in streamed])

    def test_several_prompts_as_text_and_as_ids(self):
        alone = [text_of(self.complete(prompt=prompt)["choices"][0]) for prompt in ("12", "345")]
        for prompts in ["12", "345"], [[BOS, *b"12"], [BOS, *b"345"]]:
            answer = self.complete(prompt=prompts)
            self.assertEqual([0, 1], [choice["index"] for choice in answer["choices"]])
            self.assertEqual(alone, [text_of(choice) for choice in answer["choices"]])
            self.assertEqual((3 + 4, 2 * TOKENS),
                             (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]))
        texts = ["", ""]
        for event in self.stream(prompt=["12", "345"]):
            texts[event["choices"][0]["index"]] += text_of(event["choices"][0])
        self.assertEqual(alone, texts)

    def test_echo(self):
        self.assertEqual("123" + self.want["text"], text_of(self.complete(echo=True)["choices"][0]))
        self.assertEqual("123" + self.want["text"],
                         "".join(text_of(event["choices"][0]) for event in self.stream(echo=True)))

    def test_numbers_of_tokens(self):
        for path, name in (COMPLETIONS, "max_tokens"), (CHAT, "max_tokens"), (CHAT, "max_completion_tokens"):
            answer = self.complete(path, **{"max_tokens": None, name: 7})
            self.assertEqual(7, answer["usage"]["completion_tokens"])
        self.assertEqual(16, self.complete(max_tokens=None)["usage"]["completion_tokens"])  # the API's default

    def test_fifty_streams_at_once_each_say_their_own(self):
        prompts = [f"{i:02d}" for i in range(50)]

        def read(prompt):
            events = self.stream(prompt=prompt)
            return "".join(text_of(event["choices"][0]) for event in events)
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
            together = list(pool.map(read, prompts))
        alone = [text_of(self.complete(prompt=prompt)["choices"][0]) for prompt in prompts]
        self.assertEqual(alone, together)
        self.assertEqual(generate("--prompt", "07", "--max-tokens", str(TOKENS))["text"], together[7])


SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 6}, "size": {"enum": ["small", "large"]},
                                           "calf": {"type": "boolean"}},
          "required": ["name", "size", "calf"], "additionalProperties": False}
WHALE = {"type": "function", "function": {"name": "find_whale", "description": "Finds one.", "parameters": SCHEMA}}
BOAT = {"type": "function", "function": {"name": "hire_boat", "parameters": {
    "type": "object", "properties": {"seats": {"enum": [2, 4, 8]}}, "required": ["seats"], "additionalProperties": False}}}


class AnswersOfAForm(WithServer):
    """The model is random, so whatever it says right it was made to say."""

    def ask(self, path, **members):
        what = {"messages": QUESTION} if path == CHAT else {"prompt": "123"}
        answer = self.server.post(path, **{**what, "max_tokens": 300, "temperature": 1, **members})
        self.assertEqual(200, answer.status, answer.body)
        return answer.json["choices"]

    def whale(self, text):
        whale = json.loads(text)
        self.assertEqual(["name", "size", "calf"], list(whale))
        self.assertLessEqual(len(whale["name"]), 6)
        self.assertIn(whale["size"], SCHEMA["properties"]["size"]["enum"])
        self.assertIsInstance(whale["calf"], bool)

    def test_json_of_a_schema(self):
        forms = [{"response_format": {"type": "json_schema", "json_schema": {"name": "whale", "schema": SCHEMA}}},
                 {"structured_outputs": {"json": SCHEMA}}, {"structured_outputs": {"json": json.dumps(SCHEMA)}}]
        for path in CHAT, COMPLETIONS:
            for form in forms:
                for choice in self.ask(path, n=3, seed=5, **form):
                    with self.subTest(path=path, form=form):
                        self.assertEqual("stop", choice["finish_reason"])
                        self.whale(text_of(choice))

    def test_a_stream_is_held_to_it_too(self):
        asked = {"messages": QUESTION, "max_tokens": 300, "seed": 3, "structured_outputs": {"json": SCHEMA}}
        events = list(Stream(self.server, CHAT, **asked))
        self.assertEqual("stop", events[-1]["choices"][0]["finish_reason"])
        streamed = "".join(text_of(event["choices"][0]) for event in events)
        self.whale(streamed)
        self.assertEqual(text_of(self.ask(CHAT, **asked)[0]), streamed)

    def test_expressions_choices_and_grammars(self):
        for form, wanted in ({"regex": "[a-c]{3}-[0-9]{1,4}"}, r"[a-c]{3}-[0-9]{1,4}"), \
                            ({"choice": ["yes", "no", "perhaps"]}, "yes|no|perhaps"), \
                            ({"grammar": 'root ::= "<" [xy]{2,5} ">"'}, "<[xy]{2,5}>"):
            for path in CHAT, COMPLETIONS:
                for choice in self.ask(path, n=4, structured_outputs=form):
                    self.assertRegex(text_of(choice), f"^({wanted})$")
                    self.assertEqual("stop", choice["finish_reason"])

    def test_any_json_object(self):
        for choice in self.ask(CHAT, n=4, seed=1, response_format={"type": "json_object"}, max_tokens=2000):
            self.assertTrue(text_of(choice).startswith("{"))
            if choice["finish_reason"] == "stop":
                self.assertIsInstance(json.loads(text_of(choice)), dict)

    def test_a_call_that_must_be(self):
        both = {"tools": [WHALE, BOAT], "parallel_tool_calls": False}
        named = {"type": "function", "function": {"name": "hire_boat"}}
        for choice in self.ask(CHAT, n=4, seed=2, tool_choice="required", **both):
            self.assertEqual("tool_calls", choice["finish_reason"])
            self.assertIsNone(choice["message"]["content"])
            [call] = choice["message"]["tool_calls"]
            self.assertRegex(call["id"], "^call_[0-9A-Za-z]{24}$")
            if call["function"]["name"] == "find_whale":
                self.whale(call["function"]["arguments"])
            else:
                self.assertEqual("hire_boat", call["function"]["name"])
        [choice] = self.ask(CHAT, tool_choice=named, **both)
        [call] = choice["message"]["tool_calls"]
        self.assertEqual("hire_boat", call["function"]["name"])
        self.assertIn(json.loads(call["function"]["arguments"])["seats"], (2, 4, 8))

    def test_a_streamed_call_is_that_of_the_whole_answer(self):
        asked = {"messages": QUESTION, "max_tokens": 300, "seed": 4, "tools": [WHALE], "tool_choice": "required",
                 "parallel_tool_calls": False}
        calls, content = [], ""
        for event in Stream(self.server, CHAT, **asked):
            [choice] = event["choices"]
            content += text_of(choice)
            for piece in choice["delta"].get("tool_calls", []):
                if "id" in piece:
                    calls.append({**piece["function"], "arguments": ""})
                calls[piece["index"]]["arguments"] += piece["function"]["arguments"]
        self.assertEqual(("tool_calls", ""), (choice["finish_reason"], content))
        [whole] = self.ask(CHAT, **asked)
        self.assertEqual([call["function"] for call in whole["message"]["tool_calls"]], calls)
        self.whale(calls[0]["arguments"])

    def test_results_go_back_to_the_model(self):
        [choice] = self.ask(CHAT, tools=[BOAT], tool_choice="required", parallel_tool_calls=False)
        message = choice["message"]
        talk = [*QUESTION, message, {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "4"}]
        tokens = self.server.post("/tokenize", messages=talk, tools=[BOAT]).json["tokens"]
        calls = [FIRST_TOOL_TOKEN + i for i in range(5)]
        self.assertTrue(set(calls) <= set(tokens))
        answer = self.server.post(CHAT, messages=talk, tools=[BOAT], max_tokens=5)
        self.assertEqual(200, answer.status, answer.body)

    def test_what_cannot_be_promised_is_refused(self):
        cases = [("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "strin"}}}),
                 ("structured_outputs", {"json": {"uniqueItems": True}}), ("structured_outputs", {"regex": "a("}),
                 ("structured_outputs", {"grammar": "root ::= nothing"}),
                 ("tools", [{"type": "function", "function": {"name": "f", "parameters": {"type": 7}}}])]
        for name, value in cases:
            answer = self.server.post(CHAT, messages=QUESTION, max_tokens=1, **{name: value})
            self.assertEqual((400, name), (answer.status, answer.error["param"]), answer.body)
        answer = self.server.post(CHAT, messages=QUESTION, tools=[BOAT], response_format={"type": "json_object"})
        self.assertEqual((400, "response_format"), (answer.status, answer.error["param"]))
        answer = self.server.post(CHAT, messages=QUESTION, chat_template_kwargs={"thinking": True})
        self.assertEqual((400, "thinking"), (answer.status, answer.error["param"]))


class Routes(WithServer):
    def test_health_models_and_server(self):
        self.assertEqual({"status": "ok"}, self.server.ask("GET", "/health").json)
        models = self.server.ask("GET", "/v1/models").json
        self.assertEqual(("list", ["small-model"]), (models["object"], [model["id"] for model in models["data"]]))
        self.assertEqual("small-model", self.server.ask("GET", "/v1/models/small-model").json["id"])
        self.assertEqual(404, self.server.ask("GET", "/v1/models/other").status)
        server = self.server.ask("GET", "/v1/server").json
        self.assertEqual(("small-model", "v3"), (server["model"], server["format"]))
        self.assertEqual(server["model"], self.server.ready["model"])
        for key in "running waiting kept pages free_pages passes rows finished preemptions evictions drafted accepted".split():
            self.assertIsInstance(server["engine"][key], int, key)

    def test_the_page(self):
        page = self.server.ask("GET", "/")
        self.assertEqual((200, "text/html"), (page.status, page.headers.get_content_type()))
        for kind, files in ("text/javascript", re.findall(rb'<script[^>]* src="([^"]+)"', page.body)), \
                           ("text/css", re.findall(rb'<link[^>]* href="([^"]+\.css)"', page.body)):
            self.assertTrue(files, kind)
            for file in files:
                answer = self.server.ask("GET", "/" + file.decode().lstrip("./"))
                self.assertEqual((200, kind), (answer.status, answer.headers.get_content_type()), file)

    def test_tokenize_and_back(self):
        tokens = self.server.post("/tokenize", prompt="123").json
        self.assertEqual(([BOS, *b"123"], PROMPT_TOKENS), (tokens["tokens"], tokens["count"]))
        self.assertEqual(QUESTION_TOKENS, self.server.post("/tokenize", messages=QUESTION).json["tokens"])
        self.assertEqual("123", self.server.post("/detokenize", tokens=list(b"123")).json["prompt"])
        self.assertEqual(400, self.server.post("/detokenize", tokens=[10 ** 6]).status)

    def test_metrics_count(self):
        def samples():
            answer = self.server.ask("GET", "/metrics")
            self.assertEqual((200, "text/plain"), (answer.status, answer.headers.get_content_type()))
            found = {}
            for line in answer.body.decode().splitlines():
                if not line.startswith("# "):
                    self.assertRegex(line, r'^[a-z_]+(\{([a-z]+="[^"]*",?)+\})? \S+$')
                    name, value = line.rsplit(" ", 1)
                    found[name] = float(value)
            return found
        before = samples()
        self.assertEqual(200, self.server.post(COMPLETIONS, prompt="123", **GREEDY).status)
        self.assertEqual(400, self.server.post(COMPLETIONS).status)
        self.assertEqual(404, self.server.ask("GET", "/nothing").status)
        wanted = {"cachalot_generated_tokens_total": TOKENS, "cachalot_prompt_tokens_total": PROMPT_TOKENS,
                  'cachalot_requests_total{endpoint="/v1/completions",status="200"}': 1,
                  'cachalot_requests_total{endpoint="/v1/completions",status="400"}': 1,
                  'cachalot_requests_total{endpoint="other",status="404"}': 1,
                  "cachalot_time_to_first_token_seconds_count": 1, 'cachalot_finished_total{reason="length"}': 1}

        def counted():  # an answer may arrive before it has been counted
            after = samples()
            return {name: after.get(name, 0) - before.get(name, 0) for name in wanted}
        wait_until("what was asked is counted", lambda: counted() == wanted)


class Refusals(WithServer):
    def refused(self, answer, status, param=None, says=""):
        self.assertEqual(status, answer.status, answer.body)
        self.assertEqual({"message", "type", "param", "code"}, set(answer.error))
        self.assertIn(says, answer.error["message"])
        if param is not None:
            self.assertEqual(param, answer.error["param"])

    def test_members_that_cannot_be(self):
        both = [("temperature", "hot"), ("temperature", -1), ("top_p", 0), ("top_p", 2), ("n", 0), ("n", 1000),
                ("max_tokens", -1), ("max_tokens", 1.5), ("stop", 7), ("stop", ["x"] * 17), ("stop", ""),
                ("seed", "x"), ("stream", "yes"), ("presence_penalty", 3), ("stream_options", {"include_usage": True})]
        cases = [(path, name, value) for path in (CHAT, COMPLETIONS) for name, value in both]
        cases += [(CHAT, "messages", None), (CHAT, "messages", []), (CHAT, "messages", "hello"),
                  (CHAT, "top_logprobs", 21), (CHAT, "tools", [{"type": "function"}]), (CHAT, "tool_choice", "required"),
                  (CHAT, "tools", [{"type": "function", "function": {"name": "a b"}}]), (CHAT, "thinking", True),
                  (CHAT, "response_format", {"type": "xml"}), (COMPLETIONS, "structured_outputs", {}),
                  (COMPLETIONS, "prompt", None), (COMPLETIONS, "prompt", []), (COMPLETIONS, "prompt", 7),
                  (COMPLETIONS, "prompt", [[1, "x"]]), (COMPLETIONS, "logprobs", 21)]
        for path, name, value in cases:
            with self.subTest(path=path, name=name, value=value):
                good = {"messages": QUESTION} if path == CHAT else {"prompt": "123"}
                self.refused(self.server.post(path, **{**good, "max_tokens": 1, name: value}), 400, name)

    def test_a_misspelt_member_is_told_the_right_one(self):
        answer = self.server.post(CHAT, messages=QUESTION, temprature=0)
        self.refused(answer, 400, "temprature", "temperature")

    def test_bodies_that_are_no_request(self):
        bodies = [b"", b"{", b"[]", b"7", b'{"prompt": "\xff"}', b"[" * 100000, b'{"a":' * 100000, b'{"prompt": NaN}',
                  b'{"prompt": "x", "temperature": 1e999}', b'{"prompt": "x"} x', b"\x00", json.dumps({"prompt": 1}).encode()]
        for path in CHAT, COMPLETIONS, "/tokenize", "/detokenize":
            for body in bodies:
                with self.subTest(path=path, body=body[:40]):
                    answer = self.server.ask("POST", path, body, {"Content-Type": "application/json"})
                    self.refused(answer, 400)
        self.assertEqual(200, self.server.ask("GET", "/health").status)

    def test_prompts_that_the_model_cannot_read(self):
        too_long = self.server.post(COMPLETIONS, prompt="1" * (CONTEXT + 1), max_tokens=1)
        self.refused(too_long, 400, "prompt", str(CONTEXT))
        self.assertEqual("context_length_exceeded", too_long.error["code"])
        self.refused(self.server.post(COMPLETIONS, prompt=[512], max_tokens=1), 400, says="512")
        self.refused(self.server.post(CHAT, messages=[{"role": "wizard", "content": "x"}]), 400, says="wizard")

    def test_other_models_methods_paths_and_types(self):
        other = self.server.post(CHAT, messages=QUESTION, model="gpt-4o")
        self.refused(other, 404, "model", "small-model")
        self.assertEqual("model_not_found", other.error["code"])
        self.assertEqual(200, self.server.post(COMPLETIONS, prompt="1", max_tokens=1, model="small-model").status)
        for method, path, allowed in ("GET", CHAT, "POST"), ("POST", "/v1/models", "GET"), ("DELETE", "/health", "GET"):
            answer = self.server.ask(method, path)
            self.refused(answer, 405)
            self.assertIn(allowed, answer.headers["Allow"])
        for path in "/v1", "/v1/embeddings", "/v1/chat/completions/", "/../etc/passwd", "/%2e%2e/etc/passwd":
            self.refused(self.server.ask("GET", path), 404)
        for kind in {}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}:
            self.refused(self.server.ask("POST", COMPLETIONS, b'{"prompt": "1", "max_tokens": 1}', kind), 415)
        charset = {"Content-Type": "application/json; charset=utf-8"}
        self.assertEqual(200, self.server.ask("POST", COMPLETIONS, b'{"prompt": "1", "max_tokens": 1}', charset).status)


class Overload(unittest.TestCase):
    def test_who_finds_no_place_is_told_to_come_back(self):
        with Server("--max-running", "1", "--max-waiting", "1") as server:
            asked = {"prompt": "123", "ignore_eos": True, "max_tokens": ENDLESS, "temperature": 0}
            running = Stream(server, COMPLETIONS, **asked)
            next(iter(running))
            waiting = server.connect()
            waiting.request("POST", COMPLETIONS, json.dumps(asked), {"Content-Type": "application/json"})
            wait_until("one request waits", lambda: server.engine()["waiting"] == 1)
            refused = server.post(COMPLETIONS, **asked)
            self.assertEqual((503, "overloaded_error"), (refused.status, refused.error["type"]))
            self.assertGreater(int(refused.headers["Retry-After"]), 0)
            waiting.close()
            running.close()
            wait_until("both are given up", server.idle)
            self.assertEqual(200, server.post(COMPLETIONS, **{**asked, "max_tokens": 2}).status)


if __name__ == "__main__":
    run_tests(__doc__)
