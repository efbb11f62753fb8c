#!/usr/bin/env python3
"""tools/design_study.py must say what came out: its numbers by hand, its page and its driver on runs made up here."""
import json
import pathlib
import shutil
import types
import unittest

import fake_study  # before the tools: it says where they lie
import bible_chapters  # noqa: E402
import design_pace as pace  # noqa: E402
import design_pages as pages  # noqa: E402
import design_study  # noqa: E402
import parity_numbers as numbers  # noqa: E402

RECIPE = """[model]
init_std = 0.02
init_embedding_mean = 0.0
[data]
train_bpe = 256
seq_len = 512
[optimizer]
lr = 0.002
beta2 = 0.99
weight_decay = 0.2
[schedule]
batch = 4
warmup_steps = 10
min_lr_ratio = 0.02
[regularization]
dropout = 0.05
[run]
precision = "bf16"
"""

# Stands in for `cachalot`: a profile, a plan, and a "run" of 8 steps whose bits per byte come from its recipe's name and its
# seed. Asked to stop at step 3 by a file, it does so once, or dies; every start is noted. A run in the folder "pace" takes 0.45 s a
# step, the n-th of a recipe 10 n % longer, and its first step ten times as long.
FAKE = '''#!{python}
import json, os, pathlib, signal, sys
args = sys.argv[1:]
if "info" in args:
    print(json.dumps({{"version": "0", "cpu": "paper", "level": "ref", "cores": 2, "memory_bytes": 1}}))
    sys.exit()
with open("starts.txt", "a") as out:
    word = args[args.index("--run") + 1].split("/")[-1] if "--run" in args else " ".join(args[args.index("plan"):][:2])
    out.write(word + (" resumed" if "--resume" in args else "") + "\\n")
if "probe" in args:
    pathlib.Path(args[args.index("--out") + 1]).write_text("measured")
    sys.exit()
if "design" in args:
    folder = pathlib.Path(args[args.index("--out") + 1])
    folder.mkdir(parents=True, exist_ok=True)
    hands = [pathlib.Path(b).stem for a, b in zip(args, args[1:]) if a == "--beside"]
    for name in ["recipe", *hands]:
        (folder / (name + ".toml")).write_text("# " + name + "\\n" + open("details.toml").read())
    one = json.load(open("predicted.json"))
    print(json.dumps({{"law": "a law", "unique_tokens": 1000, "best": dict(one, layers=6), "by_hand": [
        dict(one, name=name, unique_tokens=500) for name in hands]}}))
    sys.exit()
sets = dict(args[i + 1].split("=", 1) for i, a in enumerate(args) if a == "--set")
run = pathlib.Path(args[args.index("--run") + 1])
run.mkdir(parents=True, exist_ok=True)
if (run / "recipe.toml").exists() != ("--resume" in args):
    sys.exit("the folder has a run already" if "--resume" not in args else "nothing to resume")
(run / "recipe.toml").write_text("")
name = pathlib.Path(args[args.index("train") + 1]).stem
loss = {{"recipe": 1.8, "small": 1.9}}.get(name, 2.0) + 0.01 * int(sets["run.seed"])
stop = pathlib.Path("stop_" + run.name)
steps = 3 if stop.exists() else 8
lines = []
if run.name == "pace":
    with open("turns.txt", "a+") as turns:
        turns.write(name + "\\n")
        turns.seek(0)
        turn = turns.read().split().count(name)
    elapsed = [4.5 + (0.45 + 0.045 * turn) * i for i in range(40)]
    (run / "metrics.jsonl").write_text("".join(json.dumps({{"step": i + 1, "loss": 5.0, "elapsed_s": at}}) + "\\n"
                                               for i, at in enumerate(elapsed)))
    print("{{}}")
    sys.exit()
for i in range(steps):
    lines.append({{"step": i + 1, "loss": loss, "tokens_per_s": 512.0, "elapsed_s": 450 * (i + 1)}})
    if i + 1 in (4, 8):
        lines.append({{"step": i + 1, "validation_loss": loss, "validation_bits_per_byte": loss + 0.1 * (8 - i - 1)}})
(run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in lines))
if stop.exists():
    how = stop.read_text()
    stop.unlink()
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
print(json.dumps({{"ended": "done" if steps == 8 else "stopped", "step": steps, "tokens": 2048 * steps, "skipped_steps": 0,
    "seconds": 3600.0, "parameters": 9000000, "optimizer_bytes_per_parameter": 8.0, "validation": {{"nats_per_token": 1.3,
    "bits_per_byte": loss, "mtp_loss": 3.0, "mtp_acceptance": 0.5, "tokens": 1000}}}}))
'''

