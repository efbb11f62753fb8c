#!/usr/bin/env python3
"""Fails where clang-format (14, .clang-format) would write a source file another way; --fix rewrites."""
import shutil
import subprocess
import sys

from common import arguments, finish, sources


def clang_format():
    for name in ("clang-format-14", "clang-format"):
        if shutil.which(name):
            return name
    print("format: there is no clang-format here; tools/install_debian.sh test installs it")
    sys.exit(1)


def main():
    args = arguments(__doc__, lambda p: p.add_argument("--fix", action="store_true"))
    files = sources(args.root)
    if not files:
        finish("format", [], 0)
    mode = ["-i"] if args.fix else ["--dry-run", "-Werror", "--ferror-limit=1"]
    names = [str(path.relative_to(args.root)) for path in files]
    out = subprocess.run([clang_format(), "--style=file", *mode, *names], cwd=args.root,
                         capture_output=True, text=True)
    findings = [line for line in out.stderr.splitlines() if ": error:" in line]
    if out.returncode != 0 and not findings:
        findings = [out.stderr.strip() or f"clang-format left with {out.returncode}"]
    if findings:
        print("`make format` rewrites these:")
    finish("format", findings, len(files))


if __name__ == "__main__":
    main()
