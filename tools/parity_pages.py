"""The pages of tools/parity.py: text, tables and pictures out of finished runs, and of nothing else.

A page says what came out, whatever it was: the marks it is held against stand in it with "met" or "not met".
"""
import shlex

import parity_numbers as numbers
import plot_metrics

MARK = 0.0025  # the report's relative error of the loss, fp8 against bf16
AUX_ALPHAS = ("0.001", "0.01")


def percent(value, digits=3):
    return f"{100 * value:.{digits}f} %"


def signed(value, digits=3):
    return f"{100 * value:+.{digits}f} %"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def verdict(value):
    return f"{'met' if value < MARK else '**not met**'}: {percent(value)}"


def as_percent(curve):
    return [(step, 100 * value) for step, value in curve]


def of_kind(runs, kind):
    """The runs of one kind, by seed."""
    prefix = f"{kind}-seed"
    return [run for name, run in sorted(runs.items()) if name.startswith(prefix)]


def mean_of(runs, key="nats_per_token"):
    return sum(run.validation(key) for run in runs) / len(runs)


def setting(runs):
    """What every page says about its runs: the model, the text, the machine."""
    one = next(iter(runs.values()))
    machine = one.info["machine"]
    held_out = one.result["validation"]["tokens"]
    skipped = sum(run.result["skipped_steps"] for run in runs.values())
    side = f"{one.info['jobs']} runs side by side, each with" if one.info["jobs"] > 1 else "one run after the other, with"
    return f"""- Model: `configs/parity.toml`, {one.result['parameters'] / 1e6:.2f} M parameters: latent attention, a dense layer, layers of 16 experts
  (2 of them and a shared one per token), an MTP layer.
- Text: the King James Bible (Debian's `bible-kjv`), a BPE learned from its first nine tenths. {one.steps} steps of \
{one.result['tokens'] // one.steps} tokens. Held out
  is the last tenth, all {held_out:,} tokens of it, each predicted once in windows that do not overlap. A run is validated in its
  own precision.
- A seed gives the initial weights and the order of the data; runs of one seed see the same batches.
- Smoothed loss: s_1 = x_1, s_t = 0.9 s_(t-1) + 0.1 x_t of the training loss (main, nats per token) of each step.
- Machine: {machine['cpu']}, {machine['cores']} cores, kernels {machine['level']}; {side} {one.info['threads']} \
thread{'s' if one.info['threads'] > 1 else ''}.
- Steps skipped for want of a finite loss or gradient: {skipped}."""


def commands(experiment, runs):
    one = next(iter(runs.values()))
    seeds = len(of_kind(runs, "bf16"))
    call = ["tools/parity.py", experiment, "--seeds", str(seeds), "--threads", str(one.info["threads"]),
            "--jobs", str(one.info["jobs"])] + (["--control"] if "f32-seed1" in runs else [])
    for value in one.info["set"]:
        call += ["--set", value]
    lines = "\n".join(shlex.join(run.command) for run in runs.values())
    if any(word.endswith("runs/parity/bible.txt") for word in one.command):
        lines = "bible -f Gen1:1-Rev22:21 > runs/parity/bible.txt </dev/null\n" + lines
    return f"""## Again

```
{shlex.join(call)}
```

trains what is not there yet (`runs/parity/`, a folder per run) and writes this page and its pictures. The runs by hand:

```
{lines}
```
"""


def cost_rows(kinds, runs):
    """Speed and memory of the first run of each kind."""
    rows = []
    for label, kind in kinds:
        run = of_kind(runs, kind)[0]
        rows.append([label, f"{run.seconds_per_step():.3f}", f"{run.result['tokens'] / run.steps / run.seconds_per_step():,.0f}",
                     f"{run.info['peak_rss_bytes'] / 2**20:,.0f}", f"{run.result['optimizer_bytes_per_parameter']:.2f}"])
    return rows


