#!/usr/bin/env python3
"""`cachalot serve`, end to end: HTTP as clients of every kind speak it, and clients that do not keep to it.

    tests/serve_connections.py --bin BUILD [Clients.test_who_goes_is_not_computed_for ...]
"""
import concurrent.futures
import contextlib
import io
import json
import socket
import time
import unittest

from serve_client import ENDLESS, SOON, Server, Stream, opened, run_tests, text_of, wait_until

COMPLETIONS = "/v1/completions"
JSON = {"Content-Type": "application/json"}
ASKED = {"prompt": "123", "max_tokens": 5, "temperature": 0, "ignore_eos": True}
MAX_BODY = 1 << 20
READ_TIMEOUT = 1
MUCH_MEMORY = 64 << 20


def request_text(method, path, body=b"", *headers, version="HTTP/1.1"):
    lines = [f"{method} {path} {version}", "Host: here", *headers]
    if body:
        lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Raw:
    """A socket, and the answers that come on it one after the other."""

    def __init__(self, server, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer is not None:  # before it connects, or it has no effect
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(SOON)
        self.socket.connect((server.host, server.port))
        self.input = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def answer(self, method="GET"):
        """(status, headers, body) of the next answer; a status of 100 has no more than that, None is none at all."""
        try:
            line = self.input.readline()
        except ConnectionError:
            line = b""
        if not line:
            return None, {}, b""
        status = line.split()[1]
        headers = {}
        while (line := self.input.readline().strip()):
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        if int(status) == 100 or method == "HEAD":
            return int(status), headers, b""
        if headers.get("transfer-encoding") == "chunked":
            body = io.BytesIO()
            while (size := int(self.input.readline(), 16)):
                body.write(self.input.read(size))
                self.input.readline()
            self.input.readline()
            return int(status), headers, body.getvalue()
        length = headers.get("content-length")
        return int(status), headers, self.input.read(int(length) if length else -1)

    def closed(self):
        """Whether the server has closed it, within the socket's timeout."""
        try:
            return self.input.read() is not None
        except ConnectionError:
            return True
        except socket.timeout:
            return False

    def close(self):
        self.input.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class WithServer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = opened(cls, "--max-body", "1", "--read-timeout", str(READ_TIMEOUT))

    def setUp(self):
        self.assertEqual(200, self.server.ask("GET", "/health").status)

    def raw(self, **options):
        raw = Raw(self.server, **options)
        self.addCleanup(raw.close)
        return raw

    def text(self):
        return text_of(self.server.post(COMPLETIONS, **ASKED).json["choices"][0])


class Protocol(WithServer):
    def test_a_connection_serves_request_after_request(self):
        connection = self.server.connect()
        self.addCleanup(connection.close)
        connection.connect()
        used = connection.sock
        for _ in range(3):
            self.assertEqual(200, self.server.ask("GET", "/health", connection=connection).status)
            self.assertEqual(200, self.server.ask("POST", COMPLETIONS, ASKED, connection=connection).status)
            self.assertEqual(400, self.server.ask("POST", COMPLETIONS, {"n": 0}, connection=connection).status)
            self.assertEqual(404, self.server.ask("GET", "/none", connection=connection).status)
            self.assertIs(used, connection.sock)

    def test_pipelined_requests_are_answered_in_turn(self):
        body = json.dumps(ASKED).encode()
        streamed = json.dumps({**ASKED, "stream": True}).encode()
        raw = self.raw()
        raw.send(request_text("POST", COMPLETIONS, body) + request_text("GET", "/health") +
                 request_text("POST", COMPLETIONS, streamed) + request_text("GET", "/v1/models"))
        want = self.text()
        self.assertEqual(want, text_of(json.loads(raw.answer()[2])["choices"][0]))
        self.assertEqual({"status": "ok"}, json.loads(raw.answer()[2]))
        status, headers, events = raw.answer()
        self.assertEqual((200, "text/event-stream"), (status, headers["content-type"].split(";")[0]))
        events = events.decode().split("\n\n")
        self.assertEqual(["data: [DONE]", ""], events[-2:])
        self.assertEqual(want, "".join(text_of(json.loads(event[6:])["choices"][0]) for event in events[:-2]))
        self.assertEqual("list", json.loads(raw.answer()[2])["object"])

    def test_bodies_in_chunks(self):
        body = json.dumps(ASKED).encode()
        connection = self.server.connect()
        self.addCleanup(connection.close)
        connection.request("POST", COMPLETIONS, (body[i:i + 7] for i in range(0, len(body), 7)), JSON, encode_chunked=True)
        answer = json.loads(connection.getresponse().read())
        self.assertEqual(self.text(), text_of(answer["choices"][0]))

    def test_a_body_that_waits_to_be_asked_for(self):
        body = json.dumps(ASKED).encode()
        raw = self.raw()
        head = request_text("POST", COMPLETIONS, body, "Expect: 100-continue")[: -len(body)]
        raw.send(head)
        self.assertEqual(100, raw.answer()[0])
        raw.send(body)
        status, _, answer = raw.answer()
        self.assertEqual((200, self.text()), (status, text_of(json.loads(answer)["choices"][0])))

    def test_head_is_get_without_a_body(self):
        for path in "/health", "/", "/v1/models":
            with self.subTest(path):
                raw = self.raw()
                raw.send(request_text("HEAD", path) + request_text("GET", path))
                status, headers, _ = raw.answer("HEAD")
                self.assertEqual(200, status)
                got = raw.answer()
                self.assertEqual((200, headers["content-length"]), (got[0], str(len(got[2]))))

    def test_http_1_0(self):
        raw = self.raw()
        raw.send(request_text("GET", "/health", version="HTTP/1.0"))
        self.assertEqual({"status": "ok"}, json.loads(raw.answer()[2]))
        self.assertTrue(raw.closed())
        raw = self.raw()
        raw.send(request_text("POST", COMPLETIONS, json.dumps({**ASKED, "stream": True}).encode(), version="HTTP/1.0"))
        status, headers, events = raw.answer()  # to the end of the connection: 1.0 has no chunks
        self.assertEqual(200, status)
        self.assertNotIn("transfer-encoding", headers)
        self.assertTrue(events.endswith(b"data: [DONE]\n\n"))
        pieces = [json.loads(event[6:]) for event in events.decode().split("\n\n")[:-2]]
        self.assertEqual(self.text(), "".join(text_of(piece["choices"][0]) for piece in pieces))

    def test_connection_close_is_obeyed(self):
        raw = self.raw()
        raw.send(request_text("GET", "/health", b"", "Connection: close"))
        self.assertEqual(200, raw.answer()[0])
        self.assertTrue(raw.closed())


class Limits(WithServer):
    def test_bodies_over_the_limit(self):
        just = json.dumps({"prompt": "1", "max_tokens": 1, "user": ""}).encode()
        just = just.replace(b'"user": ""', b'"user": "' + b"u" * (MAX_BODY - len(just)) + b'"')
        self.assertEqual(MAX_BODY, len(just))
        self.assertNotEqual(413, self.server.ask("POST", COMPLETIONS, just, JSON).status)
        for expect in (), ("Expect: 100-continue",):
            raw = self.raw()  # its length alone is enough
            raw.send(request_text("POST", COMPLETIONS, b"x" * (MAX_BODY + 1), *expect)[: -(MAX_BODY + 1)])
            status, _, body = raw.answer()
            self.assertEqual((413, "invalid_request_error"), (status, json.loads(body)["error"]["type"]))
            self.assertTrue(raw.closed())

    def test_chunks_over_the_limit(self):
        before = self.server.memory()
        raw = self.raw()
        raw.send(request_text("POST", COMPLETIONS, b"", "Transfer-Encoding: chunked", "Content-Type: application/json"))
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        with contextlib.suppress(ConnectionError):  # it need not read on to refuse
            for _ in range(64):
                raw.send(chunk)
        with contextlib.suppress(ConnectionError):
            self.assertEqual(413, raw.answer()[0])
        self.assertTrue(raw.closed())
        self.assertLess(self.server.memory() - before, MUCH_MEMORY)

    def test_headers_over_the_limit(self):
        raw = self.raw()
        with contextlib.suppress(ConnectionError):
            raw.send(request_text("GET", "/health", b"", *(f"X-{i}: {'x' * 1000}" for i in range(128))))
        self.assertEqual(431, raw.answer()[0])
        self.assertTrue(raw.closed())

    def test_what_is_no_http(self):
        for text in b"hello\r\n\r\n", b"GET /health\r\n\r\n", b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", \
                b"\x16\x03\x01\x02\x00" * 40, \
                b"POST /tokenize HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", \
                b"POST /tokenize HTTP/1.1\r\nContent-Length: -1\r\n\r\n", \
                b"POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n":
            with self.subTest(text[:60]):
                raw = self.raw()
                raw.send(text)
                self.assertIn(raw.answer()[0], (400, 408, 505, None))
                self.assertTrue(raw.closed())

    def test_a_request_that_never_ends_is_dropped(self):
        begun = request_text("POST", COMPLETIONS, json.dumps(ASKED).encode())
        for part in begun[:20], begun[:-3]:
            with self.subTest(part[-20:]):
                start = time.monotonic()
                raw = self.raw()
                raw.send(part)
                self.assertIn(raw.answer()[0], (408, None))
                self.assertTrue(raw.closed())
                self.assertLess(time.monotonic() - start, READ_TIMEOUT + 10)

    def test_a_request_that_trickles_is_dropped(self):
        raw = self.raw()
        start = time.monotonic()
        with self.assertRaises(ConnectionError):  # a byte now and then does not wind the clock up again
            for byte in request_text("GET", "/health", b"", "X: " + "x" * 10000):
                raw.send(bytes([byte]))
                time.sleep(READ_TIMEOUT / 8)
                if time.monotonic() - start > READ_TIMEOUT + 15:
                    break
        self.assertLess(time.monotonic() - start, READ_TIMEOUT + 15)


class Clients(WithServer):
    ENDLESS_ASKED = {**ASKED, "max_tokens": ENDLESS}

    def test_who_goes_is_not_computed_for(self):
        before = self.server.engine()["generated_tokens"]
        stream = Stream(self.server, COMPLETIONS, **self.ENDLESS_ASKED)
        events = iter(stream)
        for _ in range(5):
            next(events)
        self.assertEqual(1, self.server.engine()["running"])
        stream.close()
        wait_until("the stream nobody reads has ended", self.server.idle)
        self.assertLess(self.server.engine()["generated_tokens"] - before, ENDLESS)

    def test_who_goes_before_a_whole_answer_is_not_computed_for(self):
        connection = self.server.connect()
        connection.request("POST", COMPLETIONS, json.dumps(self.ENDLESS_ASKED), JSON)
        wait_until("it runs", lambda: self.server.engine()["running"] == 1)
        connection.close()
        wait_until("the answer nobody waits for has ended", self.server.idle)

    def test_who_does_not_read_is_given_up(self):
        before, memory = self.server.engine()["generated_tokens"], self.server.memory()
        raw = self.raw(receive_buffer=4096)
        asked = {**self.ENDLESS_ASKED, "n": 4, "logprobs": 20, "stream": True}  # events of kilobytes
        raw.send(request_text("POST", COMPLETIONS, json.dumps(asked).encode()))
        wait_until("it runs", lambda: self.server.engine()["running"] == 4)
        most = 0

        def ended():
            nonlocal most
            most = max(most, self.server.memory() - memory)
            return self.server.idle()
        wait_until("the stream nobody takes has ended", ended, 60)
        self.assertLess(self.server.engine()["generated_tokens"] - before, 4 * ENDLESS)
        self.assertLess(most, MUCH_MEMORY)

    def test_who_reads_slowly_gets_everything(self):
        tokens = 200
        asked = {**ASKED, "max_tokens": tokens}
        want = text_of(self.server.post(COMPLETIONS, **asked).json["choices"][0])
        got = ""
        for i, event in enumerate(Stream(self.server, COMPLETIONS, **asked)):
            if i < 5:
                time.sleep(READ_TIMEOUT / 2)  # longer in all than a request may take to arrive
            got += text_of(event["choices"][0])
        self.assertEqual(want, got)

    def test_many_that_come_and_go_leave_nothing(self):
        def come_and_go(i):
            stream = Stream(self.server, COMPLETIONS, **self.ENDLESS_ASKED)
            events = iter(stream)
            for _ in range(i % 4):
                next(events)
            stream.close()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(come_and_go, range(40)))
        wait_until("all have ended", self.server.idle)
        self.assertEqual(5, self.server.post(COMPLETIONS, **ASKED).json["usage"]["completion_tokens"])


if __name__ == "__main__":
    run_tests(__doc__)
