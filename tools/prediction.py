#!/usr/bin/env python3
"""Predictions of `cachalot plan` beside what `cachalot bench` measures on this machine.

    tools/prediction.py make       three model folders of random weights, and their training recipes
    tools/prediction.py probe      this machine's profile (cachalot plan probe)
    tools/prediction.py measure    every case that has no result yet; --only NAME for some, --again for all
    tools/prediction.py report     docs/experiments/prediction.md and its picture, from the results alone

Everything but the report lies in runs/prediction. No case is used for calibration: the profile comes from `plan probe`,
which times single kernels and next to empty models, and none of the shapes here. Each measurement is a command of
its own, well under a minute; --prefix puts words before it (chrt, taskset), for machines that other programs use.

The memory of a virtual machine changes its speed by half from one minute to the next, and a profile holds for one speed. So a
decode is measured again, --attempts times at most, until the reads beside it lie within 15 % of the profile's; the nearest is taken.
"""
import argparse
import json
import math
import pathlib
import shlex
import subprocess
import sys
import tomllib

REPO = pathlib.Path(__file__).resolve().parents[1]
MARK_MEDIAN, MARK_WORST = 0.10, 0.25
SAME_MACHINE = 0.15  # a read beside a decode, from the profile's

BASE = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "scoring_func": "sigmoid",
    "topk_method": "noaux_tc", "n_group": 1, "topk_group": 1, "norm_topk_prob": True, "routed_scaling_factor": 2.5,
    "rms_norm_eps": 1e-6, "rope_theta": 10000, "max_position_embeddings": 8192, "num_nextn_predict_layers": 0,
    "hidden_act": "silu", "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 1,
}
# Three shapes: many small experts, few large ones, and none.
SHAPES = {
    "many": dict(vocab_size=16384, hidden_size=1024, intermediate_size=2816, moe_intermediate_size=384,
                 num_hidden_layers=12, first_k_dense_replace=1, num_attention_heads=8, q_lora_rank=384,
                 kv_lora_rank=256, qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=64, n_routed_experts=64,
                 n_shared_experts=1, num_experts_per_tok=6),
    "few": dict(vocab_size=32768, hidden_size=1536, intermediate_size=4096, moe_intermediate_size=1536,
                num_hidden_layers=10, first_k_dense_replace=1, num_attention_heads=16, q_lora_rank=768,
                kv_lora_rank=512, qk_nope_head_dim=96, qk_rope_head_dim=64, v_head_dim=96, n_routed_experts=16,
                n_shared_experts=1, num_experts_per_tok=2),
    "dense": dict(vocab_size=24576, hidden_size=2048, intermediate_size=6144, num_hidden_layers=16,
                  num_attention_heads=16, q_lora_rank=None, kv_lora_rank=384, qk_nope_head_dim=128,
                  qk_rope_head_dim=64, v_head_dim=128, n_routed_experts=None),
}
FORMATS = {"many": "fp8", "few": "bf16", "dense": "fp8"}  # of the folders
DECODE = [(1, 512), (4, 2048), (16, 1024)]  # batch, context
PREFILL = [192, 512]
# Smaller, since training needs sixteen times the memory: the sizes that differ from a recipe's defaults.
TRAIN = {
    "many": dict(hidden_size=512, num_hidden_layers=4, first_k_dense_replace=1, intermediate_size=1536,
                 moe_intermediate_size=192, num_attention_heads=8, q_lora_rank=192, kv_lora_rank=128,
                 qk_nope_head_dim=48, qk_rope_head_dim=16, v_head_dim=48, n_routed_experts=32, n_shared_experts=1,
                 num_experts_per_tok=4, vocab_size=4096),
    "few": dict(hidden_size=768, num_hidden_layers=3, first_k_dense_replace=1, intermediate_size=2048,
                moe_intermediate_size=512, num_attention_heads=12, q_lora_rank=256, kv_lora_rank=192,
                qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=64, n_routed_experts=8, n_shared_experts=1,
                num_experts_per_tok=2, vocab_size=6144),
    "dense": dict(hidden_size=640, num_hidden_layers=5, first_k_dense_replace=5, intermediate_size=1728,
                  num_attention_heads=10, q_lora_rank=0, kv_lora_rank=160, qk_nope_head_dim=64, qk_rope_head_dim=32,
                  v_head_dim=64, n_routed_experts=0, n_shared_experts=0, vocab_size=4096),
}


def say(text):
    print(f"prediction: {text}", file=sys.stderr, flush=True)


