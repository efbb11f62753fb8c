#!/usr/bin/env python3
"""The experiments of docs/experiments: runs of one recipe that differ in one thing, and the pages about them.

    tools/parity.py parity     bf16 against fp8, three seeds each; per-tensor scales and block-wise gradients beside
    tools/parity.py balance    the router's bias, none, and an auxiliary loss instead
    tools/parity.py mtp        without and with the MTP loss

Runs lie in runs/parity, one folder each. A finished run is not repeated, and one that was interrupted goes on where its newest
checkpoint stands: call the same command again. Runs that experiments share are trained once. The pages are written from
the folders alone, so they can be written again at any time (--pages-only).
"""
import argparse
import os
import pathlib
import sys

import parity_numbers
import parity_pages
import study
from study import REPO, Run, short


def seed_run(kind, seed, *sets):
    return Run(f"{kind}-seed{seed}", (*sets, f"run.seed={seed}"))


def runs_of(experiment, seeds, control):
    """The runs of an experiment, in the order in which they are best started: what is compared runs side by side."""
    bf16, fp8 = "run.precision=bf16", "run.precision=fp8"
    base = [seed_run("bf16", seed, bf16) for seed in range(1, seeds + 1)]
    if experiment == "parity":
        pairs = [run for one in base for run in (one, seed_run("fp8", one.name[len("bf16-seed"):], fp8))]
        tensor = [f"numerics.{what}_tile=tensor" for what in ("activation", "gradient", "weight")]
        extra = [seed_run("fp8-tensor", 1, fp8, *tensor),
                 seed_run("fp8-block-gradients", 1, fp8, "numerics.gradient_tile=128x128")]
        return pairs + extra + ([seed_run("f32", 1, "run.precision=f32")] if control else [])
    if experiment == "balance":
        no_bias = [bf16, "loss.bias_gamma=0"]
        return base + [seed_run("no-bias", 1, *no_bias)] + [
            seed_run(f"aux-{alpha}", 1, *no_bias, "loss.balance_over=batch", f"loss.balance_alpha={alpha}")
            for alpha in parity_pages.AUX_ALPHAS]
    return base + [seed_run("no-mtp-loss", seed, bf16, "loss.mtp_lambda=0") for seed in range(1, seeds + 1)]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", choices=list(parity_pages.PAGES), metavar="EXPERIMENT",
                        help="parity, balance, mtp")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the runs that have several (3)")
    study.add_arguments(parser, 1, "runs side by side; default: the cores over --threads", "runs/parity")
    parser.add_argument("--control", action="store_true", help="parity: a float32 run too, as a mark for the noise")
    parser.add_argument("--recipe", type=pathlib.Path, default=REPO / "configs/parity.toml", metavar="FILE")
    o = parser.parse_args()
    study.check_arguments(parser, o)
    o.jobs = o.jobs or max(1, (os.cpu_count() or 1) // o.threads)
    return o


def main():
    o = parse_arguments()
    runs = {one: runs_of(one, o.seeds, o.control) for one in o.experiments}
    if not o.pages_only:
        study.need_program("parity", o)
        study.stop_on_sigterm("parity")
        o.runs.mkdir(parents=True, exist_ok=True)
        driver = study.Driver("parity", o)
        driver.make_corpus()
        driver.train(list(dict.fromkeys(run for one in o.experiments for run in runs[one])))
    for one in o.experiments:
        missing = [run.name for run in runs[one] if not (o.runs / run.name / "finished.json").exists()]
        if missing:
            sys.exit(f"parity: no page about {one}: {', '.join(missing)} not finished")
        finished = {run.name: parity_numbers.Finished.read(o.runs / run.name) for run in runs[one]}
        for path in parity_pages.write(one, finished, o.docs):
            print(short(path))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("parity: stopped")