def parity(runs):
    bf16, fp8 = of_kind(runs, "bf16"), of_kind(runs, "fp8")
    steps = bf16[0].steps
    errors = [numbers.relative_error(b.smooth(), a.smooth()) for a, b in zip(bf16, fp8)]
    mean_bf16, mean_fp8 = (numbers.mean_curve([run.smooth() for run in some]) for some in (bf16, fp8))
    of_means = numbers.relative_error(mean_fp8, mean_bf16)
    of_sizes = numbers.mean_curve([[(step, abs(value)) for step, value in error] for error in errors])

    def row(label, error):
        most, mean = numbers.largest_and_mean(error, steps)
        return [label, percent(most), percent(mean), signed(error[-1][1])]

    count = f"{len(bf16)} seed{'s' if len(bf16) > 1 else ''}"
    training = table(["", "largest", "mean", "at the end"],
                     [row(f"seed {i}", error) for i, error in enumerate(errors, 1)]
                     + [row(f"mean loss of {count}", of_means), row(f"mean of {count}' magnitudes", of_sizes)])
    held = [[f"seed {i}", f"{a.validation():.4f}", f"{b.validation():.4f}", signed(b.validation() / a.validation() - 1),
             f"{a.validation('bits_per_byte'):.4f}", f"{b.validation('bits_per_byte'):.4f}"]
            for i, (a, b) in enumerate(zip(bf16, fp8), 1)]
    held_mean = mean_of(fp8) / mean_of(bf16) - 1
    held.append([f"mean of {count}", f"{mean_of(bf16):.4f}", f"{mean_of(fp8):.4f}", signed(held_mean),
                 f"{mean_of(bf16, 'bits_per_byte'):.4f}", f"{mean_of(fp8, 'bits_per_byte'):.4f}"])

    variants = [("fp8 as the report has it", "fp8"), ("one scale per tensor", "fp8-tensor"),
                ("gradients in blocks of 128 x 128", "fp8-block-gradients")]
    if "f32-seed1" in runs:
        variants.append(("float32 (no FP8 at all: a mark for the noise)", "f32"))
    base, rows, curves = bf16[0], [], {}
    for label, kind in variants:
        run = of_kind(runs, kind)[0]
        error = numbers.relative_error(run.smooth(), base.smooth())
        curves[kind] = as_percent(error)
        rows.append(row(label, error) + [f"{run.validation():.4f}", signed(run.validation() / base.validation() - 1)])
    apart = (f"The bf16 runs differ in their seeds by {percent(numbers.spread([run.validation() for run in bf16]))} of the "
             "held-out loss (largest less smallest)." if len(bf16) > 1 else "")

    seeds = {f"seed {i}": as_percent(error) for i, error in enumerate(errors, 1)}
    if len(errors) > 1:
        seeds["mean loss"] = as_percent(of_means)
    marks = (-100 * MARK, 100 * MARK)
    title = "Relative error of the smoothed loss, fp8 against bf16"
    pictures = {
        "fp8-parity-loss": plot_metrics.draw({"bf16": mean_bf16, "fp8": mean_fp8}, f"Smoothed training loss, mean of {count}",
                                             "step", "nats per token", smooth=False),
        "fp8-parity-error": plot_metrics.draw(seeds, title, "step", "percent", smooth=False, marks=marks),
        "fp8-parity-variants": plot_metrics.draw(curves, "Relative error of the smoothed loss against bf16, seed 1", "step",
                                                 "percent", smooth=False, marks=marks),
    }
    kinds = [("bf16", "bf16")] + variants
    text = f"""# FP8 against BF16: the same loss?

The DeepSeek-V3 report (section 3.3, appendix B.1) trains in FP8 and finds the loss within 0.25 % of BF16's. Here the same is asked
of `run.precision = "fp8"`: every option of `[numerics]` as the report has it.

{setting(runs)}

## Training loss

Relative error of the smoothed loss, (fp8 - bf16) / bf16 at each step, over the second half of the steps:

{training}

- Asked: below 0.25 % at every point of the second half, mean of {count}. Of the mean loss {verdict(numbers.largest_and_mean(of_means, steps)[0])}; \
of the mean of
  the seeds' magnitudes, where errors of two signs do not cancel, {verdict(numbers.largest_and_mean(of_sizes, steps)[0])}.

![Both loss curves](../images/fp8-parity-loss.svg)

![The relative error by step, a curve per seed; dashed: 0.25 %](../images/fp8-parity-error.svg)

## Held-out text

{table(["", "bf16, nats per token", "fp8", "difference", "bf16, bits per byte", "fp8"], held)}

- Asked: within 0.25 %, mean of {count}. {verdict(abs(held_mean)).capitalize()}. {apart}

## What the scales are shared by

Seed 1, against the bf16 run of seed 1; the first columns are of the smoothed training loss, second half.

{table(["", "largest", "mean", "at the end", "held out, nats per token", "difference"], rows)}

![The relative error by step, a curve per choice](../images/fp8-parity-variants.svg)

The report saw 128 x 128 blocks in gradients diverge in a model of 16 B parameters after some 300 B tokens (appendix B.2). A run as
short as this one can show only what comes at once.

## Speed and memory

{table(["", "seconds per step", "tokens/s", "peak RSS, MiB", "optimiser, bytes per parameter"], cost_rows(kinds, runs))}

Seconds are medians over all steps, of the first seed. Two runs that share a machine slow each other down;
[performance](../performance.md) has the speeds measured alone.

{commands("parity", runs)}"""
    return "fp8-parity", text, pictures


