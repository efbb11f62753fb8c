#!/usr/bin/env python3
"""tools/parity.py must measure what it says: its arithmetic by hand, its pages and its driver on runs made up here."""
import json
import math
import unittest

import fake_study  # before the tools: it says where they lie
import parity  # noqa: E402
import parity_numbers as numbers  # noqa: E402
import parity_pages as pages  # noqa: E402

# Stands in for `cachalot`: a "run" of 8 steps whose loss is the precision's, written as the trainer writes it. Asked to
# stop at step 3 by a file, it does so once; every start is noted.
FAKE = '''#!{python}
import json, pathlib, sys
args = sys.argv[1:]
if "info" in args:
    print(json.dumps({{"version": "0", "cpu": "paper", "level": "ref", "cores": 2, "memory_bytes": 1}}))
    sys.exit()
sets = dict(args[i + 1].split("=", 1) for i, a in enumerate(args) if a == "--set")
run = pathlib.Path(args[args.index("--run") + 1])
run.mkdir(parents=True, exist_ok=True)
with open("starts.txt", "a") as out:
    out.write(run.name + (" resumed" if "--resume" in args else "") + "\\n")
if (run / "recipe.toml").exists() != ("--resume" in args):
    sys.exit("the folder has a run already" if "--resume" not in args else "nothing to resume")
(run / "recipe.toml").write_text("")
loss = {{"bf16": 2.0, "fp8": 2.004, "f32": 2.0}}[sets["run.precision"]] + 0.01 * int(sets["run.seed"])
stop = pathlib.Path("stop_" + run.name)
steps = 3 if stop.exists() else 8
stop.unlink(missing_ok=True)
line = {{"loss": loss, "mtp_loss": 3.0, "tokens_per_s": 512.0, "expert_imbalance": [4.0, 1.5]}}
(run / "metrics.jsonl").write_text("".join(json.dumps({{"step": i + 1, **line}}) + "\\n" for i in range(steps)))
print(json.dumps({{"ended": "done" if steps == 8 else "stopped", "step": steps, "tokens": 1024 * steps, "skipped_steps": 0,
    "seconds": 1.0, "parameters": 9000000, "optimizer_bytes_per_parameter": 8.0, "validation": {{"nats_per_token": loss,
    "bits_per_byte": loss / 2, "mtp_loss": 3.0, "mtp_acceptance": 0.5, "tokens": 1000}}}}))
'''


def made_up(name, losses, held_out, **more):
    lines = [{"step": i + 1, "loss": loss, "mtp_loss": 3.0, "tokens_per_s": 1000.0, "expert_imbalance": [2.0, 1.5]}
             for i, loss in enumerate(losses)]
    result = {"step": len(losses), "tokens": 1000 * len(losses), "skipped_steps": 0, "parameters": 9e6,
              "optimizer_bytes_per_parameter": 8.0,
              "validation": {"nats_per_token": held_out, "bits_per_byte": held_out / 2, "mtp_loss": 3.0, "mtp_acceptance": 0.5,
                             "tokens": 10}}
    machine = {"cpu": "paper", "cores": 2, "level": "ref"}
    info = {"machine": machine, "threads": 1, "jobs": 2, "set": [], "peak_rss_bytes": 2**20, **more}
    return numbers.Finished(name, ["cachalot", "train", name], result, info, lines)


