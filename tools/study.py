"""Runs of `cachalot train` that a study compares: resumable, each in a folder of its own, one or several at a time.

A folder holds asked.json (what makes the run what it is: a folder that holds another run is refused), the run itself, log.txt, and
finished.json as soon as it is whole. A finished run is not repeated; one that was interrupted goes on where its newest checkpoint
stands. Used by parity.py and design_study.py.
"""
import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

REPO = pathlib.Path(__file__).resolve().parents[1]
BIBLE = ["bible", "-f", "Gen1:1-Rev22:21"]


@dataclasses.dataclass(frozen=True)
class Run:
    name: str
    sets: tuple
    recipe: pathlib.Path = None  # None: the study's own


def short(path):
    """As seen from the repository, where the path lies in it; commands in the pages are given from there."""
    path = pathlib.Path(path).resolve()
    return str(path.relative_to(REPO)) if path.is_relative_to(REPO) else str(path)


def recipe_values(path):
    """The lines of a recipe that say something: a comment may change without making a run another one."""
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def newest(folder):
    """The newest line of a run's metrics that has a loss, or {}."""
    metrics = folder / "metrics.jsonl"
    for line in reversed(metrics.read_text().splitlines() if metrics.exists() else []):
        try:
            found = json.loads(line)
        except ValueError:  # being written
            continue
        if found.get("loss") is not None:
            return found
    return {}


class Driver:
    """`o` has cachalot, recipe, runs, corpus, threads, jobs, set and say_every; `name` stands before every message."""
    TEXT = "bible.txt"  # the file of the text where o.corpus names none

    def __init__(self, name, o):
        self.name = name
        self.o = o
        self.root = o.runs
        self.corpus = o.corpus or self.root / self.TEXT
        self.going = {}  # pid: (run, process)
        self.threads = o.threads  # of a run

    def say(self, text):
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)

    def leave(self, text):
        sys.exit(f"{self.name}: {text}")

    def make_corpus(self):
        if self.corpus.exists():
            return
        if self.o.corpus is not None:
            self.leave(f"--corpus {self.corpus}: there is no such file")
        if shutil.which(BIBLE[0]) is None:
            self.leave("the text is the King James Bible of Debian's package bible-kjv, which is not installed: "
                       "`tools/install_debian.sh demo` does that, or name a text of your own with --corpus FILE")
        part = self.corpus.with_suffix(".part")
        part.write_bytes(self.ordered(subprocess.run(BIBLE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout))
        part.rename(self.corpus)

    def ordered(self, bible):
        """The text as the study reads it."""
        return bible

    def recipe(self, run):
        return run.recipe or self.o.recipe

    def command(self, run):
        line = [short(self.o.cachalot), "--threads", str(self.threads), "train", short(self.recipe(run)), "--run",
                short(self.root / run.name)]
        for value in (f"data.corpus={short(self.corpus)}", *run.sets, *self.o.set):
            line += ["--set", value]
        return line

    def asked(self, run):
        return {"recipe": recipe_values(self.recipe(run)), "sets": [*run.sets, *self.o.set],
                "corpus": hashlib.sha256(self.corpus.read_bytes()).hexdigest()}

    def is_finished(self, run):
        folder = self.root / run.name
        asked = folder / "asked.json"
        if asked.exists() and json.loads(asked.read_text()) != self.asked(run):
            self.leave(f"{short(folder)} holds a run with another recipe, other --set values or another text; "
                       "remove it, or name another folder with --runs DIR")
        return (folder / "finished.json").exists()

    def start(self, run):
        folder = self.root / run.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "asked.json").write_text(json.dumps(self.asked(run), indent=1))
        resume = ["--resume"] if (folder / "recipe.toml").exists() else []
        line = self.command(run) + resume + ["--json"]
        self.say(f"{run.name}: {'goes on' if resume else 'begins'}")
        with (folder / "out.json").open("w") as out, (folder / "log.txt").open("a") as log:
            process = subprocess.Popen(line, executable=self.o.cachalot, cwd=REPO, stdin=subprocess.DEVNULL, stdout=out, stderr=log)
        self.going[process.pid] = (run, process)

    def finish(self, pid, status, usage):
        run, process = self.going.pop(pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        folder = self.root / run.name
        if process.returncode != 0:
            log = (folder / "log.txt").read_text().strip().splitlines()
            sys.exit(f"{self.name}: {run.name} failed: {log[-1] if log else 'without a word'}\n"
                     f"{' ' * len(self.name)}  its log: {short(folder / 'log.txt')}")
        result = json.loads((folder / "out.json").read_text())
        if result["ended"] != "done":
            self.leave(f"{run.name} was {result['ended']} at step {result['step']}; the same command goes on from there")
        info = json.loads(subprocess.run([self.o.cachalot, "info", "--json"], capture_output=True, check=True).stdout)
        machine = {key: info[key] for key in ("version", "cpu", "level", "cores", "memory_bytes")}
        done = {"command": self.command(run), "result": result, "machine": machine, "threads": self.threads,
                "jobs": self.o.jobs, "set": self.o.set, "peak_rss_bytes": usage.ru_maxrss * 1024}
        part = folder / "finished.part"
        part.write_text(json.dumps(done, indent=1))
        part.rename(folder / "finished.json")
        held_out = result["validation"]
        self.say(f"{run.name}: done in {result['seconds']:.0f} s, held out {held_out['nats_per_token']:.4f} nats per token, "
                 f"{held_out['bits_per_byte']:.4f} bits per byte")

    def rest(self, waiting):
        """What a line of progress ends with."""
        return f"{len(waiting)} wait"

    def progress(self, waiting, began):
        parts = []
        for run, _ in self.going.values():
            last = newest(self.root / run.name)
            parts.append(f"{run.name} step {last['step']}, loss {last['loss']:.3f}, {last['tokens_per_s']:.0f} tokens/s"
                         if last else f"{run.name} starts or evaluates")
        self.say(f"{time.monotonic() - began:.0f} s; " + "; ".join(parts) + f"; {self.rest(waiting)}")

    def train(self, runs, until=None):
        """Trains what is not finished, until then (of time.monotonic) at most. True if all are finished."""
        waiting = collections.deque(run for run in runs if not self.is_finished(run))
        if len(runs) > 1:
            self.say(f"{len(runs)} runs, {len(runs) - len(waiting)} of them finished before; {self.o.jobs} at a time, "
                     f"{self.threads} threads each")
        began = said = time.monotonic()
        try:
            while waiting or self.going:
                if until is not None and time.monotonic() >= until:
                    self.say("time is up; the same command goes on from here")
                    return False
                while waiting and len(self.going) < self.o.jobs:
                    self.start(waiting.popleft())
                for pid in list(self.going):
                    found, status, usage = os.wait4(pid, os.WNOHANG)
                    if found:
                        self.finish(pid, status, usage)
                time.sleep(0.2)
                if time.monotonic() - said >= self.o.say_every:
                    said = time.monotonic()
                    self.progress(waiting, began)
        finally:
            self.stop()
        return True

    def stop(self):
        """Runs that still go save and stop; `cachalot train` takes SIGTERM so."""
        for _, process in self.going.values():
            process.terminate()
        for run, process in self.going.values():
            process.wait()
            self.say(f"{run.name}: stopped; the same command goes on from there")
        self.going.clear()


def stop_on_sigterm(name):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(f"{name}: stopped"))


