#!/usr/bin/env python3
"""Runs transcripts of commands (tests/cli/*.test) and compares what they say.

A transcript reads like a terminal:

    # A comment. An empty line ends a command's expectation.
    $ cachalot info --thread 2
    ? 2                              exit status (0 where this line is missing)
    2> ...--threads...               a line that standard error must hold somewhere
    2!> ...terminate called...       a line that standard error must not hold
    some text ... more               otherwise: the lines of standard output, all of them, in order
    ...                              any number of lines
    json: r["threads"] >= 1          standard output is one JSON object `r`; this must be true

`...` inside a line stands for any text. When a command expects neither lines nor json, its standard output is
free. `$ ` commands are bash, run in one temporary folder per transcript, so one can make a file for the next.
$FIXTURES is tests/fixtures, $SOURCE the source tree; `cachalot` is the one just built.
A line `skip: BASH COMMAND` leaves the whole transcript out (status 77) when the command succeeds.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

SKIPPED = 77


class Step:
    def __init__(self, number, command):
        self.number, self.command, self.status = number, command, 0
        self.out, self.err, self.not_err, self.json = [], [], [], []


def parse(path):
    steps, skips, open_step = [], [], False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("$ "):
            steps.append(Step(number, line[2:]))
            open_step = True
        elif line.startswith("> ") and open_step:
            steps[-1].command += "\n" + line[2:]
        elif line.startswith("skip: "):
            skips.append(line[6:])
        elif not line.strip():
            open_step = False
        elif line.startswith("#") and not open_step:
            continue
        elif not open_step:
            raise SystemExit(f"{path}:{number}: text outside of a command's expectation: {line}")
        elif line.startswith("? "):
            steps[-1].status = int(line[2:].split()[0])
        elif line.startswith("2> "):
            steps[-1].err.append(line[3:])
        elif line.startswith("2!> "):
            steps[-1].not_err.append(line[4:])
        elif line.startswith("json: "):
            steps[-1].json.append(line[6:])
        else:
            steps[-1].out.append(line)
    if not steps:
        raise SystemExit(f"{path}: no command in this transcript")
    return steps, skips


def pattern(line):
    return re.compile(".*".join(re.escape(part) for part in line.split("...")))


def lines_match(want, got):
    """Whether the expected lines, with `...` lines standing for any number, are exactly the lines got."""
    if not want:
        return not got
    if want[0] == "...":
        return any(lines_match(want[1:], got[i:]) for i in range(len(got) + 1))
    return bool(got) and bool(pattern(want[0]).fullmatch(got[0])) and lines_match(want[1:], got[1:])


def problems(step, done):
    found = []
    if done.returncode != step.status:
        found.append(f"left with status {done.returncode}, not {step.status}")
    err = done.stderr.splitlines()
    for line in step.err:
        if not any(pattern(line).fullmatch(got) for got in err):
            found.append(f"standard error has no line: {line}")
    for line in step.not_err:
        if any(pattern(line).fullmatch(got) for got in err):
            found.append(f"standard error has the line: {line}")
    if step.out and not lines_match(step.out, done.stdout.splitlines()):
        found.append("standard output is not:\n" + "\n".join("        " + line for line in step.out))
    if step.json:
        try:
            result = json.loads(done.stdout)
        except ValueError as error:
            return found + [f"standard output is not one JSON object: {error}"]
        for text in step.json:
            try:
                if not eval(text, {"r": result}):  # transcripts are part of the source, as trusted as it is
                    found.append(f"not true: {text}")
            except Exception as error:  # a missing key reads like any other wrong answer
                found.append(f"{type(error).__name__}: {error} in: {text}")
    return found


def run(path, environment, timeout):
    steps, skips = parse(path)
    with tempfile.TemporaryDirectory() as folder:
        def bash(command):
            return subprocess.run(["bash", "-c", command], cwd=folder, env=environment, timeout=timeout,
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        for command in skips:
            if bash(command).returncode == 0:
                print(f"{path.name}: left out, since `{command}` succeeds")
                return SKIPPED
        for step in steps:
            try:
                done = bash(step.command)
            except subprocess.TimeoutExpired:
                print(f"{path.name}:{step.number}: $ {step.command}\n    not done after {timeout} s")
                return 1
            found = problems(step, done)
            if found:
                print(f"{path.name}:{step.number}: $ {step.command}")
                print("\n".join("    " + line for line in found))
                print(f"  status {done.returncode}\n  stdout:\n{done.stdout[:4000]}\n  stderr:\n{done.stderr[:4000]}")
                return 1
    print(f"{path.name}: {len(steps)} commands said what they should")
    return 0


def main():
    source = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True, help="folder that holds the built cachalot")
    parser.add_argument("--timeout", type=float, default=300, help="seconds a command may take")
    parser.add_argument("transcripts", type=pathlib.Path, nargs="+")
    args = parser.parse_args()
    environment = dict(os.environ, LC_ALL="C.UTF-8", SOURCE=str(source), TERM="dumb",
                       FIXTURES=os.environ.get("CACHALOT_FIXTURES") or str(source / "tests" / "fixtures"),
                       PATH=f"{args.bin.resolve()}:{os.environ['PATH']}")
    worst = 0
    for path in args.transcripts:
        worst = max(worst, run(path, environment, args.timeout))
    sys.exit(worst)


if __name__ == "__main__":
    main()