class Cases:
    """The list of cases: how each is measured and how it is predicted."""

    def __init__(self, o):
        self.o = o
        self.root = o.runs
        self.profile = self.root / "machine.toml"

    def folder(self, shape):
        return self.root / f"{shape}-{FORMATS[shape]}"

    def recipe(self, shape):
        return self.root / f"train-{shape}.toml"

    def all(self):
        cases = []
        for shape in SHAPES:
            for batch, context in DECODE:
                cases.append(dict(name=f"decode-{shape}-{batch}x{context}", kind="decode", shape=shape, batch=batch,
                                  context=context))
            for prompt in PREFILL:
                cases.append(dict(name=f"prefill-{shape}-{prompt}", kind="prefill", shape=shape, prompt=prompt))
            cases.append(dict(name=f"train-{shape}", kind="train", shape=shape))
        return cases

    def bench(self, case):
        limit = ["--limit", str(self.o.limit), "--turns", str(self.o.turns), "--json"]
        if case["kind"] == "train":
            return ["bench", "train", str(self.recipe(case["shape"])), "--precision", "bf16", "--no-memory", *limit]
        folder = str(self.folder(case["shape"]))
        if case["kind"] == "decode":
            return ["bench", "decode", folder, "--batch", str(case["batch"]), "--context", str(case["context"]), *limit]
        return ["bench", "prefill", folder, "--prompt", str(case["prompt"]), "--context", "0", *limit]

    def plan(self, case):
        if case["kind"] == "train":
            return ["plan", "train", str(self.root / f"train-{case['shape']}.json"), "--hardware", str(self.profile),
                    "--batch", "8", "--sequence", "256", "--precision", "bf16", "--layout",
                    "pp=1,ep=1,tp=1,micro_batch=8,recompute=selective", "--json"]
        command = ["plan", "infer", str(self.folder(case["shape"])), "--hardware", str(self.profile), "--precision",
                   FORMATS[case["shape"]], "--json"]
        if case["kind"] == "decode":
            return command + ["--batch", str(case["batch"]), "--context", str(case["context"])]
        return command + ["--batch", "1", "--context", "0", "--prompt", str(case["prompt"])]

    @staticmethod
    def measured(case, answer):
        return answer["cases"][0]["tokens_per_s"]

    @staticmethod
    def predicted(case, answer):
        if case["kind"] == "decode":
            return answer["decode"][0]["tokens_per_s"]
        if case["kind"] == "prefill":
            return answer["prefill"]["tokens_per_s"]
        return answer["tokens_per_second"]


class Driver:
    def __init__(self, o):
        self.o = o
        self.cases = Cases(o)
        o.runs.mkdir(parents=True, exist_ok=True)

    def cachalot(self, arguments, prefix=False):
        command = (shlex.split(self.o.prefix) if prefix else []) + [str(self.o.cachalot), *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"prediction: {shlex.join(command)} failed:\n{done.stderr[-2000:]}")
        return done.stdout

    def make(self):
        for shape, sizes in SHAPES.items():
            config = self.o.runs / f"{shape}.json"
            config.write_text(json.dumps({**BASE, **sizes}, indent=1) + "\n")
            if not self.cases.folder(shape).exists():
                say(f"making {self.cases.folder(shape)}")
                self.cachalot(["init", str(config), str(self.cases.folder(shape)), "--dtype", FORMATS[shape]])
            none = dict(q_lora_rank=TRAIN[shape].get("q_lora_rank") or None,
                        n_routed_experts=TRAIN[shape].get("n_routed_experts") or None)
            (self.o.runs / f"train-{shape}.json").write_text(json.dumps({**BASE, **TRAIN[shape], **none}, indent=1) + "\n")
            lines = ["[model]", *(f"{key} = {value}" for key, value in TRAIN[shape].items()),
                     "max_position_embeddings = 512", "num_nextn_predict_layers = 0", "", "[data]",
                     "random_tokens = 1048576", "seq_len = 256", "", "[schedule]", "steps = 24", "warmup_steps = 0",
                     "batch = 8", 'decay = "none"', "", "[run]", 'precision = "bf16"', ""]
            self.cases.recipe(shape).write_text("\n".join(lines))

    def probe(self):
        self.cachalot(["plan", "probe", "--out", str(self.cases.profile), "--disk-mib", "0", "--disk", str(self.o.runs), "--formats",
                       ",".join(sorted(set(FORMATS.values())))],
                      prefix=True)

    def measure(self):
        for case in self.cases.all():
            result = self.o.runs / f"{case['name']}.result.json"
            if self.o.only and not any(word in case["name"] for word in self.o.only):
                continue
            if result.exists() and not self.o.again:
                continue
            answers = []
            while not answers or (self.unlike(case, answers[-1]) > SAME_MACHINE and len(answers) < self.o.attempts):
                say(case["name"] + (f", attempt {len(answers) + 1}" if answers else ""))
                answers.append(json.loads(self.cachalot(self.cases.bench(case), prefix=True)))
            answer = min(answers, key=lambda a: self.unlike(case, a))
            result.write_text(json.dumps(answer) + "\n")

    def unlike(self, case, answer):
        """How far the memory beside a decode was from the profile's; 0 for what memory does not bind."""
        if case["kind"] != "decode":
            return 0.0
        profile = tomllib.loads(self.cases.profile.read_text())
        return abs(answer["cases"][0]["ceiling"] / profile["device"]["memory_gbps"] - 1)

    def table(self):
        rows = []
        memory = tomllib.loads(self.cases.profile.read_text())["device"]["memory_gbps"]
        for case in self.cases.all():
            result = self.o.runs / f"{case['name']}.result.json"
            if not result.exists():
                continue
            answer = json.loads(result.read_text())
            measured = self.cases.measured(case, answer)
            predicted = self.cases.predicted(case, json.loads(self.cachalot(self.cases.plan(case))))
            one = answer["cases"][0]
            beside = f"{one['ceiling']:.1f}" if case["kind"] == "decode" else ""
            rows.append(dict(case, beside=beside, measured=measured, predicted=predicted, error=predicted / measured - 1,
                             memory=memory, valid=one.get("valid_turns", 0), turns=one.get("turns", 0), machine=answer["machine"]))
        return rows