PREDICTED = {"layers": 4, "hidden_size": 256, "heads": 4, "kv_lora_rank": 96, "experts": 8, "topk": 2, "expert_width": 192,
             "active_parameters": 4e6, "parameters": 8e6, "batch": 4, "steps": 80.0, "tokens": 16000.0, "tokens_per_s": 640.0,
             "loss": 5.7, "bits_per_byte": 1.8}


def made_up(name, bits, seconds=60.0, speed=500.0):
    lines = [{"step": i + 1, "loss": 1.0, "tokens_per_s": speed, "elapsed_s": seconds * (i + 1) / 4} for i in range(4)]
    lines.append({"step": 4, "validation_loss": 1.0, "validation_bits_per_byte": bits})
    result = {"step": 4, "tokens": 4000, "seconds": seconds, "parameters": 9e6,
              "validation": {"nats_per_token": 1.0, "bits_per_byte": bits}}
    info = {"machine": {"cpu": "paper", "cores": 2, "level": "ref"}, "threads": 2, "jobs": 1}
    return numbers.Finished(name, ["cachalot", "train", name], result, info, lines)


class Told(pages.Told):
    """Without files."""

    def recipe(self, arm):
        return design_study.design_pages.tomllib.loads(RECIPE)


def told(*hands):
    plan = {"law": "a law", "unique_tokens": 1000, "best": PREDICTED,
            "by_hand": [dict(PREDICTED, name=name, unique_tokens=500, bits_per_byte=bits) for name, bits in hands]}
    options = types.SimpleNamespace(budget="1min", seeds=2, threads=2, set=[], hardware=None, precision="bf16", beside=[pathlib.Path("configs/small.toml")], docs=None)
    pace = {name: {"seconds_per_step": [1.8, 2.0, 3.0], "steps": 30} for name in ("design", *(name for name, _ in hands))}
    return Told(plan, pace, 1.0, options, [["cachalot", "plan"]], pathlib.Path("text.txt"), "text.txt", None)


def finished(**arms):
    """{name: run} of bits per byte by seed."""
    return {f"{arm}-seed{seed}": made_up(f"{arm}-seed{seed}", value) for arm, values in arms.items()
            for seed, value in enumerate(values, 1)}


class Page(unittest.TestCase):
    def page(self, runs, *hands, names=None):
        return pages.page(told(*hands), names or list(runs), runs)

    def test_the_table_has_means_spreads_and_differences(self):
        text = self.page(finished(design=[1.80, 1.82], small=[1.90, 1.91]), ("small", 1.9))
        self.assertIn("| design | 1.8000 | 1.8200 | **1.8100** | 0.0200 |  |", text)
        self.assertIn("| small | 1.9000 | 1.9100 | **1.9050** | 0.0100 | +5.25 % |", text)
        self.assertIn("Asked: a lower mean than each of the others. Met.", text)
        self.assertIn("- Better than small: 1.8100 against 1.9050 bits per byte, -4.99 %. Every run of the design is below", text)

    def test_a_design_that_loses_is_said_to(self):
        text = self.page(finished(design=[1.95, 1.96], small=[1.90, 1.91], large=[2.0, 2.1]), ("small", 1.9), ("large", 1.7))
        self.assertIn("**not met**", text)
        self.assertIn("- **Worse** than small: 1.9550 against 1.9050", text)
        self.assertIn("Every run of the design is above every run of the other.", text)
        self.assertIn("- Better than large", text)
        # The law had the large one first.
        self.assertIn("It does **not** have them in the order that was measured: small, design, large.", text)

    def test_runs_that_overlap_and_single_runs_settle_nothing(self):
        text = self.page(finished(design=[1.80, 1.92], small=[1.90, 1.91]), ("small", 1.9))
        self.assertIn("Single runs overlap", text)
        text = self.page(finished(design=[1.80], small=[1.90]), ("small", 1.9), names=["design-seed1", "small-seed1", "design-seed2"])
        self.assertIn("One run each", text)
        self.assertIn("**2 of 3 runs are finished**", text)
        self.assertIn("Met so far.", text)
        self.assertIn("Missing: design-seed2.", text)
        text = self.page(finished(design=[1.80], small=[1.90, 1.91]), ("small", 1.9))
        self.assertIn("One run of the design: how far seeds", text)

    def test_speeds_and_texts_read_are_by_hand(self):
        text = self.page(finished(design=[1.8], small=[1.9]), ("small", 1.9))
        # 1000 tokens a step, 2 s the median one.
        self.assertIn("| design | 640 | 500 | +28.0 % | 333 to 556 | 1.0 |", text)
        # 4000 tokens of 1000, and of the 500 that the other recipe cuts the text into.
        self.assertIn("| 2048 | 0.002 | 4 | 0.0 M | 4.0 |", text)
        self.assertIn("| 2048 | 0.002 | 4 | 0.0 M | 8.0 |", text)

    def test_how_runs_were_run_is_said(self):
        runs = finished(design=[1.8], small=[1.9])
        runs["small-seed1"].info.update(jobs=2, threads=1)
        self.assertIn("one run after the other, 2 threads each; 2 runs side by side, 1 thread each.", self.page(runs, ("small", 1.9)))

    def test_curves_are_means_at_the_measured_pace(self):
        runs = [made_up("a", 1.8), made_up("b", 2.0, seconds=66.0)]
        ((minutes, value),) = pages.held_out_curve(runs, 0.25)
        self.assertAlmostEqual(minutes, 1.0)
        self.assertAlmostEqual(value, 1.9)
        self.assertEqual([minutes for minutes, _ in pages.training_curve(runs[0], 0.25)], [0.25, 0.5, 0.75, 1.0])


