#!/usr/bin/env python3
"""`cachalot serve`, end to end: how it is started, who may ask it, and how it is stopped.

    tests/serve_life.py --bin BUILD [Stopping.test_answers_under_way_may_end ...]
"""
import contextlib
import http.client
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import time
import unittest

from serve_client import ENDLESS, SOON, Server, Stream, World, flags, generate, opened, run_tests, text_of, wait_until

COMPLETIONS = "/v1/completions"
ASKED = {"prompt": "123", "max_tokens": 5, "temperature": 0, "ignore_eos": True}
KEY, OTHER_KEY = "0123456789abcdef-alice", "0123456789abcdef-bob"


def write(name, text, mode=0o600):
    path = World.folder / name
    path.write_text(text)
    path.chmod(mode)
    return path


class Keys(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        keys = write("keys", f"# who may ask\nalice {KEY}\n\n{OTHER_KEY}\n")
        cls.server = opened(cls, "--api-keys", keys, "--allow-origin", "https://example.org")

    def ask(self, authorization, method="GET", path="/v1/models", body=None):
        headers = {"Authorization": authorization} if authorization else {}
        return self.server.ask(method, path, body, headers)

    def test_without_a_right_key_there_is_no_answer(self):
        for wrong in None, "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", KEY, "Bearer alice":
            for method, path, body in ("GET", "/v1/models", None), ("POST", COMPLETIONS, ASKED), ("GET", "/metrics", None), \
                    ("GET", "/v1/server", None), ("POST", "/tokenize", {"prompt": "1"}):
                with self.subTest(wrong=wrong, path=path):
                    answer = self.ask(wrong, method, path, body)
                    self.assertEqual((401, "authentication_error"), (answer.status, answer.error["type"]))
                    self.assertIn("Bearer", answer.headers["WWW-Authenticate"])

    def test_with_a_key_there_is(self):
        for right in f"Bearer {KEY}", f"bearer  {KEY}", f"Bearer {OTHER_KEY}":
            self.assertEqual(200, self.ask(right).status)
        answer = self.ask(f"Bearer {KEY}", "POST", COMPLETIONS, ASKED)
        want = generate("--prompt", "123", "--max-tokens", "5")["text"]
        self.assertEqual((200, want), (answer.status, text_of(answer.json["choices"][0])))
        self.assertEqual(200, self.ask(f"Bearer {KEY}", path="/metrics").status)

    def test_health_and_the_page_need_none(self):
        for path in "/health", "/":
            self.assertEqual(200, self.ask(None, path=path).status)

    def test_pages_elsewhere_may_ask(self):
        preflight = self.server.ask("OPTIONS", COMPLETIONS, headers={
            "Origin": "https://example.org", "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type"})
        self.assertIn(preflight.status, (200, 204))
        allowed = preflight.headers["Access-Control-Allow-Headers"].lower()
        self.assertTrue("authorization" in allowed and "content-type" in allowed)
        for answer in preflight, self.ask(f"Bearer {KEY}"), self.ask(None):
            self.assertEqual("https://example.org", answer.headers["Access-Control-Allow-Origin"])

    def test_no_key_is_in_the_log(self):
        self.ask(f"Bearer {KEY}")
        self.ask(f"Bearer {KEY}x")
        self.assertNotIn(KEY, self.server.said())


class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if shutil.which("openssl") is None:
            raise unittest.SkipTest("there is no openssl here to make a certificate with")
        cls.cert, cls.key = World.folder / "cert.pem", World.folder / "key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", cls.key, "-out", cls.cert,
                        "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
                       check=True, capture_output=True)
        cls.server = opened(cls, "--tls-cert", cls.cert, "--tls-key", cls.key, "--read-timeout", "1")
        cls.server.context = ssl.create_default_context(cafile=cls.cert)

    def test_answers_and_streams(self):
        self.assertTrue(self.server.ready["address"].startswith("https://"))
        want = generate("--prompt", "123", "--max-tokens", "5")["text"]
        self.assertEqual(want, text_of(self.server.ask("POST", COMPLETIONS, ASKED).json["choices"][0]))
        events = list(Stream(self.server, COMPLETIONS, **ASKED))
        self.assertEqual(want, "".join(text_of(event["choices"][0]) for event in events))

    def test_a_connection_serves_request_after_request(self):
        with contextlib.closing(self.server.connect()) as connection:
            for _ in range(3):
                self.assertEqual(200, self.server.ask("POST", COMPLETIONS, ASKED, connection=connection).status)

    def test_old_versions_plain_text_and_silence(self):
        old = ssl.create_default_context(cafile=self.cert)
        with contextlib.suppress(ValueError, ssl.SSLError):  # where OpenSSL itself no longer knows them
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
            with self.assertRaises((ssl.SSLError, OSError)):
                with socket.create_connection((self.server.host, self.server.port), SOON) as raw:
                    old.wrap_socket(raw, server_hostname="localhost").close()
        for said in b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"":
            with socket.create_connection((self.server.host, self.server.port), SOON) as raw:
                raw.sendall(said)
                with contextlib.suppress(ConnectionError):
                    self.assertNotIn(b"200", raw.recv(4096))  # an alert or the end, and soon
        self.assertEqual(200, self.server.ask("GET", "/health").status)


