"""The page of tools/design_study.py: tables, pictures and verdict out of a plan and finished runs, and of nothing else.

Losses are bits per byte of the held-out text: recipes may cut the text into tokens in ways of their own, so nats per token do
not compare. The page says what came out, whoever won.
"""
import dataclasses
import pathlib
import shlex
import tomllib

import parity_numbers as numbers
import plot_metrics

DESIGN = "design"
CHAPTERS = "bible-chapters.txt"  # the text, where none is named


@dataclasses.dataclass
class Told:
    """What the runs themselves do not say."""
    plan: dict  # what `cachalot plan design --json` said
    pace: dict  # what design_pace.measure() said
    minutes: float
    options: object
    commands: list
    corpus: pathlib.Path
    corpus_name: str  # as the commands have it
    recipes: pathlib.Path  # the folder that the plan wrote

    def arms(self):
        return [DESIGN] + [one["name"] for one in self.plan["by_hand"]]

    def predicted(self, arm):
        return self.plan["best"] if arm == DESIGN else next(one for one in self.plan["by_hand"] if one["name"] == arm)

    def step_minutes(self, arm):
        return numbers.median(self.pace[arm]["seconds_per_step"]) / 60

    def unique_tokens(self, arm):
        return self.plan["unique_tokens"] if arm == DESIGN else self.predicted(arm)["unique_tokens"]

    def recipe(self, arm):
        return tomllib.loads((self.recipes / ("recipe.toml" if arm == DESIGN else f"{arm}.toml")).read_text())


def mean(values):
    return sum(values) / len(values)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def runs_of(finished, arm):
    """[(seed, run)], by seed."""
    prefix = f"{arm}-seed"
    found = [(int(name[len(prefix):]), run) for name, run in finished.items()
             if name.startswith(prefix) and name[len(prefix):].isdigit()]
    return sorted(found, key=lambda pair: pair[0])


def bits(run):
    return run.validation("bits_per_byte")


def bits_of(finished, arm):
    return [bits(run) for _, run in runs_of(finished, arm)]


def verdict(told, finished):
    """(whether the design is better than every other, in means; the sentences that say so)."""
    own = bits_of(finished, DESIGN)
    lines, won = [], True
    for arm in told.arms()[1:]:
        other = bits_of(finished, arm)
        gap = mean(other) - mean(own)
        better = gap > 0
        won = won and better
        line = (f"- {'Better' if better else '**Worse**' if gap < 0 else '**Not better**'} than {arm}: {mean(own):.4f} against "
                f"{mean(other):.4f} bits per byte, {100 * (mean(own) / mean(other) - 1):+.2f} %.")
        if min(len(own), len(other)) == 1:
            who = "One run each" if len(own) == len(other) else f"One run of {'the design' if len(own) == 1 else 'the other'}"
            line += f" {who}: how far seeds lie apart is not known from that."
        elif max(own) < min(other):
            line += " Every run of the design is below every run of the other."
        elif max(other) < min(own):
            line += " Every run of the design is above every run of the other."
        else:
            line += " Single runs overlap: so few do not settle it."
        lines.append(line)
    return won, lines


def held_out_curve(some, step_minutes):
    """Mean over runs at each validation: [(minutes at the measured pace, bits per byte)]."""
    points = numbers.mean_curve([run.curve("validation_bits_per_byte") for run in some])
    return [(step * step_minutes, value) for step, value in points]


def training_curve(run, step_minutes):
    """Smoothed training loss in bits per byte: nats per token by the bytes of a held-out token."""
    factor = bits(run) / run.validation()
    return [(step * step_minutes, factor * value) for step, value in run.smooth()]


def pictures(told, finished):
    held = {arm: held_out_curve([run for _, run in runs_of(finished, arm)], told.step_minutes(arm)) for arm in told.arms()}
    trained = {arm: training_curve(runs_of(finished, arm)[0][1], told.step_minutes(arm)) for arm in told.arms()}
    # The first minutes lie far above the rest.
    late = {arm: [point for point in curve if point[0] > told.minutes / 20] or curve for arm, curve in trained.items()}
    return {
        "design-held-out": plot_metrics.draw({arm: curve for arm, curve in held.items() if curve},
                                             "Held-out loss, mean of the finished runs", "minutes of training", "bits per byte",
                                             smooth=False),
        "design-training": plot_metrics.draw(late, "Smoothed training loss, first seed", "minutes of training", "bits per byte",
                                             smooth=False),
    }


