#!/usr/bin/env python3
"""Kills a training run with SIGKILL at random moments and resumes it, again and again.

    kill9.py CACHALOT WORK_DIR [--kills 20] [--seed 1] [--precision bf16]

A small recipe saves a checkpoint every 3 steps. One run is left alone. Another is killed at `kills` moments spread at
random over its steps (while preparing data, inside steps, inside checkpoints), each time resumed with another number
of threads. Its final model and optimiser files, and those of the mean of the weights, must have the same bytes as those of the run left alone, and no resume
may fail.
"""
import argparse
import hashlib
import json
import pathlib
import random
import shutil
import subprocess
import sys
import time

RECIPE = """
[model]
hidden_size = 64
num_hidden_layers = 2
first_k_dense_replace = 1
intermediate_size = 128
moe_intermediate_size = 32
num_attention_heads = 2
q_lora_rank = 32
kv_lora_rank = 32
qk_nope_head_dim = 16
qk_rope_head_dim = 8
v_head_dim = 16
n_routed_experts = 8
num_experts_per_tok = 2
init_std = 0.02
[data]
corpus = ["corpus.txt"]
train_bpe = 400
seq_len = 64
[optimizer]
lr = 3e-3
ema_decay = 0.99
[schedule]
steps = {steps}
warmup_steps = 10
batch = 8
[regularization]
dropout = 0.1
[run]
precision = "{precision}"
checkpoint_every = 3
keep_last = 2
"""


def corpus(rng):
    words = ["whale", "sea", "ship", "captain", "storm", "gull", "harpoon", "sailor", "deck", "night"]
    return "\n".join(" ".join(rng.choice(words) for _ in range(9)) + "." for _ in range(2500)) + "\n"


def digest(run):
    state = hashlib.sha256()
    folder = (run / "model").resolve()
    for name in ("model.safetensors", "optimizer.safetensors", "ema/model.safetensors"):
        state.update((folder / name).read_bytes())
    return folder.name, state.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cachalot")
    parser.add_argument("work")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--precision", default="bf16")
    o = parser.parse_args()
    rng = random.Random(o.seed)
    work = pathlib.Path(o.work).resolve()
    o.cachalot = str(pathlib.Path(o.cachalot).resolve())
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "corpus.txt").write_text(corpus(rng))
    (work / "recipe.toml").write_text(RECIPE.format(steps=o.steps, precision=o.precision))

    def command(run, threads, resume):
        line = [o.cachalot, "--threads", str(threads), "train", str(work / "recipe.toml"), "--run", str(work / run)]
        return line + (["--resume"] if resume else [])

    began = time.monotonic()
    subprocess.run(command("whole", 2, False), check=True, cwd=work,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    whole_s = time.monotonic() - began
    want = digest(work / "whole")
    print(f"left alone: {whole_s:.1f} s, {want[0]}, {want[1][:16]}", flush=True)

    # A third of the lives end while they begin (reading the recipe, the data, the checkpoint), the others at a
    # random moment after a step further on: steps, not seconds, since a busy machine is slow at one time only.
    lines = work / "killed" / "metrics.jsonl"

    def step():
        text = lines.read_text() if lines.exists() else ""
        whole = text[:text.rfind("\n") + 1].splitlines()
        return json.loads(whole[-1])["step"] if whole else 0

    reached = []
    targets = sorted(rng.randrange(1, o.steps) for _ in range(o.kills))
    for kill, target in enumerate(targets):
        with open(work / "stderr.txt", "w") as log:
            process = subprocess.Popen(command("killed", 1 + kill % 3, True), stdout=subprocess.DEVNULL, stderr=log,
                                       cwd=work)
        early = rng.random() < 1 / 3
        moment = rng.uniform(0.01, 0.5) if early else rng.uniform(0.0, 2.0 * whole_s / o.steps)
        while not early and process.poll() is None and step() < target:
            time.sleep(0.002)
        time.sleep(moment)
        if process.poll() not in (None, 0):
            sys.exit(f"kill {kill}: the resume failed by itself: {(work / 'stderr.txt').read_text()}")
        process.kill()
        process.wait()
        reached.append(step())
    print("killed after steps:", " ".join(map(str, reached)), flush=True)
    done = subprocess.run(command("killed", 2, True), capture_output=True, text=True, cwd=work)
    if done.returncode != 0:
        sys.exit(f"the last resume failed: {done.stderr}")
    got = digest(work / "killed")
    print(f"killed {o.kills} times: {got[0]}, {got[1][:16]}")
    if got != want:
        sys.exit("the weights differ from those of the run left alone")
    print("the same bytes")


main()
