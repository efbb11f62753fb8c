#!/usr/bin/env python3
"""The transcript runner must notice what is wrong: each transcript here is run, and must end as said."""
import pathlib
import subprocess
import sys
import tempfile

CASES = [
    ("all as said", "$ echo one; echo two; echo three; exit 3\n? 3\none\n...\nthree\n", 0),
    ("text in a line", "$ echo took 12 ms\ntook ... ms\n", 0),
    ("wrong status", "$ exit 1\n", 1),
    ("status 0 but 1 was asked", "$ true\n? 1\n", 1),
    ("a line too many", "$ echo one; echo two\none\n", 1),
    ("a line too few", "$ echo one\none\ntwo\n", 1),
    ("another line", "$ echo one\ntwo\n", 1),
    ("a dot is a dot", "$ echo a.b\na.b\n\n$ echo axb\na.b\n", 1),
    ("error line there", "$ echo no such flag --x >&2; exit 2\n? 2\n2> ...--x...\n", 0),
    ("error line missing", "$ echo bad >&2; exit 2\n? 2\n2> ...--x...\n", 1),
    ("forbidden error line", "$ echo Aborted >&2\n2!> ...Aborted...\n", 1),
    ("json true", "$ echo '{\"a\": [1, 2]}'\njson: r['a'][1] == 2\n", 0),
    ("json false", "$ echo '{\"a\": 1}'\njson: r['a'] == 2\n", 1),
    ("json key missing", "$ echo '{}'\njson: r['a'] == 2\n", 1),
    ("not json", "$ echo hello\njson: True\n", 1),
    ("a file lives on", "$ echo hi > f\n\n$ cat f\nhi\n", 0),
    ("several lines", "$ cat <<'X'\n> hi\n> X\nhi\n", 0),
    ("killed by a signal", "$ kill -SEGV $$\n", 1),
    ("too slow", "$ sleep 30\n", 1),
    ("left out", "skip: true\n$ false\n", 77),
    ("not left out", "skip: false\n$ false\n", 1),
    ("nothing to run", "# only a comment\n", 1),
    ("stray text", "stray\n$ true\n", 1),
]

runner = pathlib.Path(__file__).with_name("run.py")
failed = 0
with tempfile.TemporaryDirectory() as folder:
    for name, text, want in CASES:
        path = pathlib.Path(folder) / "case.test"
        path.write_text(text)
        got = subprocess.run([sys.executable, str(runner), "--bin", folder, "--timeout", "3", str(path)],
                             capture_output=True, text=True)
        if got.returncode != want:
            failed += 1
            print(f"{name}: ended with {got.returncode}, not {want}\n{got.stdout}{got.stderr}")
print(f"{len(CASES)} transcripts, {failed} ended otherwise than they should")
sys.exit(1 if failed else 0)
