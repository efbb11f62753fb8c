#!/usr/bin/env python3
"""clang-tidy with .clang-tidy over the sources; any finding fails. Needs build/tidy configured (`make tidy`)."""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

from common import arguments, finish

INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.M)


def options(parser):
    parser.add_argument("--build", type=pathlib.Path, required=True, help="folder with compile_commands.json")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--changed-since", metavar="REV", help="only files that differ from this commit")
    parser.add_argument("--only", metavar="REGEX", help="only files whose path matches")
    parser.add_argument("--limit", type=float, default=3600, metavar="SECONDS",
                        help="fail if not done by then")
    parser.add_argument("--budget", type=float, metavar="SECONDS",
                        help="look at the files last changed first, and leave the rest when this time is over")


def closure(path, src, seen):
    """path and every header of src/ that it includes, directly or not."""
    if path in seen:
        return seen
    seen.add(path)
    for name in INCLUDE.findall(path.read_text(errors="replace")):
        if (src / name).is_file():
            closure(src / name, src, seen)
    return seen


def changed_files(root, revision):
    out = subprocess.run(["git", "-C", str(root), "diff", "--name-only", "--merge-base", revision],
                         capture_output=True, text=True)
    if out.returncode != 0:
        sys.exit(f"tidy: git diff against {revision}: {out.stderr.strip()}")
    return {root / line for line in out.stdout.split()}


def last_changed(root):
    """The place of each file in the history, newest first."""
    out = subprocess.run(["git", "-C", str(root), "log", "--format=", "--name-only", "-n", "400"],
                         capture_output=True, text=True)
    place = {}
    for line in out.stdout.splitlines():
        place.setdefault(root / line, len(place))
    return place


def main():
    args = arguments(__doc__, options)
    root = args.root.resolve()
    tool = shutil.which("clang-tidy-14") or shutil.which("clang-tidy")
    if not tool:
        sys.exit("tidy: there is no clang-tidy here; tools/install_debian.sh check installs it")
    database = args.build / "compile_commands.json"
    if not database.exists():
        sys.exit(f"tidy: {database} is missing: `cmake --preset tidy` writes it")
    commands = {pathlib.Path(entry["file"]): entry["command"] for entry in json.loads(database.read_text())}
    files = sorted(f for f in commands if f.is_relative_to(root / "src") and f.exists())
    changed = changed_files(root, args.changed_since) if args.changed_since else None
    rules = (root / ".clang-tidy").read_bytes()
    cache = args.build / "tidy-cache"
    cache.mkdir(exist_ok=True)

    todo = []
    for file in files:
        if args.only and not re.search(args.only, str(file.relative_to(root))):
            continue
        parts = closure(file, root / "src", set())
        if changed is not None and not parts & changed:
            continue
        # A file whose text, headers, flags and rules are those of a clean run needs no second one.
        digest = hashlib.sha256(rules + commands[file].replace(str(root), "").encode())
        for part in sorted(parts):
            digest.update(part.read_bytes())
        todo.append((file, cache / digest.hexdigest()))

    if args.budget:
        place = last_changed(root)
        todo.sort(key=lambda item: place.get(item[0], len(place)))
    began = time.monotonic()
    deadline = began + args.limit
    left_out = []

    def check(item):
        file, clean = item
        if clean.exists():
            return []
        if args.budget and time.monotonic() - began > args.budget:
            left_out.append(file)
            return []
        left = deadline - time.monotonic()
        if left <= 0:
            return [f"{file.relative_to(root)}: not looked at: {args.limit:.0f} s were over"]
        try:
            out = subprocess.run([tool, "-p", str(args.build), "--quiet", "--warnings-as-errors=*", str(file)],
                                 capture_output=True, text=True, timeout=left)
        except subprocess.TimeoutExpired:
            return [f"{file.relative_to(root)}: not finished: {args.limit:.0f} s were over"]
        findings = [line.replace(str(root) + "/", "") for line in out.stdout.splitlines()
                    if ": error:" in line or ": warning:" in line]
        if out.returncode != 0 and not findings:
            findings = [f"{file.relative_to(root)}: clang-tidy failed: {out.stderr.strip()[-2000:]}"]
        if not findings:
            clean.touch()
        return findings

    findings = set()
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for lines in pool.map(check, todo):
            findings.update(lines)
    if changed is not None and not todo:
        print(f"tidy: nothing differs from {args.changed_since}")
        return
    if left_out:
        print(f"tidy: {args.budget:.0f} s were over: {len(left_out)} older files are left to `make tidy`")
    finish("tidy", sorted(findings), len(todo) - len(left_out))


if __name__ == "__main__":
    main()