class Arithmetic(unittest.TestCase):
    def test_the_ema_by_hand(self):
        self.assertEqual(numbers.ema([]), [])
        for got, want in zip(numbers.ema([4.0, 2.0, 3.0]), [4.0, 3.8, 3.72]):
            self.assertAlmostEqual(got, want, places=12)
        self.assertEqual(numbers.ema([5.0] * 4), [5.0] * 4)

    def test_the_relative_error_has_the_base_below(self):
        error = numbers.relative_error([(1, 3.0), (2, 1.0), (4, 9.0)], [(1, 2.0), (2, 4.0), (3, 1.0)])
        self.assertEqual(error, [(1, 0.5), (2, -0.75)])

    def test_the_second_half_begins_behind_the_middle(self):
        points = [(step, float(step)) for step in range(1, 9)]
        self.assertEqual([step for step, _ in numbers.second_half(points, 8)], [5, 6, 7, 8])
        self.assertEqual([step for step, _ in numbers.second_half(points[:7], 7)], [4, 5, 6, 7])

    def test_largest_and_mean_are_of_magnitudes_and_see_the_second_half_alone(self):
        largest, mean = numbers.largest_and_mean([(1, 9.0), (2, 9.0), (3, -0.5), (4, 0.1)], 4)
        self.assertEqual(largest, 0.5)
        self.assertAlmostEqual(mean, 0.3)

    def test_mean_curves_medians_and_spread(self):
        self.assertEqual(numbers.mean_curve([[(1, 1.0), (2, 2.0)], [(2, 4.0), (3, 5.0)]]), [(2, 3.0)])
        self.assertEqual(numbers.median([3.0, 1.0, 2.0]), 2.0)
        self.assertEqual(numbers.median([4.0, 1.0, 2.0, 3.0]), 2.5)
        self.assertAlmostEqual(numbers.spread([1.0, 3.0, 2.0]), 1.0)

    def test_a_step_without_a_loss_is_no_point_of_the_curve(self):
        run = made_up("bf16-seed1", [1.0, None, math.nan, 2.0], 1.0)
        self.assertEqual(run.curve(), [(1, 1.0), (4, 2.0)])
        self.assertEqual(made_up("a", [1.0] * 4, 1.0).seconds_per_step(), 1.0)


class Pages(unittest.TestCase):
    def parity(self, factor):
        """fp8 is worse by `factor` from its second half on, up in seed 1 and down in seed 2."""
        runs = [made_up(f"bf16-seed{seed}", [2.0] * 8, 2.0) for seed in (1, 2)]
        for seed, sign in ((1, 1), (2, -1)):
            runs.append(made_up(f"fp8-seed{seed}", [2.0] * 8 + [2.0 * (1 + sign * factor)] * 8, 2.0 * (1 + factor)))
            runs[seed - 1].lines += [dict(line, step=line["step"] + 8) for line in runs[seed - 1].lines]
            runs[seed - 1].result["step"] = 16
        runs += [made_up(f"{kind}-seed1", [2.0] * 16, 2.0) for kind in ("fp8-tensor", "fp8-block-gradients")]
        return pages.parity({run.name: run for run in runs})

    def test_the_largest_error_is_that_of_the_last_step(self):
        # After eight steps of x the mean has gone 1 - 0.9^8 of the way: 0.5695 of 1 %.
        name, text, pictures = self.parity(0.01)
        self.assertEqual(name, "fp8-parity")
        self.assertIn("| seed 1 | 0.570 % |", text)
        self.assertIn("+0.570 %", text)
        self.assertIn("-0.570 %", text)
        self.assertEqual(len(pictures), 3)

    def test_what_is_too_far_is_said_to_be(self):
        _, bad, _ = self.parity(0.01)
        _, good, _ = self.parity(0.001)
        # Of the mean loss the two seeds cancel; of the magnitudes and of the held-out text they do not.
        self.assertEqual((bad.lower().count("**not met**"), good.lower().count("**not met**")), (2, 0))
        self.assertIn("Of the mean loss met", bad)