def loss_table(told, finished, seeds):
    own = mean(bits_of(finished, DESIGN))
    rows = []
    for arm in told.arms():
        by_seed = {seed: bits(run) for seed, run in runs_of(finished, arm)}
        values = list(by_seed.values())
        rows.append([arm] + [f"{by_seed[seed]:.4f}" if seed in by_seed else "" for seed in seeds]
                    + [f"**{mean(values):.4f}**", f"{max(values) - min(values):.4f}" if len(values) > 1 else "",
                       "" if arm == DESIGN else f"{100 * (mean(values) / own - 1):+.2f} %"])
    head = ["bits per byte of the held-out text", *(f"seed {seed}" for seed in seeds), "mean", "largest - smallest", "to the design"]
    return table(head, rows)


def shape(one):
    experts = (f"{one['topk']} of {one['experts']} experts of {one['expert_width']} and a shared one" if one["experts"] else "dense")
    return f"{one['layers']} layers of {one['hidden_size']}, {one['heads']} heads, latent {one['kv_lora_rank']}, {experts}"


def size_table(told, finished):
    rows = []
    for arm in told.arms():
        one, run, recipe = told.predicted(arm), runs_of(finished, arm)[0][1], told.recipe(arm)
        per_step = recipe["schedule"]["batch"] * recipe["data"]["seq_len"]
        tokens = mean([run.result["tokens"] for _, run in runs_of(finished, arm)])
        rows.append([arm, shape(one), f"{run.result['parameters'] / 1e6:.2f} M", f"{one['active_parameters'] / 1e6:.2f} M",
                     f"{per_step}", f"{recipe['optimizer']['lr']:.2g}", f"{run.steps:,}", f"{tokens / 1e6:.1f} M",
                     f"{tokens / told.unique_tokens(arm):.1f}"])
    return table(["", "shape", "parameters", "active in products", "tokens a step", "rate", "steps", "tokens trained", "times read"], rows)


def speed_table(told, finished):
    rows = []
    for arm in told.arms():
        some = [run for _, run in runs_of(finished, arm)]
        predicted, turns = told.predicted(arm)["tokens_per_s"], told.pace[arm]["seconds_per_step"]
        per_step = some[0].result["tokens"] / some[0].steps
        median, slow, fast = (per_step / seconds for seconds in (numbers.median(turns), max(turns), min(turns)))
        rows.append([arm, f"{predicted:,.0f}", f"{median:,.0f}", f"{100 * (predicted / median - 1):+.1f} %", f"{slow:,.0f} to {fast:,.0f}",
                     ", ".join(f"{run.result['seconds'] / 60:.1f}" for run in some)])
    return table(["", "predicted tokens/s", "median of the turns", "error", "turns", "minutes that the runs took"], rows)


def details_table(told):
    rows = []
    for arm in told.arms():
        r = told.recipe(arm)
        rows.append([arm, f"{r['regularization']['dropout']:g}", f"{r['optimizer']['weight_decay']:.3g}",
                     f"{r['optimizer']['beta2']:g}", f"{r['schedule']['warmup_steps']}", f"{r['schedule']['min_lr_ratio']:g}",
                     f"{r['model']['init_std']:g}", f"{r['model']['init_embedding_mean']:g}", r["run"]["precision"],
                     f"{r['data']['seq_len']}",
                     "bytes" if r["data"]["train_bpe"] == 256 else f"BPE {r['data']['train_bpe']}"])
    return table(["", "dropout", "weight decay", "beta2", "warm-up steps", "final rate", "initial weights", "embedding's mean",
                  "products", "sequence", "tokens"], rows)


def law_table(told, finished):
    rows = [[arm, f"{told.predicted(arm)['bits_per_byte']:.3f}", f"{mean(bits_of(finished, arm)):.3f}"] for arm in told.arms()]
    order = [sorted(told.arms(), key=key) for key in (lambda arm: told.predicted(arm)["bits_per_byte"],
                                                      lambda arm: mean(bits_of(finished, arm)))]
    same = "It has the three in the order that was measured." if order[0] == order[1] else \
        "It does **not** have them in the order that was measured: " + ", ".join(order[1]) + "."
    return table(["bits per byte", "by the law", "measured"], rows) + "\n\n" + same.replace("three", f"{len(rows)}")


def side_by_side(finished):
    """How the runs were run, which changes their minutes and nothing else."""
    ways = sorted({(run.info["jobs"], run.info["threads"]) for run in finished.values()})
    return "; ".join(("one run after the other" if jobs == 1 else f"{jobs} runs side by side")
                     + f", {threads} thread{'s' if threads != 1 else ''} each" for jobs, threads in ways)


