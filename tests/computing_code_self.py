#!/usr/bin/env python3
"""The fingerprint of the code that computes (cmake/computing_code.cmake): what changes it, and what does not.

    tests/computing_code_self.py [--cmake CMAKE] [--built BUILD_DIR]

With --built also that the sources it was taken of there are those of all folders that a pass is made of.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = {"src/kernels/gemm.cc": "int gemm() { return 1; }\n", "src/nn/mla.h": "// a; b [c] \\ d\n"}


class Tree:
    def __init__(self, folder, cmake):
        self.folder, self.cmake = pathlib.Path(folder), cmake
        self.list, self.out = self.folder / "list.txt", self.folder / "out.cc"
        self.list_text(SOURCES)
        for name, text in SOURCES.items():
            self.write(name, text)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def list_text(self, names, flags="GNU 12.2.0;-O2"):
        self.list.write_text(flags + "\n" + "".join(name + "\n" for name in names))

    def fingerprint(self):
        subprocess.run([self.cmake, f"-DROOT={self.folder}", f"-DLIST={self.list}", f"-DOUT={self.out}", "-P",
                        str(ROOT / "cmake/computing_code.cmake")], check=True)
        return re.search(r'return "([0-9a-f]{32})";', self.out.read_text()).group(1)


def check_built(build):
    listed = set((build / "generated/computing_code.txt").read_text().splitlines())
    includes = {}
    for line in (ROOT / "tools/layers.txt").read_text().splitlines():
        name, colon, rest = line.split("#")[0].partition(":")
        if colon:
            includes[name.strip()] = rest.partition("|")[0].split()
    for folder in [*includes["model"], "model", "kernels/cpu"]:
        for path in (ROOT / "src" / folder).iterdir():
            if path.suffix in (".cc", ".h") and not path.stem.endswith("_test"):
                assert path.relative_to(ROOT).as_posix() in listed, f"{path} is not in the fingerprint"
    assert not any("_test." in name for name in listed), "tests are no part of it"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cmake", default="cmake")
    parser.add_argument("--built", type=pathlib.Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        tree = Tree(one, args.cmake)
        first = tree.fingerprint()
        # Neither the folder nor the time; and nothing is written where nothing changed.
        assert Tree(two, args.cmake).fingerprint() == first, "the folder changed it"
        os.utime(tree.out, (1, 1))
        for name in SOURCES:
            os.utime(tree.folder / name)
        assert tree.fingerprint() == first, "the time changed it"
        assert tree.out.stat().st_mtime == 1, "an equal result was written again"
        seen = {first}

        def changed(what):
            now = tree.fingerprint()
            assert now not in seen, f"{what} did not change it"
            seen.add(now)

        tree.write("src/kernels/gemm.cc", "int gemm() { return 2; }\n")
        changed("an edit")
        tree.list_text(SOURCES, "GNU 12.2.0;-O3")
        changed("a flag")
        tree.list_text(list(SOURCES)[:1])
        changed("a source less")
        tree.write("src/kernels/other.cc", "int gemm() { return 2; }\n")
        tree.list_text(["src/kernels/other.cc"])
        changed("a new name")
    if args.built is not None:
        check_built(args.built)
    print("computing code: what changes the fingerprint, and what does not, is right")


if __name__ == "__main__":
    sys.exit(main())
