#!/usr/bin/env python3
"""Prints what a run of tools/demo.sh found, from the files it left in the run folder."""
import argparse
import json
import os
import pathlib
import statistics
import textwrap


def number(value, form="{:,.0f}"):
    return "not measured" if value is None else form.format(value)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--cachalot", type=pathlib.Path, required=True)
    args = parser.parse_args()
    run = args.run

    def load(name):
        return json.loads((run / name).read_text())

    score, plan, sample, speed = load("eval.json"), load("plan.json"), load("sample.json"), load("speed.json")
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = [s["tokens_per_s"] for s in steps if s.get("tokens_per_s")]
    held_out = (run / "data" / "held_out.txt").stat().st_size
    bits = {}
    for line in (run / "compressors.txt").read_text().splitlines():
        name, whole, part = line.split()
        bits[name] = 8 * (int(whole) - int(part)) / held_out
    seconds = int((run / "training_seconds").read_text())
    relative = os.path.relpath(args.model)
    program = os.path.relpath(args.cachalot)

    def row(name, value, note=""):
        print(f"  {name:<38} {value:>14}   {note}".rstrip())

    print("\nBits per byte of the held-out tenth (fewer is better)")
    row("this model, from its weights alone", f"{score['bits_per_byte']:.3f}", f"after {seconds} s of training")
    row("7z PPMd, order 16, given the rest", f"{bits['ppmd16']:.3f}", "128 MB of memory")
    row("7z PPMd, order 24, given the rest", f"{bits['ppmd24']:.3f}", "128 MB of memory")
    row("xz -9e, given the rest", f"{bits['xz']:.3f}")

    print("\nThe model")
    total, active = plan["parameters"]["total"], plan["parameters"]["active"]
    row("parameters, and active per token", f"{total / 1e6:.2f} M", f"{active / 1e6:.2f} M active")
    latent, plain = plan["kv_bytes_per_token"], plan["mha_kv_bytes_per_token"]
    row("cache bytes per token, latent", f"{latent:,}", f"plain multi-head attention of this shape: {plain:,} "
        f"({plain / latent:.1f} times as much)")
    drafts = score.get("mtp") or {}
    row("MTP: second token guessed right", number(drafts.get("acceptance"), "{:.1%}"), "of the held-out text's tokens")

    print("\nSpeed on this machine")
    row("training, tokens/s", number(statistics.median(rates) if rates else None), f"median of {len(rates)} steps")
    row("reading a prompt, tokens/s", number(speed["timings"].get("prefill_tokens_per_s")))
    row("writing, tokens/s", number(speed["timings"].get("decode_tokens_per_s")), "one at a time")
    if (sample.get("mtp") or {}).get("drafted"):
        mtp = sample["mtp"]
        row("writing with MTP drafts, tokens/s", number(sample["timings"].get("decode_tokens_per_s")),
            f"{mtp['accepted']} of {mtp['drafted']} drafts accepted while sampling")

    print('\nWhat it writes after "And it came to pass" (temperature 0.8)\n')
    for line in sample["text"].splitlines():
        print(textwrap.fill(line, 100, initial_indent="    ", subsequent_indent="    "))

    print(f"\nThe model lies in  {relative}  (a Hugging Face folder)")
    print(f"The loss curve is  {os.path.relpath(run / 'loss.svg')}")
    print(f"Talk to it with    {program} chat {relative}")
    print(f"in a browser with  {program} serve {relative}    (http://127.0.0.1:8080)")
    print(f"or                 {program} generate {relative} --prompt 'In the beginning'\n")


if __name__ == "__main__":
    main()