def page(told, names, finished):
    won, lines = verdict(told, finished)
    seeds = sorted({seed for arm in told.arms() for seed, _ in runs_of(finished, arm)})
    one = next(iter(finished.values()))
    machine = one.info["machine"]
    turns = len(next(iter(told.pace.values()))["seconds_per_step"])
    whole = len(finished) == len(names)
    begun = "" if whole else (f"**{len(finished)} of {len(names)} runs are finished**; what follows is of those. Missing: "
                              f"{', '.join(name for name in names if name not in finished)}.\n\n")
    mark = ("met" if won else "**not met**") if whole else ("met so far" if won else "**not met** so far")
    commands = "\n".join(shlex.join(command) for command in told.commands)
    if told.corpus.name == CHAPTERS:
        text = "the King James Bible (Debian's `bible-kjv`), its chapters in a drawn order"
        commands = f"bible -f Gen1:1-Rev22:21 </dev/null | tools/bible_chapters.py > {shlex.quote(told.corpus_name)}\n{commands}"
    else:
        text = f"`{told.corpus.name}`"
    others = ", ".join(f"`configs/{path.name}`" if path.parent.name == "configs" else f"`{path.name}`" for path in told.options.beside)
    call = ["tools/design_study.py", "--budget", told.options.budget, "--seeds", str(told.options.seeds), "--threads",
            str(told.options.threads)]
    if told.corpus.name != CHAPTERS:
        call += ["--corpus", told.corpus_name]
    if told.options.hardware:
        call += ["--hardware", told.options.hardware.name]
    if told.options.precision != "bf16":
        call += ["--precision", told.options.precision]
    if [path.parent.name for path in told.options.beside] != ["configs"] * 2:
        for path in told.options.beside:
            call += ["--beside", path.name]
    for value in told.options.set:
        call += ["--set", value]
    return f"""# A design for {told.options.budget} against recipes made by hand

`cachalot plan design --budget {told.options.budget}` chooses a model for this machine and this text ([how](../planning-training.md)). Here it is trained beside
recipes made without it ({others}), each for the same time.

{begun}## Held-out loss

{loss_table(told, finished, seeds)}

Asked: a lower mean than each of the others. {mark[0].upper() + mark[1:] if mark[0] != '*' else mark}.

{chr(10).join(lines)}

![Held-out loss by minutes of training](../images/design-held-out.svg)

![Training loss by minutes of training](../images/design-training.svg)

## What was compared

{size_table(told, finished)}

- Text: {text}, its last tenth held out, all of it: each token predicted once, from half a sequence or more. Losses are bits per byte,
  which do not depend on how a text is cut into tokens.
- Time: each run has the steps of {told.minutes:g} minutes, by the speed of its recipe on the idle machine with {told.options.threads} threads: the median of
  {turns} turns, all recipes in each. So a slow minute of the machine costs no run its steps, and a run is the same bits
  wherever it goes on and whatever runs beside it. Validations and checkpoints are not counted.
- Machine: {machine['cpu']}, {machine['cores']} cores, kernels {machine['level']}; {side_by_side(finished)}.
- Parameters: all that are trained, with the MTP layer; active ones are those in products that a token uses, without it.
- A recipe's own are its sizes, initial weights, tokens, sequence, tokens of a step and learning rate, so a lead may be of any of these, not of the sizes alone
  ([what it is of](../planning-training.md#what-small-runs-say-of-the-laws)). What no part of a design says follows the same rules in all
  recipes (`cachalot plan design --beside`): dropout and weight decay by how often the text is read, beta2 by the tokens of a step, warm-up a
  fiftieth of the steps, decay by a cosine:

{details_table(told)}

## Predicted and measured

Speed, by the profile that `cachalot plan probe` measured, and as the turns before the runs had it:

{speed_table(told, finished)}

Loss, by the law ({told.plan['law']}) that chose the design, in bits per byte of its own kind of text:

{law_table(told, finished)}

## Again

```
{shlex.join(call)}
```

trains what is not there yet (`--minutes N` in pieces) and writes this page. The same by hand:

```
{commands}
```
"""


def write(told, names, finished):
    """Writes the page and its pictures below the docs; the paths of what was written. Nothing without a run of each recipe."""
    if any(not runs_of(finished, arm) for arm in told.arms()):
        return []
    docs = told.options.docs
    files = {docs / "experiments" / "design.md": page(told, names, finished)}
    files.update({docs / "images" / f"{key}.svg": svg for key, svg in pictures(told, finished).items()})
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content.rstrip("\n") + "\n")
    return list(files)