def median(values):
    values = sorted(values)
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


COLOURS = {"decode": "#2563eb", "prefill": "#d97706", "train": "#059669"}


def picture(rows):
    """Predicted over measured, both in logarithms; the bands are 10 % and 25 %."""
    size, left, top, bottom = 460, 64, 20, 48
    values = [value for row in rows for value in (row["measured"], row["predicted"])]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    span = size - 20

    def x(value):
        return left + span * (math.log10(value) - low) / (high - low)

    def y(value):
        return top + span - span * (math.log10(value) - low) / (high - low)

    width, height = left + span + 130, top + span + bottom
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
           f'font-size="12"><rect width="100%" height="100%" fill="white"/>',
           f'<clipPath id="inside"><rect x="{left}" y="{top}" width="{span}" height="{span}"/></clipPath>',
           '<g clip-path="url(#inside)">']
    for share, fill in ((0.25, "#eef2ff"), (0.10, "#dbe4ff")):
        a, b = 10.0 ** low, 10.0 ** high
        points = [(a, a * (1 - share)), (b, b * (1 - share)), (b, b * (1 + share)), (a, a * (1 + share))]
        out.append(f'<polygon fill="{fill}" points="' + " ".join(f"{x(p):.1f},{y(q):.1f}" for p, q in points) + '"/>')
    out.append(f'<line x1="{x(10.0 ** low):.1f}" y1="{y(10.0 ** low):.1f}" x2="{x(10.0 ** high):.1f}" '
               f'y2="{y(10.0 ** high):.1f}" stroke="#94a3b8"/></g>')
    for power in range(low, high + 1):
        at = 10.0 ** power
        label = f"{at:g}"
        out.append(f'<line x1="{x(at):.1f}" y1="{top}" x2="{x(at):.1f}" y2="{top + span}" stroke="#e2e8f0"/>')
        out.append(f'<line x1="{left}" y1="{y(at):.1f}" x2="{left + span}" y2="{y(at):.1f}" stroke="#e2e8f0"/>')
        out.append(f'<text x="{x(at):.1f}" y="{top + span + 18}" text-anchor="middle">{label}</text>')
        out.append(f'<text x="{left - 8}" y="{y(at) + 4:.1f}" text-anchor="end">{label}</text>')
    for row in rows:
        out.append(f'<circle cx="{x(row["measured"]):.1f}" cy="{y(row["predicted"]):.1f}" r="4.5" '
                   f'fill="{COLOURS[row["kind"]]}" fill-opacity="0.85"><title>{row["name"]}: {row["measured"]:.1f} '
                   f'measured, {row["predicted"]:.1f} predicted</title></circle>')
    for i, (kind, colour) in enumerate(COLOURS.items()):
        out.append(f'<circle cx="{left + span + 20}" cy="{top + 12 + 20 * i}" r="4.5" fill="{colour}"/>'
                   f'<text x="{left + span + 32}" y="{top + 16 + 20 * i}">{kind}</text>')
    out.append(f'<text x="{left + span / 2}" y="{height - 8}" text-anchor="middle">measured, tokens/s</text>')
    out.append(f'<text x="16" y="{top + span / 2}" text-anchor="middle" transform="rotate(-90 16 {top + span / 2})">'
               'predicted, tokens/s</text></svg>')
    return "\n".join(out) + "\n"


