#!/usr/bin/env python3
"""The experiments of docs/experiments: runs of one recipe that differ in one thing, and the pages about them.

    tools/parity.py parity     bf16 against fp8, three seeds each; per-tensor scales and block-wise gradients beside
    tools/parity.py balance    the router's bias, none, and an auxiliary loss instead
    tools/parity.py mtp        without and with the MTP loss

Runs lie in runs/parity, one folder each. A finished run is not repeated, and one that was interrupted goes on where its newest
checkpoint stands: call the same command again. Runs that experiments share are trained once. The pages are written from
the folders alone, so they can be written again at any time (--pages-only).
"""
import argparse
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

import parity_numbers
import parity_pages

REPO = pathlib.Path(__file__).resolve().parents[1]
BIBLE = ["bible", "-f", "Gen1:1-Rev22:21"]


@dataclasses.dataclass(frozen=True)
class Run:
    name: str
    sets: tuple


def seed_run(kind, seed, *sets):
    return Run(f"{kind}-seed{seed}", (*sets, f"run.seed={seed}"))


def runs_of(experiment, seeds, control):
    """The runs of an experiment, in the order in which they are best started: what is compared runs side by side."""
    bf16, fp8 = "run.precision=bf16", "run.precision=fp8"
    base = [seed_run("bf16", seed, bf16) for seed in range(1, seeds + 1)]
    if experiment == "parity":
        pairs = [run for one in base for run in (one, seed_run("fp8", one.name[len("bf16-seed"):], fp8))]
        tensor = [f"numerics.{what}_tile=tensor" for what in ("activation", "gradient", "weight")]
        extra = [seed_run("fp8-tensor", 1, fp8, *tensor),
                 seed_run("fp8-block-gradients", 1, fp8, "numerics.gradient_tile=128x128")]
        return pairs + extra + ([seed_run("f32", 1, "run.precision=f32")] if control else [])
    if experiment == "balance":
        no_bias = [bf16, "loss.bias_gamma=0"]
        return base + [seed_run("no-bias", 1, *no_bias)] + [
            seed_run(f"aux-{alpha}", 1, *no_bias, "loss.balance_over=batch", f"loss.balance_alpha={alpha}")
            for alpha in parity_pages.AUX_ALPHAS]
    return base + [seed_run("no-mtp-loss", seed, bf16, "loss.mtp_lambda=0") for seed in range(1, seeds + 1)]


def say(text):
    print(f"parity: {text}", file=sys.stderr, flush=True)


def short(path):
    """As seen from the repository, where the path lies in it; commands in the pages are given from there."""
    path = pathlib.Path(path).resolve()
    return str(path.relative_to(REPO)) if path.is_relative_to(REPO) else str(path)


def recipe_values(path):
    """The lines of a recipe that say something: a comment may change without making a run another one."""
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