class Starting(unittest.TestCase):
    def refused(self, status, says, *extra):
        done = subprocess.run([World.program, "serve", World.model, "--chat-format", "v3", *flags(), *map(str, extra)],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(status, done.returncode, done.stderr)
        self.assertIn(says, done.stderr)
        self.assertEqual("", done.stdout)

    def test_a_folder_without_a_tokenizer(self):
        empty = World.folder / "empty-folder"
        empty.mkdir()
        ended = subprocess.run([World.program, "serve", empty, "--port", "0"], capture_output=True, text=True, timeout=60)
        self.assertEqual(ended.returncode, 2)
        self.assertIn("has no tokenizer.json, which serve needs", ended.stderr)

    def test_requests_are_logged_where_that_is_asked_for(self):
        with Server("--log-requests") as server:
            server.ask("GET", "/health")
            server.ask("GET", "/nothing-here")
            wait_until("the log has both", lambda: "/nothing-here 404 in " in server.said())
            self.assertIn("/health 200 in ", server.said())

    def test_a_port_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.refused(1, str(port), "--port", port)

    def test_flags_that_cannot_be(self):
        self.refused(2, "--tls-key", "--port", 0, "--tls-cert", write("alone.pem", "x"))
        self.refused(1, "none.pem", "--port", 0, "--tls-cert", "none.pem", "--tls-key", "none.pem")
        self.refused(2, "--port", "--port", 70000)
        self.refused(2, "no key", "--port", 0, "--api-keys", write("empty", "# none\n"))
        self.refused(1, "missing", "--port", 0, "--api-keys", World.folder / "missing")
        short = write("short", "alice secret\n")
        self.refused(1, f"{short}:1", "--port", 0, "--api-keys", short)

    def test_keys_that_others_may_read_are_warned_of(self):
        keys = write("open", f"alice {KEY}\n", 0o644)
        with Server("--api-keys", keys) as server:
            self.assertIn("chmod 600", server.said())
            self.assertNotIn(KEY, server.said())

    def test_a_model_is_called_as_its_folder(self):
        with Server() as server:
            self.assertEqual(pathlib.Path(World.model).name, server.ready["model"])
            self.assertEqual(404, server.ask("GET", "/v1/models/" + KEY).status)
            self.assertIsNone(server.ask("GET", "/health").headers["Access-Control-Allow-Origin"])


class Stopping(unittest.TestCase):
    def stopped(self, server, seconds):
        begin = time.monotonic()
        status = server.process.wait(seconds + SOON)
        self.assertLess(time.monotonic() - begin, seconds)
        return status

    def test_answers_under_way_may_end(self):
        tokens = 3000
        with Server("--drain", "60") as server:
            events = iter(Stream(server, COMPLETIONS, **{**ASKED, "max_tokens": tokens}))
            text = text_of(next(events)["choices"][0])
            server.process.send_signal(signal.SIGTERM)
            for event in events:  # up to [DONE]
                text += text_of(event["choices"][0])
            self.assertEqual("length", event["choices"][0]["finish_reason"])
            self.assertEqual(generate("--prompt", "123", "--max-tokens", str(tokens))["text"], text)
            self.assertEqual(0, self.stopped(server, 5))

    def test_nobody_new_is_answered(self):
        with Server("--drain", "60") as server:
            events = iter(Stream(server, COMPLETIONS, **{**ASKED, "max_tokens": ENDLESS}))
            next(events)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            self.assertIsNone(server.process.poll())
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.assertEqual(503, server.post(COMPLETIONS, **ASKED).status)

    def test_the_drain_has_an_end(self):
        with Server("--drain", "1") as server:
            events = iter(Stream(server, COMPLETIONS, **{**ASKED, "max_tokens": ENDLESS}))
            event = next(events)
            server.process.send_signal(signal.SIGTERM)
            with self.assertRaisesRegex(AssertionError, "without .DONE."):
                for event in events:
                    pass
            self.assertEqual("overloaded_error", event["error"]["type"])  # it says why it ends
            self.assertEqual(0, self.stopped(server, 1 + 5))

    def test_a_second_signal_ends_it_at_once(self):
        for number in signal.SIGTERM, signal.SIGINT:
            with Server("--drain", "60") as server:
                stream = Stream(server, COMPLETIONS, **{**ASKED, "max_tokens": ENDLESS})
                next(iter(stream))
                server.process.send_signal(number)
                time.sleep(0.5)
                self.assertIsNone(server.process.poll())
                server.process.send_signal(number)
                self.stopped(server, 5)
                stream.close()

    def test_without_answers_under_way_it_ends_at_once(self):
        with Server("--drain", "60") as server, contextlib.closing(server.connect()) as idle:
            self.assertEqual(200, server.ask("GET", "/health", connection=idle).status)
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(0, self.stopped(server, 5))


if __name__ == "__main__":
    run_tests(__doc__)