def describe(row):
    if row["kind"] == "decode":
        return f"batch {row['batch']}, {row['context']} cached"
    if row["kind"] == "prefill":
        return f"{row['prompt']} tokens"
    return "8 x 256 tokens, bf16"


def page(rows):
    errors = [abs(row["error"]) for row in rows]
    worst = max(rows, key=lambda row: abs(row["error"]))
    machine = rows[0]["machine"]

    def verdict(value, mark):
        return "met" if value <= mark else "**not met**"

    lines = [
        "# Predicted and measured speed", "",
        "`cachalot plan` says what `cachalot bench` should measure; here they stand side by side, for model shapes that no figure was "
        "fitted to.", "", "![predicted over measured](../images/prediction.svg)", "",
        f"- {len(rows)} cases: median error {100 * median(errors):.1f} % (mark 10 %: {verdict(median(errors), MARK_MEDIAN)}), worst "
        f"{100 * max(errors):.1f} %, {worst['name']} (mark 25 %: {verdict(max(errors), MARK_WORST)}).",
        f"- Machine: {machine['cpu']}, level {machine['level']}, {machine['threads']} threads.",
        "- The profile comes from `cachalot plan probe`: single kernels of one size and models with next to no weights. Nothing was "
        "calibrated on these cases.",
        f"- The profile's memory reads {rows[0]['memory']:.1f} GB/s. This one changes between some 30 and 55 from minute to minute, so a decode "
        f"was measured again until a read beside it was within {100 * SAME_MACHINE:.0f} % of the profile's (at most --attempts times).",
        "- Made by `tools/prediction.py make`, `probe`, `measure` and `report`.", "",
        "| case | | measured, tokens/s | predicted | error | a read beside it, GB/s | turns that counted |",
        "|---|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        lines.append(f"| {row['kind']}, {row['shape']} | {describe(row)} | {row['measured']:.1f} | {row['predicted']:.1f} | "
                     f"{100 * row['error']:+.1f} % | {row['beside']} | {row['valid']} of {row['turns']} |")
    lines += ["", "| shape | sizes |", "|---|---|"]
    for shape, sizes in SHAPES.items():
        experts = f"{sizes['n_routed_experts']} experts of {sizes['moe_intermediate_size']}, {sizes['num_experts_per_tok']} per token" \
            if sizes.get("n_routed_experts") else "no experts"
        lines.append(f"| {shape} | {sizes['num_hidden_layers']} layers of {sizes['hidden_size']}, {experts}, "
                     f"{sizes['num_attention_heads']} heads, latent {sizes['kv_lora_rank']}; folder in {FORMATS[shape]} |")
    lines += ["", "Training cases have smaller relatives of the same kind (`tools/prediction.py`).", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["make", "probe", "measure", "report"])
    parser.add_argument("--runs", type=pathlib.Path, default=REPO / "runs" / "prediction")
    parser.add_argument("--cachalot", type=pathlib.Path, default=REPO / "build" / "release" / "cachalot")
    parser.add_argument("--only", nargs="+", help="cases whose name holds one of these words")
    parser.add_argument("--again", action="store_true", help="measure cases that have a result, too")
    parser.add_argument("--prefix", default="", help="words before each measurement's command")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--limit", type=float, default=12, help="seconds of a case")
    parser.add_argument("--attempts", type=int, default=6, help="at a decode, until the memory is the profile's")
    parser.add_argument("--out", type=pathlib.Path, default=REPO / "docs", help="where the page goes")
    o = parser.parse_args()
    driver = Driver(o)
    if o.action == "report":
        rows = driver.table()
        if not rows:
            raise SystemExit("prediction: no case has been measured; call `tools/prediction.py measure` first")
        (o.out / "images" / "prediction.svg").write_text(picture(rows))
        (o.out / "experiments" / "prediction.md").write_text(page(rows))
        for row in rows:
            print(f"{row['name']:<24} {row['measured']:>10.1f} {row['predicted']:>10.1f} {100 * row['error']:>+7.1f} %")
        errors = [abs(row["error"]) for row in rows]
        print(f"median {100 * median(errors):.1f} %, worst {100 * max(errors):.1f} %")
        return
    getattr(driver, o.action)()


if __name__ == "__main__":
    main()