class Driver:
    def __init__(self, options):
        self.o = options
        self.root = options.runs
        self.corpus = options.corpus or self.root / "bible.txt"
        self.going = {}  # pid: (run, process)

    def make_corpus(self):
        if self.corpus.exists():
            return
        if self.o.corpus is not None:
            sys.exit(f"parity: --corpus {self.corpus}: there is no such file")
        if shutil.which(BIBLE[0]) is None:
            sys.exit("parity: the text is the King James Bible of Debian's package bible-kjv, which is not installed: "
                     "`tools/install_debian.sh demo` does that, or name a text of your own with --corpus FILE")
        part = self.corpus.with_suffix(".part")
        with part.open("wb") as out:
            subprocess.run(BIBLE, stdin=subprocess.DEVNULL, stdout=out, check=True)
        part.rename(self.corpus)

    def command(self, run):
        line = [short(self.o.cachalot), "--threads", str(self.o.threads), "train", short(self.o.recipe), "--run",
                short(self.root / run.name)]
        for value in (f"data.corpus={short(self.corpus)}", *run.sets, *self.o.set):
            line += ["--set", value]
        return line

    def asked(self, run):
        """What makes the run what it is; a folder that holds another one is refused."""
        return {"recipe": recipe_values(self.o.recipe), "sets": [*run.sets, *self.o.set],
                "corpus": hashlib.sha256(self.corpus.read_bytes()).hexdigest()}

    def is_finished(self, run):
        folder = self.root / run.name
        asked = folder / "asked.json"
        if asked.exists() and json.loads(asked.read_text()) != self.asked(run):
            sys.exit(f"parity: {short(folder)} holds a run with another recipe, other --set values or another text; "
                     "remove it, or name another folder with --runs DIR")
        return (folder / "finished.json").exists()

    def start(self, run):
        folder = self.root / run.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "asked.json").write_text(json.dumps(self.asked(run), indent=1))
        resume = ["--resume"] if (folder / "recipe.toml").exists() else []
        line = self.command(run) + resume + ["--json"]
        say(f"{run.name}: {'goes on' if resume else 'begins'}")
        with (folder / "out.json").open("w") as out, (folder / "log.txt").open("a") as log:
            process = subprocess.Popen(line, executable=self.o.cachalot, cwd=REPO, stdin=subprocess.DEVNULL, stdout=out, stderr=log)
        self.going[process.pid] = (run, process)

    def finish(self, pid, status, usage):
        run, process = self.going.pop(pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        folder = self.root / run.name
        if process.returncode != 0:
            log = (folder / "log.txt").read_text().strip().splitlines()
            sys.exit(f"parity: {run.name} failed: {log[-1] if log else 'without a word'}\n"
                     f"        its log: {short(folder / 'log.txt')}")
        result = json.loads((folder / "out.json").read_text())
        if result["ended"] != "done":
            sys.exit(f"parity: {run.name} was {result['ended']} at step {result['step']}; "
                     "the same command goes on from there")
        info = json.loads(subprocess.run([self.o.cachalot, "info", "--json"], capture_output=True, check=True).stdout)
        machine = {key: info[key] for key in ("version", "cpu", "level", "cores", "memory_bytes")}
        done = {"command": self.command(run), "result": result, "machine": machine, "threads": self.o.threads,
                "jobs": self.o.jobs, "set": self.o.set, "peak_rss_bytes": usage.ru_maxrss * 1024}
        part = folder / "finished.part"
        part.write_text(json.dumps(done, indent=1))
        part.rename(folder / "finished.json")
        held_out = result["validation"]["nats_per_token"]
        say(f"{run.name}: done in {result['seconds']:.0f} s, held out {held_out:.4f} nats per token")

    def progress(self, left, began):
        parts = []
        for run, _ in self.going.values():
            metrics = self.root / run.name / "metrics.jsonl"
            line = metrics.read_text().rpartition("\n")[0].rpartition("\n")[2] if metrics.exists() else ""
            last = json.loads(line) if line else {}
            loss = last.get("loss")
            parts.append(f"{run.name} step {last['step']}, loss {loss:.3f}, {last['tokens_per_s']:.0f} tokens/s"
                         if loss is not None else f"{run.name} starts or evaluates")
        say(f"{time.monotonic() - began:.0f} s; " + "; ".join(parts) + f"; {left} wait")

    def train(self, runs):
        waiting = collections.deque(run for run in runs if not self.is_finished(run))
        say(f"{len(runs)} runs, {len(runs) - len(waiting)} of them finished before; {self.o.jobs} at a time, "
            f"{self.o.threads} threads each")
        began = said = time.monotonic()
        try:
            while waiting or self.going:
                while waiting and len(self.going) < self.o.jobs:
                    self.start(waiting.popleft())
                for pid in list(self.going):
                    found, status, usage = os.wait4(pid, os.WNOHANG)
                    if found:
                        self.finish(pid, status, usage)
                time.sleep(0.2)
                if time.monotonic() - said >= self.o.say_every:
                    said = time.monotonic()
                    self.progress(len(waiting), began)
        finally:
            self.stop()

    def stop(self):
        """Runs that still go save and stop; `cachalot train` takes SIGTERM so."""
        for _, process in self.going.values():
            process.terminate()
        for run, process in self.going.values():
            process.wait()
            say(f"{run.name}: stopped; the same command goes on from there")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", choices=list(parity_pages.PAGES), metavar="EXPERIMENT",
                        help="parity, balance, mtp")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the runs that have several (3)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a run (1); results do not depend on it")
    parser.add_argument("--jobs", type=int, help="runs side by side; default: the cores over --threads")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", help="for every run")
    parser.add_argument("--control", action="store_true", help="parity: a float32 run too, as a mark for the noise")
    parser.add_argument("--cachalot", type=pathlib.Path, default=REPO / "build/release/cachalot", metavar="FILE")
    parser.add_argument("--recipe", type=pathlib.Path, default=REPO / "configs/parity.toml", metavar="FILE")
    parser.add_argument("--corpus", type=pathlib.Path, metavar="FILE", help="another text than the King James Bible")
    parser.add_argument("--runs", type=pathlib.Path, default=REPO / "runs/parity", metavar="DIR")
    parser.add_argument("--docs", type=pathlib.Path, default=REPO / "docs", metavar="DIR", help="where pages go")
    parser.add_argument("--say-every", type=float, default=20, metavar="SECONDS", help="between lines of progress")
    parser.add_argument("--pages-only", action="store_true", help="train nothing, write the pages of finished runs")
    o = parser.parse_args()
    if o.seeds < 1 or o.threads < 1 or (o.jobs is not None and o.jobs < 1):
        parser.error("--seeds, --threads and --jobs have to be 1 at least")
    o.jobs = o.jobs or max(1, (os.cpu_count() or 1) // o.threads)
    for name in ("cachalot", "recipe", "corpus", "runs", "docs"):
        if getattr(o, name) is not None:
            setattr(o, name, getattr(o, name).resolve())
    return o


def main():
    o = parse_arguments()
    runs = {one: runs_of(one, o.seeds, o.control) for one in o.experiments}
    if not o.pages_only:
        if not os.access(o.cachalot, os.X_OK):
            sys.exit(f"parity: {short(o.cachalot)} cannot be run; build it (`make binary`), or name one with --cachalot")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("parity: stopped"))
        o.runs.mkdir(parents=True, exist_ok=True)
        driver = Driver(o)
        driver.make_corpus()
        driver.train(list(dict.fromkeys(run for one in o.experiments for run in runs[one])))
    for one in o.experiments:
        missing = [run.name for run in runs[one] if not (o.runs / run.name / "finished.json").exists()]
        if missing:
            sys.exit(f"parity: no page about {one}: {', '.join(missing)} not finished")
        finished = {run.name: parity_numbers.Finished.read(o.runs / run.name) for run in runs[one]}
        for path in parity_pages.write(one, finished, o.docs):
            print(short(path))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("parity: stopped")
