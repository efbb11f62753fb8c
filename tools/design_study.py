#!/usr/bin/env python3
"""Does a model that `cachalot plan design` chose for this machine and an hour beat two that were chosen by hand?

    tools/design_study.py                  an hour a run, three seeds of three recipes, the King James Bible: nine hours
    tools/design_study.py --minutes 55     the same, but stops after 55 minutes; call it again to go on
    tools/design_study.py --record DIR     keeps what is finished in DIR too, a few MB, and goes on from there on another machine
    tools/design_study.py --pages-only     writes the page from what is finished

It measures this machine (cachalot plan probe), asks for a design and for the same details (dropout, weight decay, warm-up, ...) in
the recipes made by hand (cachalot plan design --beside configs/hand-*.toml), measures the steps of each that fit the time, in turns,
trains each for those on the same text, and writes docs/experiments/design.md with its pictures. First come all recipes with seed
1, then all with seed 2, and so on, so that a part of the study says something too. The Bible's chapters come in a drawn order
(tools/bible_chapters.py says why).

Everything lies in runs/design-study: the profile, the plan, the pace and a folder per run. A finished run is not repeated; one that
was interrupted, even by kill -9, goes on from its newest checkpoint: call the same command again. The time of a run is that of
its training steps; validations and checkpoints are not counted. Profile and pace want an idle machine. The runs do not: their steps
are fixed by then, and --jobs 2 shares the threads between two of them.
"""
import argparse
import hashlib
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

import bible_chapters
import design_pace
import design_pages
import parity_numbers
import study
from study import REPO, Run, short

NAME = "design_study"
HAND_MADE = ["configs/hand-demo.toml", "configs/hand-gpt.toml"]
# What a run takes besides its steps: validations, checkpoints, the text as tokens.
BESIDE_STEPS = 1.1


def minutes_of(budget):
    """`plan design` takes device hours; the machine is one device."""
    for unit, factor in (("min", 1), ("h", 60)):
        if budget.endswith(unit):
            try:
                value = float(budget[:-len(unit)])
            except ValueError:
                break
            if value > 0:
                return factor * value
    sys.exit(f"{NAME}: --budget {budget}: a time is needed, as in 1h or 90min")


def duration(minutes):
    minutes = max(0, round(minutes))
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