class Drive(fake_study.Drive):
    FAKE = FAKE
    TOOLS = ("parity.py", "parity_numbers.py", "parity_pages.py", "plot_metrics.py", "study.py")

    def setUp(self):
        super().setUp()
        (self.at / "recipe.toml").write_text("[run]  # a comment\n")

    def drive(self, *more):
        return self.run_tool(*more, "--recipe", str(self.at / "recipe.toml"), "--jobs", "2")

    def test_every_experiment_ends_in_its_page_and_shares_its_runs(self):
        got = self.drive("parity", "balance", "mtp", "--seeds", "2", "--control")
        self.assertEqual(got.returncode, 0, got.stderr)
        self.assertEqual(len(self.starts()), 7 + 3 + 2)
        self.assertEqual(len(set(self.starts())), 12)
        page = (self.at / "docs/experiments/fp8-parity.md").read_text()
        self.assertIn("| seed 2 | 0.198 % | 0.198 % | +0.198 % |", page)  # 2.024 / 2.02
        self.assertIn("cachalot --threads 1 train recipe.toml --run runs/parity/fp8-seed2 --set data.corpus=text.txt "
                      "--set run.precision=fp8 --set run.seed=2", page)
        self.assertIn("| bias, gamma 0.001, MoE layer 1 | 4.00 |", (self.at / "docs/experiments/aux-free-balance.md").read_text())
        self.assertIn("50.0 %", (self.at / "docs/experiments/mtp.md").read_text())
        for picture in (self.at / "docs/images").iterdir():
            self.assertIn(f"(../images/{picture.name})", "".join(p.read_text() for p in (self.at / "docs/experiments").iterdir()))
        before = page
        again = self.drive("parity", "--seeds", "2", "--control", "--pages-only")
        self.assertEqual((again.returncode, (self.at / "docs/experiments/fp8-parity.md").read_text()), (0, before))
        self.assertEqual(len(self.starts()), 12)

    def test_a_run_that_was_stopped_goes_on_and_finished_ones_are_not_repeated(self):
        (self.at / "stop_no-mtp-loss-seed1").write_text("")
        got = self.drive("mtp", "--seeds", "1")
        self.assertEqual(got.returncode, 1)
        self.assertIn("no-mtp-loss-seed1 was stopped at step 3", got.stderr)
        self.assertFalse((self.at / "docs").exists())
        self.assertEqual(self.drive("mtp", "--seeds", "1").returncode, 0)
        self.assertEqual(self.starts().count("no-mtp-loss-seed1 resumed"), 1)
        self.assertLessEqual(self.starts().count("bf16-seed1"), 1)
        count = len(self.starts())
        self.assertEqual(self.drive("mtp", "--seeds", "1").returncode, 0)
        self.assertEqual(len(self.starts()), count)

    def test_a_folder_with_another_run_is_refused(self):
        self.assertEqual(self.drive("mtp", "--seeds", "1").returncode, 0)
        (self.at / "recipe.toml").write_text("[run]  # another comment changes nothing\n")
        self.assertEqual(self.drive("mtp", "--seeds", "1").returncode, 0)
        (self.at / "recipe.toml").write_text("[run]\nseed = 3\n")
        got = self.drive("mtp", "--seeds", "1")
        self.assertEqual(got.returncode, 1)
        self.assertIn("another recipe", got.stderr)
        self.assertIn("--runs DIR", got.stderr)

    def test_a_run_that_fails_is_named_with_its_log(self):
        (self.at / "runs/parity/bf16-seed1").mkdir(parents=True)
        (self.at / "runs/parity/bf16-seed1/recipe.toml").mkdir()  # the stand-in cannot write it
        got = self.drive("mtp", "--seeds", "1")
        self.assertEqual(got.returncode, 1)
        self.assertIn("bf16-seed1 failed", got.stderr)
        self.assertIn("log.txt", got.stderr)


class Runs(unittest.TestCase):
    def test_a_pair_differs_in_its_precision_alone(self):
        runs = {run.name: set(run.sets) for run in parity.runs_of("parity", 3, False)}
        self.assertEqual(len(runs), 8)
        for seed in (1, 2, 3):
            self.assertEqual(runs[f"bf16-seed{seed}"] ^ runs[f"fp8-seed{seed}"], {"run.precision=bf16", "run.precision=fp8"})
        self.assertEqual(runs["fp8-block-gradients-seed1"] - runs["fp8-seed1"], {"numerics.gradient_tile=128x128"})


if __name__ == "__main__":
    unittest.main()