class Pace(unittest.TestCase):
    def test_the_first_tenth_is_left_out(self):
        lines = [{"step": i + 1, "loss": 1.0, "elapsed_s": at} for i, at in enumerate([9.0, 18.0, *(18.0 + 0.5 * k for k in range(1, 19))])]
        self.assertAlmostEqual(pace.seconds_per_step(lines), 0.5 * 17 / 17)
        self.assertAlmostEqual(pace.seconds_per_step(lines[:2]), 9.0)
        self.assertIsNone(pace.seconds_per_step(lines[:1]))
        self.assertIsNone(pace.seconds_per_step([{"step": 4, "validation_loss": 1.0}]))


class Drive(fake_study.Drive):
    FAKE = FAKE
    TOOLS = ("design_study.py", "bible_chapters.py", "design_pace.py", "design_pages.py", "parity_numbers.py", "plot_metrics.py", "study.py")

    def setUp(self):
        super().setUp()
        (self.at / "details.toml").write_text(RECIPE)
        (self.at / "predicted.json").write_text(json.dumps(PREDICTED))
        for name in ("small", "large"):
            (self.at / f"{name}.toml").write_text("[model]  # by hand\n")

    def drive(self, *more):
        beside = [word for name in ("small", "large") for word in ("--beside", str(self.at / f"{name}.toml"))]
        return self.run_tool("--threads", "2", "--seeds", "2", *beside, *more)

    def page(self):
        return (self.at / "docs/experiments/design.md").read_text()

    def test_a_study_from_profile_to_page(self):
        got = self.drive()
        self.assertEqual(got.returncode, 0, got.stderr)
        self.assertEqual(self.starts(), ["plan probe", "plan design", *["pace"] * 15, "design-seed1", "small-seed1", "large-seed1",
                                         "design-seed2", "small-seed2", "large-seed2"])
        self.assertEqual((self.at / "turns.txt").read_text().split(), ["recipe", "small", "large"] * 5)
        found = json.loads((self.at / "runs/design-study/pace.json").read_text())
        for name in ("design", "small", "large"):
            for turn, seconds in enumerate(found[name]["seconds_per_step"], 1):
                self.assertAlmostEqual(seconds, 0.45 + 0.045 * turn)
            self.assertIn(found[name]["steps"], (6153, 6154))  # 3600 s of 0.585 s
        self.assertIn("| design | 1.8100 | 1.8200 | **1.8150** |", self.page())
        self.assertIn("cachalot --threads 2 train runs/design-study/plan/small.toml --run runs/design-study/small-seed2 --set "
                      f"data.corpus=text.txt --set schedule.steps={found['small']['steps']} --set run.fit_minutes=0 --set "
                      "run.max_minutes=0 --set run.seed=2 --set run.eval_every=1538 --set run.checkpoint_every=205 --set "
                      "run.log_every=12", self.page())
        for picture in (self.at / "docs/images").iterdir():
            self.assertIn(f"(../images/{picture.name})", self.page())
        before = self.page()
        self.assertEqual(self.drive("--pages-only").returncode, 0)
        self.assertEqual(self.page(), before)
        self.assertEqual(self.drive().returncode, 0)
        self.assertEqual(len(self.starts()), 23)

    def test_a_run_that_was_killed_goes_on_and_the_rest_is_not_repeated(self):
        (self.at / "stop_small-seed1").write_text("die")
        got = self.drive()
        self.assertEqual(got.returncode, 1)
        self.assertIn("small-seed1 failed", got.stderr)
        self.assertFalse((self.at / "docs").exists())
        (self.at / "stop_large-seed2").write_text("stop")
        got = self.drive()
        self.assertEqual(got.returncode, 1)
        self.assertIn("large-seed2 was stopped at step 3; the same command goes on", got.stderr)
        self.assertIn("**5 of 6 runs are finished**", self.page())
        self.assertEqual(self.drive().returncode, 0)
        starts = self.starts()
        self.assertEqual(starts.count("small-seed1 resumed"), 1)
        self.assertEqual(starts.count("large-seed2 resumed"), 1)
        self.assertEqual(starts.count("design-seed1") + starts.count("plan design") + starts.count("plan probe"), 3)
        self.assertNotIn("runs are finished**", self.page())

    def test_pieces_end_in_time_and_say_what_is_left(self):
        got = self.drive("--minutes", "0.0001")
        self.assertEqual(got.returncode, 0, got.stderr)
        self.assertIn("6 runs of 1h, 0 finished", got.stderr)
        self.assertIn("time is up", got.stderr)
        self.assertFalse((self.at / "docs").exists())
        self.assertEqual(self.drive("--budget", "soon").returncode, 1)

    def test_another_study_in_the_folder_is_refused(self):
        self.assertEqual(self.drive("--plan-only").returncode, 0)
        self.assertEqual(self.starts(), ["plan probe", "plan design", *["pace"] * 15])
        got = self.drive("--plan-only", "--budget", "30min")
        self.assertEqual(got.returncode, 1)
        self.assertIn("another budget", got.stderr)
        (self.at / "small.toml").write_text("[model]\nhidden_size = 64\n")
        got = self.drive("--plan-only")
        self.assertEqual(got.returncode, 1)
        self.assertIn("other recipes", got.stderr)
        self.assertEqual(len(self.starts()), 17)

    def test_a_record_goes_on_where_another_machine_stopped(self):
        record = str(self.at / "record")
        (self.at / "stop_small-seed1").write_text("stop")
        self.assertEqual(self.drive("--record", record).returncode, 1)
        shutil.rmtree(self.at / "runs")  # checkpoints are not kept: small-seed1 begins again
        begun = self.at / "runs/design-study/design-seed1/metrics.jsonl"
        begun.parent.mkdir(parents=True)
        begun.write_text("")
        (self.at / "starts.txt").unlink()
        got = self.drive("--record", record, "--jobs", "2")
        self.assertEqual(got.returncode, 0, got.stderr)
        self.assertEqual(sorted(self.starts()), ["design-seed2", "large-seed1", "large-seed2", "small-seed1", "small-seed2"])
        self.assertIn("6 runs of 1h, 1 finished", got.stderr)
        self.assertIn("2 at a time, 1 threads each", got.stderr)
        self.assertEqual(len(begun.read_text().splitlines()), 10)
        page = self.page()
        shutil.rmtree(self.at / "runs")
        shutil.rmtree(self.at / "docs")
        self.assertEqual(self.drive("--record", record, "--jobs", "2", "--pages-only").returncode, 0)  # a record alone is enough for the page
        self.assertEqual(self.page(), page)
        self.assertIn("one run after the other, 2 threads each; 2 runs side by side, 1 thread each.", self.page())
        kept = sorted(str(path.relative_to(record)) for path in pathlib.Path(record).rglob("*") if path.is_file())
        runs = [f"{name}-seed{seed}/{file}" for name in ("design", "large", "small") for seed in (1, 2)
                for file in ("asked.json", "finished.json", "metrics.jsonl")]
        self.assertEqual(kept, sorted(["machine.toml", "pace.json", "plan.asked.json", "plan.json", "plan/large.toml", "plan/recipe.toml",
                                       "plan/small.toml", *runs]))