class Study(study.Driver):
    """The profile, the plan and the runs below o.runs."""
    TEXT = design_pages.CHAPTERS

    def __init__(self, o):
        super().__init__(NAME, o)
        self.profile = self.root / "machine.toml"
        self.plan_file = self.root / "plan.json"
        self.asked_file = self.root / "plan.asked.json"
        self.folder = self.root / "plan"
        self.threads = max(1, o.threads // o.jobs)
        self.pace_file = self.root / "pace.json"
        self.limit = minutes_of(o.budget)
        self.plan = self.pace = None  # as soon as they are made

    def ordered(self, bible):
        return bible_chapters.drawn(bible)

    def cachalot(self, *arguments):
        line = [short(self.o.cachalot), *arguments]
        self.say(shlex.join(line))
        done = subprocess.run(line, executable=self.o.cachalot, cwd=REPO, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            self.leave(f"{shlex.join(line)} failed:\n{done.stderr.strip()[-2000:]}")
        return done.stdout

    def probe_command(self):
        return ["--threads", str(self.o.threads), "plan", "probe", "--disk-mib", "0", "--formats", "bf16", "--out", short(self.profile)]

    def plan_command(self):
        line = ["plan", "design", "--hardware", short(self.profile), "--budget", self.o.budget, "--corpus", short(self.corpus),
                "--precision", self.o.precision]
        for recipe in self.o.beside:
            line += ["--beside", short(recipe)]
        return line + ["--out", short(self.folder)]

    def plan_asked(self):
        asked = {"command": self.plan_command(), "corpus": hashlib.sha256(self.corpus.read_bytes()).hexdigest(),
                 "profile": hashlib.sha256(self.profile.read_bytes()).hexdigest()}
        return {**asked, "beside": [study.recipe_values(recipe) for recipe in self.o.beside]}

    def make_profile(self):
        if self.o.hardware is not None:
            if not self.o.hardware.exists():
                self.leave(f"--hardware {self.o.hardware}: there is no such file")
            if not self.profile.exists():
                self.profile.write_bytes(self.o.hardware.read_bytes())
        elif not self.profile.exists():
            self.cachalot(*self.probe_command())

    def make_plan(self):
        """The plan is made once: a later version of the program, or another minute's profile, would change what is compared."""
        if self.plan_file.exists():
            if json.loads(self.asked_file.read_text()) != self.plan_asked():
                self.leave(f"{short(self.root)} holds a study with another budget, precision, text, profile or other recipes; "
                           "remove it, or name another folder with --runs DIR")
        else:
            text = self.cachalot(*self.plan_command(), "--json")
            self.asked_file.write_text(json.dumps(self.plan_asked(), indent=1))
            part = self.plan_file.with_suffix(".part")
            part.write_text(text)
            part.rename(self.plan_file)
        return json.loads(self.plan_file.read_text())

    def arms(self):
        names = ["design", *(one["name"] for one in self.plan["by_hand"])]
        return [(name, self.folder / ("recipe.toml" if name == "design" else f"{name}.toml")) for name in names]

    def make_pace(self):
        """Measured once, as the plan is."""
        if not self.pace_file.exists():
            if self.o.pages_only:
                self.leave(f"no page: {short(self.pace_file)} is missing, so nothing was trained yet")
            pace = design_pace.measure(self, self.arms(), self.o.pace_turns, self.o.pace_seconds)
            part = self.pace_file.with_suffix(".part")
            part.write_text(json.dumps(pace, indent=1))
            part.rename(self.pace_file)
        return json.loads(self.pace_file.read_text())

    def runs(self):
        """All recipes with seed 1, then all with seed 2, ..."""
        runs = []
        for seed in range(1, self.o.seeds + 1):
            for name, recipe in self.arms():
                steps = self.pace[name]["steps"]
                # A checkpoint every other minute of an hour; some hundred lines are enough for a picture.
                sets = [f"schedule.steps={steps}", "run.fit_minutes=0", "run.max_minutes=0", f"run.seed={seed}",
                        f"run.eval_every={max(1, round(steps / (self.o.validations + 1)))}",
                        f"run.checkpoint_every={max(1, round(steps / 30))}", f"run.log_every={max(1, round(steps / 500))}"]
                runs.append(Run(f"{name}-seed{seed}", tuple(sets), recipe))
        return runs

    def rest(self, waiting):
        behind = len(waiting)
        minutes = BESIDE_STEPS * self.limit * behind
        for run, _ in self.going.values():
            steps = next(int(value.split("=")[1]) for value in run.sets if value.startswith("schedule.steps="))
            minutes += BESIDE_STEPS * self.limit * (1 - study.newest(self.root / run.name).get("step", 0) / steps)
        return f"{behind} wait; about {duration(minutes)} left on this machine alone"

    def take_record(self):
        """What another machine finished lies where it would if this one had; a run begun here makes way for a whole one."""
        files = [path for path in self.o.record.rglob("*") if path.is_file()] if self.o.record else []
        ours = {path.parent for path in self.root.glob("*/finished.json")}
        for path in sorted(files, key=lambda path: (path.name == "finished.json", path)):
            here = self.root / path.relative_to(self.o.record)
            whole = (path.parent / "finished.json").exists() and here.parent not in ours
            if whole or not here.exists():
                here.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, here)

    def keep(self, paths):
        for path in paths if self.o.record else []:
            there = self.o.record / path.relative_to(self.root)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, there)

    def finish(self, pid, status, usage):
        """The page is written again as soon as it would say more."""
        folder = self.root / self.going[pid][0].name
        super().finish(pid, status, usage)
        self.keep([folder / name for name in ("asked.json", "metrics.jsonl", "finished.json")])
        self.write_page()

    def write_page(self):
        """The page of what is finished; nothing without a run of each recipe."""
        runs = self.runs()
        finished = {run.name: parity_numbers.Finished.read(self.root / run.name) for run in runs
                    if (self.root / run.name / "finished.json").exists()}
        commands = ([] if self.o.hardware else [[short(self.o.cachalot), *self.probe_command()]])
        commands.append([short(self.o.cachalot), *self.plan_command()])
        commands += [self.command(run) for run in runs]
        told = design_pages.Told(self.plan, self.pace, self.limit, self.o, commands, self.corpus, short(self.corpus), self.folder)
        written = design_pages.write(told, [run.name for run in runs], finished)
        if not written:
            self.say("no page yet: it needs a finished run of each recipe")
        for path in written:
            print(short(path))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="1h", metavar="TIME", help="of each run: 1h, 90min (1h)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each recipe (3)")
    parser.add_argument("--beside", type=pathlib.Path, action="append", metavar="RECIPE.toml",
                        help="a recipe made by hand, instead of configs/hand-demo.toml and configs/hand-gpt.toml; several times")
    parser.add_argument("--hardware", type=pathlib.Path, metavar="FILE", help="a profile, instead of measuring this machine")
    parser.add_argument("--precision", choices=["f32", "bf16", "fp8"], default="bf16", help="of every run (bf16)")
    parser.add_argument("--pace-turns", type=int, default=5, metavar="N", help="measurements of each recipe's speed (5)")
    parser.add_argument("--pace-seconds", type=float, default=30, metavar="N", help="of each of them (30)")
    parser.add_argument("--record", type=pathlib.Path, metavar="DIR",
                        help="a copy of profile, plan, pace and finished runs without their checkpoints: what is there is taken as "
                             "finished, what gets finished goes there")
    parser.add_argument("--validations", type=int, default=3, metavar="N", help="of a run before its end, for the picture (3)")
    parser.add_argument("--minutes", type=float, default=0, metavar="N",
                        help="stop after so long, saved; the same command goes on (0: train to the end)")
    parser.add_argument("--plan-only", action="store_true", help="profile, plan and pace alone; trains nothing")
    study.add_arguments(parser, os.cpu_count() or 1, "runs side by side, which share the threads (1)",
                        "runs/design-study")
    o = parser.parse_args()
    o.beside = [path.resolve() for path in o.beside or [REPO / name for name in HAND_MADE]]
    study.check_arguments(parser, o)
    if o.validations < 0 or o.minutes < 0:
        parser.error("--validations and --minutes have to be 0 at least")
    if o.pace_turns < 1 or not o.pace_seconds > 0:
        parser.error("--pace-turns has to be 1 at least, --pace-seconds more than 0")
    for path in o.beside:
        if not path.exists():
            parser.error(f"--beside {path}: there is no such file")
    o.jobs = o.jobs or 1
    return o


