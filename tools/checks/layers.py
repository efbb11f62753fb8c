#!/usr/bin/env python3
"""Fails on an #include between folders of src/ that tools/layers.txt does not allow."""
import re
import sys

from common import arguments, finish

INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')


def read_table(path):
    """{folder: (allowed, allowed in tests)}; checks that the table itself only points upwards."""
    table, problems = {}, []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        name, _, rest = line.partition(":")
        allowed, _, tests = rest.partition("|")
        for folder in allowed.split():
            if folder not in table:
                problems.append(f"{path.name}:{number}: {name.strip()} may not name {folder}: it is not above it")
        table[name.strip()] = (set(allowed.split()), set(tests.split()))
    return table, problems


def folder_of(relative, table):
    """The deepest folder of the table that holds a path relative to src/, or None."""
    parts = relative.split("/")[:-1]
    for depth in range(len(parts), 0, -1):
        if "/".join(parts[:depth]) in table:
            return "/".join(parts[:depth])
    return None


def main():
    root = arguments(__doc__).root
    src = root / "src"
    table, findings = read_table(root / "tools" / "layers.txt")
    looked_at = 0
    for path in sorted(p for p in src.rglob("*") if p.suffix in (".cc", ".h", ".cu", ".cuh")):
        looked_at += 1
        relative = path.relative_to(src).as_posix()
        mine = folder_of(relative, table)
        if mine is None:
            findings.append(f"src/{relative}: its folder has no line in tools/layers.txt")
            continue
        allowed, tests = table[mine]
        is_test = path.stem.endswith("_test")
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            target = match.group(1)
            if "/" not in target or not (src / target).exists():
                findings.append(f'src/{relative}:{number}: "{target}" is not a header below src/; '
                                "own headers are included rooted there, others in <>")
                continue
            theirs = folder_of(target, table)
            if theirs == mine or theirs in allowed or (is_test and theirs in tests):
                continue
            findings.append(f"src/{relative}:{number}: {mine} may not include {theirs} ({target}); "
                            "the doors are listed in tools/layers.txt")
    finish("layers", findings, looked_at)


if __name__ == "__main__":
    sys.exit(main())
