#!/usr/bin/env python3
"""How much sooner a prompt is answered again after kill -9, from the prefix store on disk.

    tests/restart.py CACHALOT MODEL [--tokens 4096] [--precision bf16]

Starts `cachalot generate` on a prompt of random tokens with an empty store, kills it with SIGKILL when some tokens of the
answer have come, and asks again in a new process. Prints both times to the first token (from the start of the request,
loading apart) and their ratio; fails where the second answer differs from one without a store, or where nothing was found.
"""
import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cachalot")
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=4096, help="length of the prompt (%(default)s)")
    parser.add_argument("--new", type=int, default=24, help="tokens of the answer (%(default)s)")
    parser.add_argument("--precision", default="bf16", help="as for generate (%(default)s)")
    args = parser.parse_args()
    vocab = json.loads((pathlib.Path(args.model) / "config.json").read_text())["vocab_size"]
    draw = random.Random(7)
    with tempfile.TemporaryDirectory() as folder:
        prompt = pathlib.Path(folder) / "prompt"
        prompt.write_text(",".join(str(draw.randrange(vocab)) for _ in range(args.tokens)))
        base = [args.cachalot, "generate", args.model, "--tokens", f"@{prompt}", "--precision", args.precision, "--ignore-eos"]
        store = ["--prefix-store", os.path.join(folder, "store")]

        # Long enough an answer that it is still being written when the kill comes.
        process = subprocess.Popen(base + store + ["--max-tokens", "100000"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        seen = b""
        while seen.count(b",") < args.new:
            piece = os.read(process.stdout.fileno(), 4096)
            if not piece:
                sys.exit("restart: generate ended by itself, before it was killed")
            seen += piece
        process.send_signal(signal.SIGKILL)
        process.wait()

        def ask(extra):
            begin = time.monotonic()
            out = subprocess.run(base + extra + ["--max-tokens", str(args.new), "--logprobs", "0", "--json"],
                                 check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
            answer = json.loads(out)
            answer["wall"] = time.monotonic() - begin
            return answer

        warm = ask(store)
        cold = ask([])
    hit = warm["timings"]["prompt_cache_hit_tokens"]
    first = {name: a["timings"]["first_token_s"] for name, a in (("cold", cold), ("warm", warm))}
    print(f"cold: first token after {first['cold']:.3f} s ({cold['wall']:.2f} s for the whole process)")
    print(f"after kill -9: {first['warm']:.3f} s ({warm['wall']:.2f} s), {hit} of {args.tokens} tokens from the store")
    print(f"ratio {first['cold'] / first['warm']:.1f}")
    same = all(cold[key] == warm[key] for key in ("tokens", "logprobs"))
    killed = [int(t) for t in seen.decode().split(",")[: args.new]]
    print(f"same tokens and log-probabilities: {same}; the killed process had written the same: {killed == cold['tokens']}")
    if not same or killed != cold["tokens"] or hit < args.tokens - 64:
        sys.exit(1)


if __name__ == "__main__":
    main()
