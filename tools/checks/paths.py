#!/usr/bin/env python3
"""Fails where a tracked file names an absolute path that only one machine has."""
import re

from common import arguments, finish, tracked

# An absolute path of two or more parts, not inside a word, a URL, a variable, a regular expression or a closing tag.
PATH = re.compile(r"""(?<!\w["'])(?<![\w.:/<>#*$)}\]~%+^|&-])/([A-Za-z][\w-]*)/[\w.-]+""")
# First parts that every Debian has, and those of the HTTP API.
FINE = {"bin", "dev", "etc", "lib", "lib64", "opt", "proc", "run", "sbin", "srv", "sys", "tmp", "usr", "var", "v1", "api"}
SKIP = {".safetensors", ".png", ".svg", ".gz", ".bin"}


def main():
    root = arguments(__doc__).root
    findings, looked_at = [], 0
    for path in tracked(root):
        relative = path.relative_to(root)
        if path.suffix in SKIP or relative.as_posix().startswith("tests/fixtures/"):
            continue
        if relative.parts[0] == "third_party" and path.suffix == ".js":  # unchanged, and full of regular expressions
            continue
        looked_at += 1
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            for match in PATH.finditer(line):
                if match.group(1) not in FINE:
                    findings.append(f"{relative}:{number}: {match.group(0)} is a path of one machine; "
                                    "use a relative path, a variable or a temporary folder")
    finish("paths", findings, looked_at)


if __name__ == "__main__":
    main()
