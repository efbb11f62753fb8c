"""What the checks share: where the sources are, and how a finding is told."""
import argparse
import pathlib
import subprocess
import sys

SOURCE_FOLDERS = ("src", "tests", "fuzz", "bench", "examples")


def arguments(description, add=None):
    parser = argparse.ArgumentParser(description=description)
    here = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--root", type=pathlib.Path, default=here, help="the tree to check")
    if add:
        add(parser)
    return parser.parse_args()


def sources(root):
    """Every C++ file of the tree, in a fixed order."""
    found = []
    for folder in SOURCE_FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".cc", ".h", ".cu", ".cuh") and path.is_file():
                found.append(path)
    return found


def tracked(root):
    """Every file git tracks (or would, if added); all files where there is no git."""
    out = subprocess.run(["git", "-C", str(root), "ls-files", "-co", "--exclude-standard"],
                         capture_output=True, text=True)
    if out.returncode == 0 and out.stdout:
        return [root / line for line in sorted(out.stdout.splitlines()) if (root / line).is_file()]
    return sorted(p for p in root.rglob("*") if p.is_file() and "build" not in p.parts)


def finish(name, findings, looked_at):
    """Prints the findings and leaves: 0 clean, 1 with findings or when nothing was looked at."""
    for line in findings:
        print(line)
    if looked_at == 0:
        print(f"{name}: found nothing to look at; is --root right?")
        sys.exit(1)
    if findings:
        print(f"{name}: {len(findings)} finding(s) in {looked_at} files")
        sys.exit(1)
    print(f"{name}: {looked_at} files are fine")
    sys.exit(0)
