#!/usr/bin/env python3
"""Every check must be able to fail: plants one violation after the other in a small tree and looks at the answer."""
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
CLEAN = {
    "src/base/error.h": "#pragma once\nint base_value();\n",
    "src/base/error.cc": '#include "base/error.h"\n\nint base_value() { return 1; }\n',
    "src/model/graph.cc": '#include "base/error.h"\n\nint graph() { return base_value(); }\n',
    "src/kernels/cpu/simd.h": "#pragma once\n",
    "README.md": "Lies in /usr/share/common-licenses, runs `build/release/cachalot`.\n",
}


def long_body(lines):
    return "".join(f"  x += {i};\n" for i in range(lines))


# check, what is planted, what the answer must hold ("" = must pass)
CASES = [
    ("layers", {}, ""),
    ("layers", {"src/base/error.cc": '#include "model/graph.h"\n', "src/model/graph.h": "\n"}, "base may not include model"),
    ("layers", {"src/model/graph.cc": '#  include "kernels/cpu/simd.h"\n'}, "model may not include kernels/cpu"),
    ("layers", {"src/model/graph_test.cc": '#include "testing/f.h"\n', "src/testing/f.h": "\n"}, ""),
    ("layers", {"src/model/graph.cc": '#include "testing/f.h"\n', "src/testing/f.h": "\n"}, "model may not include testing"),
    ("layers", {"src/model/graph.cc": '#include "graph.h"\n'}, "is not a header below src/"),
    ("layers", {"src/attic/old.cc": "\n"}, "has no line in tools/layers.txt"),
    ("layers", {"tools/layers.txt": "base: model\nmodel: base\nkernels/cpu:\n"}, "it is not above it"),
    ("sizes", {}, ""),
    ("sizes", {"src/base/error.cc": "// one line\n" * 801}, "801 lines"),
    ("sizes", {"src/base/error.cc": "// one line\n" * 800}, ""),
    ("sizes", {"src/base/error.cc": f"int f() {{\n  int x = 0;\n{long_body(118)}  return x;\n}}\n"}, "a function of 122 lines"),
    ("sizes", {"src/base/error.cc": f"int f() {{\n  int x = 0;\n{long_body(116)}  return x;\n}}\n"}, ""),
    ("sizes", {"src/base/error.cc": "namespace a {\nstruct S {\n  template <class T>\n  int f(T) const {\n    int x = 0;\n"
                                    + long_body(120) + "    return x;\n  }\n};\n}\n"}, "src/base/error.cc:3: a function of"),
    ("sizes", {"src/base/error.cc": "namespace a {\n" + "int f();\n" * 300 + "}\n"}, ""),
    ("sizes", {"src/base/error.cc": "BEGIN_TARGET(\"avx2\")\nnamespace a {\n" + "int f();\n" * 300 + "}\n"}, ""),
    ("sizes", {"src/base/error.cc": "struct S f(struct T t) {\n" + long_body(130) + "}\n"}, "a function of 132 lines"),
    ("sizes", {"src/base/error.cc": "struct alignas(64) S {\n" + "  int f();\n" * 300 + "};\n"}, ""),
    ("sizes", {"src/base/error.cc": "const char* k = R\"(\n" + "{\n" * 200 + ")\";\nint f() { return 1; }\n"}, ""),
    ("paths", {}, ""),
    ("paths", {"README.md": "See #/properties/age, a place in a JSON document.\n"}, ""),
    ("paths", {"README.md": "See /ho" "me/someone/notes.txt.\n"}, "is a path of one machine"),
    ("paths", {"src/base/error.cc": 'const char* k = "/da' 'ta/models/v3";\n'}, "is a path of one machine"),
    ("format", {}, ""),
    ("format", {"src/base/error.cc": "int  f( ){return 1;}\n"}, "src/base/error.cc:1"),
]


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


failed = 0
for check, planted, want in CASES:
    with tempfile.TemporaryDirectory() as name:
        tree = pathlib.Path(name)
        write(tree, CLEAN)
        write(tree, {"tools/layers.txt": (ROOT / "tools/layers.txt").read_text(),
                     ".clang-format": (ROOT / ".clang-format").read_text()})
        write(tree, planted)
        got = subprocess.run([sys.executable, str(ROOT / "tools/checks" / f"{check}.py"), "--root", name],
                             capture_output=True, text=True)
        answer = got.stdout + got.stderr
        right = got.returncode == 0 if want == "" else got.returncode == 1 and want in answer
        if not right:
            failed += 1
            print(f"{check} with {list(planted)}: wanted {want or 'a pass'!r}, got {got.returncode}:\n{answer}")
for check in ("layers", "sizes", "format", "paths"):
    with tempfile.TemporaryDirectory() as name:
        write(pathlib.Path(name), {"tools/layers.txt": "base:\n"})
        if check == "paths":
            (pathlib.Path(name) / "tools/layers.txt").unlink()
        (pathlib.Path(name) / "src").mkdir()
        got = subprocess.run([sys.executable, str(ROOT / "tools/checks" / f"{check}.py"), "--root", name],
                             capture_output=True, text=True)
        if got.returncode == 0:
            failed += 1
            print(f"{check} passes where there is nothing to look at")
print(f"{len(CASES) + 4} plants, {failed} answered wrongly")
sys.exit(1 if failed else 0)
