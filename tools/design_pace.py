"""How many steps of each recipe fit a time: measured before the runs, all recipes in turns, so that a slow minute falls on each of them.

Runs of so many steps are the same bits whenever and wherever they go on, on a busy machine too, and whatever the number of threads;
only this measurement needs an idle one.
"""
import shutil
import subprocess

from parity_numbers import median, read_lines
from study import REPO, short


def seconds_per_step(lines):
    """Of the metrics of a short run, without its first tenth: pages are touched and caches filled there."""
    times = [(line["step"], line["elapsed_s"]) for line in lines if line.get("elapsed_s") is not None and line.get("loss") is not None]
    if len(times) < 2:
        return None
    (first, began), (last, ended) = times[min(len(times) // 10, len(times) - 2)], times[-1]
    return (ended - began) / (last - first)


def command(driver, recipe, folder, seconds):
    line = [short(driver.o.cachalot), "--threads", str(driver.o.threads), "train", short(recipe), "--run", short(folder)]
    for value in (f"data.corpus={short(driver.corpus)}", "run.fit_minutes=0", f"run.max_minutes={seconds / 60:g}", "run.seed=1",
                  "run.eval_every=1000000", "run.eval_batches=1", "run.checkpoint_every=1000000", "run.log_every=1", *driver.o.set):
        line += ["--set", value]
    return line + ["--json"]


def one_turn(driver, name, recipe, seconds):
    folder = driver.root / "pace"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    line = command(driver, recipe, folder, seconds)
    done = subprocess.run(line, executable=driver.o.cachalot, cwd=REPO, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        driver.leave(f"{name} cannot be trained:\n{done.stderr.strip()[-2000:]}")
    took = seconds_per_step(read_lines(folder / "metrics.jsonl"))
    if took is None:
        driver.leave(f"{name}: fewer than two steps in {seconds:g} s; ask for longer turns with --pace-seconds N")
    shutil.rmtree(folder, ignore_errors=True)
    return took


def measure(driver, arms, turns, seconds):
    """{name: {"seconds_per_step": of each turn, "steps": that fit driver.limit minutes at the median}} of [(name, recipe)]."""
    took = {name: [] for name, _ in arms}
    for turn in range(1, turns + 1):
        for name, recipe in arms:
            took[name].append(one_turn(driver, name, recipe, seconds))
        driver.say(f"turn {turn} of {turns}: " + ", ".join(f"{name} {1000 * values[-1]:.1f} ms a step" for name, values in took.items()))
    return {name: {"seconds_per_step": values, "steps": max(1, int(60 * driver.limit / median(values)))} for name, values in took.items()}