class Chapters(unittest.TestCase):
    TEXT = b"Ge1:1 In the beginning\nGe1:2 And the earth\nGe2:1 Thus\n1Ki1:1 Now king\n  David was old\nRev22:1 And he\n"

    def test_chapters_stay_whole_and_none_is_lost(self):
        found = bible_chapters.chapters(self.TEXT)
        self.assertEqual(list(found), [b"Ge1", b"Ge2", b"1Ki1", b"Rev22"])
        self.assertEqual(found[b"1Ki1"], b"1Ki1:1 Now king\n  David was old\n")
        drawn = bible_chapters.drawn(self.TEXT)
        self.assertEqual(bible_chapters.chapters(drawn), found)
        self.assertEqual(list(bible_chapters.chapters(drawn)), [b"Rev22", b"Ge1", b"Ge2", b"1Ki1"])  # by sha256sum
        self.assertEqual(bible_chapters.drawn(drawn), drawn)

    def test_another_text_is_refused(self):
        with self.assertRaisesRegex(SystemExit, "no verse"):
            bible_chapters.chapters(b"Call me Ishmael.\n")


class Time(unittest.TestCase):
    def test_budgets_and_durations(self):
        self.assertEqual([design_study.minutes_of(text) for text in ("1h", "90min", "0.5h")], [60, 90, 30])
        for bad in ("1", "h", "-1h", "0min", "10USD"):
            with self.assertRaises(SystemExit):
                design_study.minutes_of(bad)
        self.assertEqual([design_study.duration(x) for x in (0.4, 59, 60, 594)], ["0 min", "59 min", "1 h 0 min", "9 h 54 min"])


if __name__ == "__main__":
    unittest.main()
