#!/usr/bin/env python3
"""Kills a training run with SIGKILL at random moments and resumes it, again and again.

    kill9.py CACHALOT WORK_DIR [--kills 20] [--seed 1] [--precision bf16]

A small recipe saves a checkpoint every 3 steps. One run is left alone. Another is killed at `kills` moments spread at
random over its life (while preparing data, inside steps, inside checkpoints), each time resumed with another number
of threads. Its final model and optimiser files, and those of the mean of the weights, must have the same bytes as those of the run left alone, and no resume
may fail.
"""
import argparse
import hashlib
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

    # Each life lasts a random part of what the undisturbed run needs for a share of its steps.
    reached = []
    for kill in range(o.kills):
        process = subprocess.Popen(command("killed", 1 + kill % 3, True), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True, cwd=work)
        try:
            process.wait(timeout=rng.uniform(0.02, 2.5 * whole_s / o.kills))
            if process.returncode != 0:
                sys.exit(f"kill {kill}: the resume failed by itself: {process.stderr.read()}")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        lines = (work / "killed" / "metrics.jsonl")
        steps = lines.read_text().count("\n") if lines.exists() else 0
        reached.append(steps)
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