def add_arguments(parser, threads, jobs_help, runs):
    """The options that every study has."""
    parser.add_argument("--threads", type=int, default=threads, help=f"threads of a run ({threads}); results do not depend on it")
    parser.add_argument("--jobs", type=int, help=jobs_help)
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", help="for every run")
    parser.add_argument("--cachalot", type=pathlib.Path, default=REPO / "build/release/cachalot", metavar="FILE")
    parser.add_argument("--corpus", type=pathlib.Path, metavar="FILE", help="another text than the King James Bible")
    parser.add_argument("--runs", type=pathlib.Path, default=REPO / runs, metavar="DIR")
    parser.add_argument("--docs", type=pathlib.Path, default=REPO / "docs", metavar="DIR", help="where pages go")
    parser.add_argument("--say-every", type=float, default=20, metavar="SECONDS", help="between lines of progress")
    parser.add_argument("--pages-only", action="store_true", help="train nothing, write the pages of finished runs")


def check_arguments(parser, o):
    if o.seeds < 1 or o.threads < 1 or (o.jobs is not None and o.jobs < 1):
        parser.error("--seeds, --threads and --jobs have to be 1 at least")
    for name, value in vars(o).items():
        if isinstance(value, pathlib.Path):
            setattr(o, name, value.resolve())


def need_program(name, o):
    if not os.access(o.cachalot, os.X_OK):
        sys.exit(f"{name}: {short(o.cachalot)} cannot be run; build it (`make binary`), or name one with --cachalot")
