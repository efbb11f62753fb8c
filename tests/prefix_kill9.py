#!/usr/bin/env python3
"""Kills a process that writes into a prefix store with SIGKILL at random moments, again and again.

    prefix_kill9.py PREFIX_CRASH WORK_DIR [--kills 1000] [--seed 1]

Each life (tests/prefix_crash.cc) opens the store that the last one left, compares every block it finds with what follows
from its tokens, looks whether all that former lives had acknowledged is there (flushed blocks, saved and deleted
contexts), and writes on. It is killed at a moment of its start, of its check, or of its writing. Every third folder is
so small that old blocks are given up all the time; there only what is found is checked. Prints kills, wrong answers
and failed starts; the latter two must be 0.
"""
import argparse
import os
import pathlib
import random
import select
import shutil
import subprocess
import sys
import time

ROOMY, TIGHT = 128 << 20, 6 << 20
LIVES_PER_FOLDER = 40


class Folder:
    """A store, and what its lives have acknowledged."""

    def __init__(self, path, bounded):
        self.path, self.bounded = path, bounded
        self.chains, self.contexts = {}, {}  # chain: blocks; name: (chain, blocks), 0 deleted, -1 not known

    def told(self):
        lines = [f"C {chain} {0 if self.bounded else blocks}" for chain, blocks in self.chains.items()]
        lines += [f"X {name} {chain} {blocks}" for name, (chain, blocks) in self.contexts.items()]
        return "".join(line + "\n" for line in lines).encode()

    def note(self, line):
        """Takes in one line of a life; returns the blocks it checked, for an OK."""
        kind, *words = line.split(" ")
        if kind == "OK":
            return int(words[0])
        if kind == "B":
            self.chains[int(words[0])] = 0
        elif kind == "F":
            self.chains[int(words[0])] = int(words[1])
        elif kind == "s":
            self.saving = (int(words[1]), int(words[2]))
            self.contexts[words[0]] = (int(words[1]), -1)
        elif kind == "S":
            self.contexts[words[0]] = self.saving
        elif kind == "d":
            self.contexts[words[0]] = (int(words[1]), -1)
        elif kind == "D":
            self.contexts[words[0]] = (0, 0)
        return None


def lines_until(process, text, deadline, wanted):
    """Reads stdout until a line begins with `wanted`, the end, or the deadline; complete lines only are of use."""
    fd = process.stdout.fileno()
    while time.monotonic() < deadline:
        if wanted and any(line.startswith(wanted) for line in text.decode().split("\n")[:-1]):
            break
        if select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            more = os.read(fd, 1 << 16)
            if not more:
                break
            text += more
    return text


def live(program, folder, number, rng):
    """One life; returns its complete lines and whether it ended by itself."""
    told = folder.path.parent / "told"
    told.write_bytes(folder.told())
    with told.open("rb") as stdin:
        process = subprocess.Popen([program, str(folder.path), str(number), str(TIGHT if folder.bounded else ROOMY)],
                                   stdin=stdin, stdout=subprocess.PIPE)
    text = b""
    if rng.random() < 0.25:  # while it starts
        text = lines_until(process, text, time.monotonic() + rng.uniform(0, 0.05), None)
    else:
        text = lines_until(process, text, time.monotonic() + 60, "OK")
        text = lines_until(process, text, time.monotonic() + rng.uniform(0, 0.03), None)
    alone = process.poll() is not None
    process.kill()
    text = lines_until(process, text, time.monotonic() + 60, "no line begins so")
    process.wait()
    process.stdout.close()
    return text.decode().split("\n")[:-1], alone or process.returncode != -9


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("work")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    o = parser.parse_args()
    rng = random.Random(o.seed)
    work = pathlib.Path(o.work).resolve()
    program = str(pathlib.Path(o.program).resolve())
    kills = wrong = failed = checked = before_ok = reports = 0
    began = time.monotonic()
    folder = None
    for number in range(o.kills):
        if number % LIVES_PER_FOLDER == 0:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            folder = Folder(work / "store", number // LIVES_PER_FOLDER % 3 == 2)
        lines, alone = live(program, folder, number, rng)
        kills += 1
        ok = False
        for line in lines:
            if line.startswith("WRONG"):
                print(f"kill {number}: {line}", flush=True)
                wrong += 1
            if line.startswith("R "):
                print(f"kill {number}: {line}", flush=True)
                reports += 1
            blocks = folder.note(line)
            if blocks is not None:
                ok, checked = True, checked + blocks
        before_ok += not ok
        if alone and not any(line.startswith("WRONG") for line in lines):
            print(f"kill {number}: it ended by itself: {lines[-3:]}", flush=True)
            failed += 1
    print(f"{kills} kills ({before_ok} of them before the check was done), {checked} blocks checked, {wrong} wrong "
          f"answers, {failed} failed starts, {reports} reports, {time.monotonic() - began:.0f} s")
    shutil.rmtree(work, ignore_errors=True)
    sys.exit(1 if wrong or failed or reports or checked == 0 else 0)


main()