def main():
    o = parse_arguments()
    driver = Study(o)
    until = time.monotonic() + 60 * o.minutes if o.minutes else None
    driver.take_record()
    if o.pages_only:
        if not driver.plan_file.exists():
            driver.leave(f"no page: there is no study in {short(o.runs)}")
        driver.make_corpus()
    else:
        study.need_program(NAME, o)
        study.stop_on_sigterm(NAME)
        o.runs.mkdir(parents=True, exist_ok=True)
        driver.make_corpus()
        driver.make_profile()
    driver.plan = driver.make_plan()
    best = driver.plan["best"]
    driver.say(f"the design: {best['layers']} layers of {best['hidden_size']}, "
               + (f"{best['experts']} experts" if best["experts"] else "dense")
               + f", {best['active_parameters'] / 1e6:.2f} M active parameters, {best['tokens_per_s']:.0f} tokens/s predicted")
    driver.pace = driver.make_pace()
    driver.keep([driver.profile, driver.plan_file, driver.asked_file, driver.pace_file, *sorted(driver.folder.iterdir())])
    if o.plan_only:
        return
    runs = driver.runs()
    missing = [] if o.pages_only else [run for run in runs if not driver.is_finished(run)]
    driver.say(f"{len(runs)} runs of {o.budget}, {sum((o.runs / run.name / 'finished.json').exists() for run in runs)} finished")
    if missing:
        driver.train(missing, until)
    else:
        driver.write_page()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(f"{NAME}: stopped")
