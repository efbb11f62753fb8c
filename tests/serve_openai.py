#!/usr/bin/env python3
"""`cachalot serve` as OpenAI's own client for Node sees it (serve_openai.mjs).

    tests/serve_openai.py --bin BUILD

Fetches the npm package, or takes the node_modules folder that $CACHALOT_NODE_MODULES names; leaves with 77 where neither it
nor node is to be had.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys

from serve_client import Server, World, generate

PACKAGE = "openai@5.12.0"  # runs on Node 18 and later
KEY = "0123456789abcdef-node"
SKIPPED = 77


def skip(why):
    print(f"serve_openai: left out, since {why}")
    sys.exit(SKIPPED)


def fetch(folder):
    modules = os.environ.get("CACHALOT_NODE_MODULES")
    if modules:
        (folder / "node_modules").symlink_to(pathlib.Path(modules).resolve())
        return
    if shutil.which("npm") is None:
        skip("there is no npm, and $CACHALOT_NODE_MODULES is not set")
    done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", PACKAGE],
                          cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        skip(f"npm could not fetch {PACKAGE}: {done.stderr.strip()[:400]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True, help="cachalot, or the folder that holds it")
    args = parser.parse_args()
    if shutil.which("node") is None:
        skip("there is no node")
    World.open(args.bin.resolve())
    try:
        fetch(World.folder)
        script = shutil.copy(pathlib.Path(__file__).with_suffix(".mjs"), World.folder)  # imports start at its folder
        keys = World.folder / "keys"
        keys.write_text(f"node {KEY}\n")
        keys.chmod(0o600)
        text = generate("--prompt", "123", "--max-tokens", "40")["text"]
        with Server("--api-keys", keys) as server:
            command = ["node", script, server.ready["address"], server.ready["model"], KEY, json.dumps(text)]
            done = subprocess.run(command, timeout=120)
        sys.exit(done.returncode)
    finally:
        World.close()


if __name__ == "__main__":
    main()
