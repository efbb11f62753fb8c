"""What the end-to-end tests of `cachalot serve` share: a small model, a server, a client of a few lines.

The model is fixture A, whose weights are random but fixed, with a byte-level tokenizer made here: every token but the
added ones is a byte or two letters, so that its answers are long, mostly odd, and the same everywhere. Its context is
made longer than any test's patience, so that a text that nobody stops goes on for long.
"""
import argparse
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse

SOURCE = pathlib.Path(__file__).resolve().parent.parent
CONTEXT = 131072
ENDLESS = 120000  # tokens: a minute at the least
BOS, EOS, USER, ASSISTANT = 256, 257, 258, 259
VOCABULARY = 512
TOOL_TOKENS = [f"<｜tool▁{name}｜>" for name in ("calls▁begin", "calls▁end", "call▁begin", "call▁end", "sep")]
FIRST_TOOL_TOKEN = VOCABULARY - len(TOOL_TOKENS)
START_SECONDS = 60  # a sanitizer's build on a busy machine
SOON = 20


def byte_alphabet():
    """The letters that stand for bytes in a byte-level tokenizer.json."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def write_model(folder):
    shutil.copytree(SOURCE / "tests" / "fixtures" / "A", folder)
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = CONTEXT
    config["eos_token_id"] = EOS  # the fixture's is a byte here, which would be told as text
    (folder / "config.json").write_text(json.dumps(config))
    alphabet = byte_alphabet()
    vocabulary = {alphabet[b]: b for b in range(256)}
    merges = [f"{a} {b}" for a in "abcdefghijklmnop" for b in "abcdefghijklmnop"][: FIRST_TOOL_TOKEN - 260]
    vocabulary.update({merge.replace(" ", ""): 260 + i for i, merge in enumerate(merges)})
    added = [(BOS, "<｜begin▁of▁sentence｜>", True), (EOS, "<｜end▁of▁sentence｜>", True),
             (USER, "<｜User｜>", False), (ASSISTANT, "<｜Assistant｜>", False),
             *((FIRST_TOOL_TOKEN + i, text, False) for i, text in enumerate(TOOL_TOKENS))]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0",
        "added_tokens": [{"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": special} for i, text, special in added],
        "normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "vocab": vocabulary, "merges": merges}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": added[0][1], "eos_token": added[1][1], "add_bos_token": True}))


class World:
    """The program under test and its model, made once for all tests."""
    program = None
    folder = None
    model = None

    @classmethod
    def open(cls, program):
        cls.program = program / "cachalot" if program.is_dir() else program
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="serve-"))
        cls.model = cls.folder / "small"
        write_model(cls.model)

    @classmethod
    def close(cls):
        shutil.rmtree(cls.folder, ignore_errors=True)


def flags(threads=1):
    return ["--threads", str(threads), "--kv-memory", "0.25"]


def generate(*extra):
    """`cachalot generate --json`, with which every answer of the server is compared."""
    done = subprocess.run([World.program, "generate", World.model, *flags(), "--json", "--ignore-eos", *extra],
                          capture_output=True, text=True, timeout=START_SECONDS)
    if done.returncode != 0:
        raise AssertionError(f"generate left with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def wait_until(what, condition, seconds=SOON):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"after {seconds} s still not so: {what}")
        time.sleep(0.05)


class Answer:
    def __init__(self, response, body):
        self.status, self.headers, self.body = response.status, response.headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]


class Server:
    """A server on a free port; `with` stops it, and fails where it did not end as it should."""

    def __init__(self, *extra, model=None, context=None, ready=True):
        self.context = context  # of TLS
        self.log = tempfile.NamedTemporaryFile("w+", dir=World.folder, prefix="log-", delete=False)
        self.process = subprocess.Popen(
            [World.program, "serve", model or World.model, "--port", "0", "--json", "--chat-format", "v3", *flags(), *extra],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        if ready:
            timer = threading.Timer(START_SECONDS, self.process.kill)
            timer.start()
            line = self.process.stdout.readline()
            timer.cancel()
            if not line:
                raise AssertionError(f"the server ended before it listened, with {self.process.wait()}: {self.said()}")
            self.ready = json.loads(line)
            url = urllib.parse.urlsplit(self.ready["address"])
            self.host, self.port = url.hostname, url.port

    def said(self):
        return pathlib.Path(self.log.name).read_text()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
        if self.process.poll() is None:  # answers that nobody ended
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(SOON)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server had to be killed: {self.said()}") from error
        finally:
            self.process.stdout.close()
            self.log.close()
        if kind is not None:
            sys.stderr.write(f"--- the server's log\n{self.said()[-4000:]}---\n")
        elif self.process.returncode not in (0, None):
            raise AssertionError(f"the server left with {self.process.returncode}: {self.said()}")

    def connect(self, timeout=60):
        if self.context is not None:
            return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self.context)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def ask(self, method, path, body=None, headers=None, connection=None):
        """One request; a dict is sent as JSON, anything else as it is."""
        headers = dict(headers or {})
        if isinstance(body, dict):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        mine = connection or self.connect()
        try:
            mine.request(method, path, body, headers)
            response = mine.getresponse()
            return Answer(response, response.read())
        finally:
            if connection is None:
                mine.close()

    def post(self, path, **members):
        return self.ask("POST", path, members)

    def engine(self, headers=None):
        answer = self.ask("GET", "/v1/server", headers=headers)
        assert answer.status == 200, answer.body
        return answer.json["engine"]

    def idle(self):
        engine = self.engine()
        return engine["running"] == 0 and engine["waiting"] == 0

    def memory(self):
        """Bytes of it that are in memory."""
        pages = pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


def opened(test_class, *extra):
    """A server for all tests of a class."""
    server = Server(*extra)
    test_class.addClassCleanup(server.__exit__, None, None, None)
    return server


class Stream:
    """A streamed answer, event by event."""

    def __init__(self, server, path, **members):
        self.connection = server.connect()
        body = json.dumps({**members, "stream": True})
        self.connection.request("POST", path, body, {"Content-Type": "application/json"})
        self.response = self.connection.getresponse()
        if self.response.status != 200:
            raise AssertionError(f"status {self.response.status}: {self.response.read()}")

    def __iter__(self):
        """The events' JSON up to [DONE], after which the answer must end."""
        while True:
            line = self.response.readline()
            if not line:
                self.close()
                raise AssertionError("the stream ended without [DONE]")
            if not line.startswith(b"data: ") or self.response.readline() != b"\n":
                raise AssertionError(f"not an event: {line}")
            if line == b"data: [DONE]\n":
                assert self.response.read() == b"", "something comes after [DONE]"
                self.close()
                return
            yield json.loads(line[len(b"data: "):])

    def close(self):
        self.response.close()
        self.connection.close()


def text_of(choice):
    """The text of a choice of either endpoint, whole or a piece."""
    if "text" in choice:
        return choice["text"]
    return choice.get("message", choice.get("delta")).get("content") or ""


def run_tests(description):
    """Runs the calling file's tests against the program that --bin names; further words choose among them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True, help="cachalot, or the folder that holds it")
    parser.add_argument("tests", nargs="*", help="for example Answers or Answers.test_echo; all without one")
    args = parser.parse_args()
    World.open(args.bin.resolve())
    try:
        program = unittest.main(argv=[sys.argv[0], "-v", *args.tests], exit=False)
    finally:
        World.close()
    sys.exit(not program.result.wasSuccessful())