def loads_table(arms):
    """Per arm and layer the mean of max / mean load over parts of the run."""
    rows = []
    for label, run in arms:
        layers = run.layer_loads()
        for i, curve in enumerate(layers):
            parts = [curve[len(curve) * a // 100:max(len(curve) * b // 100, len(curve) * a // 100 + 1)]
                     for a, b in ((0, 10), (10, 25), (25, 50), (50, 75), (75, 100))]
            name = "MTP layer" if i == len(layers) - 1 else f"MoE layer {i + 1}"
            rows.append([f"{label}, {name}"] + [f"{sum(v for _, v in part) / len(part):.2f}" for part in parts])
    return table(["largest load / mean load, in steps", "to 10 %", "to 25 %", "to 50 %", "to 75 %", "to the end"], rows)


def balance(runs):
    base = of_kind(runs, "bf16")
    arms = [("bias, gamma 0.001", "bias", base[0]), ("gamma 0", "none", of_kind(runs, "no-bias")[0])]
    arms += [(f"auxiliary loss, alpha {alpha}", f"aux-{alpha}", of_kind(runs, f"aux-{alpha}")[0]) for alpha in AUX_ALPHAS]
    highest = max(value for _, _, run in arms for curve in run.layer_loads() for _, value in curve)
    pictures, worst = {}, {}
    for label, slug, run in arms:
        layers = run.layer_loads()
        named = {"MTP" if i == len(layers) - 1 else f"layer {i + 1}": curve for i, curve in enumerate(layers)}
        pictures[f"aux-free-balance-{slug}"] = plot_metrics.draw(named, f"Largest load / mean load: {label}", "step",
                                                                 "max / mean", y_range=(1, highest))
        worst[label] = numbers.smoothed([(points[0][0], max(value for _, value in points)) for points in zip(*layers)])
    pictures["aux-free-balance"] = plot_metrics.draw(worst, "Largest load / mean load of the worst layer, smoothed", "step",
                                                     "max / mean", smooth=False)
    rows = [[label, f"{run.smooth()[-1][1]:.4f}", f"{run.validation():.4f}",
             "" if run is base[0] else signed(run.validation() / base[0].validation() - 1),
             f"{run.validation('bits_per_byte'):.4f}"] for label, _, run in arms]
    apart = (f"{len(base)} seeds of the first row lie {percent(numbers.spread([run.validation() for run in base]))} apart: a "
             "difference smaller than that says nothing." if len(base) > 1 else "")
    shown = "\n\n".join(f"![Every layer, {label}](../images/aux-free-balance-{slug}.svg)" for label, slug, _ in arms)
    text = f"""# Balance without an auxiliary loss

DeepSeek-V3 (report section 2.1.2) adds a bias to each expert's score for the choice alone, and moves it by gamma against the expert's load
after every step. Does it even out the load, and what does balancing by a loss cost instead?

{setting(runs)}
- All in bf16, seed 1. **gamma 0.001**: the recipe as it is, with the report's sequence-wise loss of alpha 0.0001. **gamma 0**: the same
  without the bias. **Auxiliary loss**: gamma 0 and the batch-wise loss (report section 4.5.3) with a larger alpha,
  `loss.balance_over = "batch"`, f and P taken over all tokens of a step.
- Load: tokens sent to an expert in one step. Even is 1; 16 experts with 2 per token can reach 8.
- In {arms[0][2].steps} steps a bias moves by {0.001 * arms[0][2].steps:.2f} at most, on scores between 0 and 1: a short run shows the bias at the beginning of its
  work, where a loss pulls as hard as its alpha from the first step.

## Load

{loads_table([(label, run) for label, _, run in arms])}

![The worst layer, a curve per way of balancing](../images/aux-free-balance.svg)

{shown}

## Loss

{table(["", "smoothed training loss at the end", "held out, nats per token", "difference", "bits per byte"], rows)}

{apart}

{commands("balance", runs)}"""
    return "aux-free-balance", text, pictures


def mtp(runs):
    on, off = of_kind(runs, "bf16"), of_kind(runs, "no-mtp-loss")
    count = f"{len(on)} seed{'s' if len(on) > 1 else ''}"
    rows = []
    for label, some in (("lambda 0", off), ("lambda 0.3", on)):
        for i, run in enumerate(some, 1):
            rows.append([f"{label}, seed {i}", f"{run.smooth()[-1][1]:.4f}", f"{run.validation():.4f}",
                         f"{run.validation('bits_per_byte'):.4f}", f"{run.validation('mtp_loss'):.4f}",
                         percent(run.validation("mtp_acceptance"), 1)])
        if len(some) > 1:
            ends = [run.smooth()[-1][1] for run in some]
            rows.append([f"{label}, mean", f"{sum(ends) / len(ends):.4f}"]
                        + [f"{mean_of(some, key):.4f}" for key in ("nats_per_token", "bits_per_byte", "mtp_loss")]
                        + [percent(mean_of(some, "mtp_acceptance"), 1)])
    curves = {f"main, lambda {name}": numbers.mean_curve([run.smooth() for run in some])
              for name, some in (("0", off), ("0.3", on))}
    error = numbers.relative_error(curves["main, lambda 0.3"], curves["main, lambda 0"])
    curves["MTP, lambda 0.3"] = numbers.mean_curve([run.smooth("mtp_loss") for run in on])
    pictures = {
        "mtp-loss": plot_metrics.draw(curves, f"Smoothed losses, mean of {count}", "step", "nats per token", smooth=False),
        "mtp-difference": plot_metrics.draw({"lambda 0.3 against 0": as_percent(error)}, "Relative difference of the main loss",
                                            "step", "percent", smooth=False, marks=(0,)),
    }
    held = mean_of(on) / mean_of(off) - 1
    late = [value for _, value in numbers.second_half(error, on[0].steps)]
    trained = sum(late) / len(late)
    seeds = max(numbers.spread([run.validation() for run in some]) for some in (on, off))
    noise = (f" Seeds lie {percent(seeds)} apart, so {'this is more' if abs(held) > seeds else 'this is less'} than what a seed "
             "makes." if len(on) > 1 else "")
    text = f"""# The MTP loss: what the main model gains, and how often its drafts are right

The multi-token prediction layer (report section 2.2) predicts the token after next; its loss, times lambda, also reaches the main
model's layers. The report uses lambda 0.3 and then 0.1, and accepts 85 to 90 % of its second tokens.

{setting(runs)}
- All in bf16. With lambda 0 the layer is there, and nothing teaches it: its loss and acceptance are what an untrained layer has. The main
  model is then trained as without the layer, but for that layer's balance loss (alpha 0.0001).
- Acceptance: of the held-out tokens, how often the MTP layer's best guess two positions earlier was the main model's own best guess, that is, what
  a greedy decoder would accept.

{table(["", "smoothed main loss at the end", "held out, nats per token", "bits per byte", "MTP loss", "acceptance"], rows)}

- Held-out main loss, lambda 0.3 against 0, mean of {count}: {signed(held)}.{noise}
- Smoothed main training loss, lambda 0.3 against 0, mean over the second half: {signed(trained)}.

![Both main losses, and the MTP loss](../images/mtp-loss.svg)

![The relative difference of the main loss by step](../images/mtp-difference.svg)

{commands("mtp", runs)}"""
    return "mtp", text, pictures


PAGES = {"parity": parity, "balance": balance, "mtp": mtp}


def write(experiment, runs, docs):
    """Writes the page and its pictures below `docs`; the paths of what was written."""
    name, text, pictures = PAGES[experiment](runs)
    files = {docs / "experiments" / f"{name}.md": text}
    files.update({docs / "images" / f"{key}.svg": svg for key, svg in pictures.items()})
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content.rstrip("\n") + "\n")
    return list(files)
