"""What tools/parity.py measures: finished runs read from their folders, and the arithmetic on their losses.

The smoothed loss is s_1 = x_1, s_t = 0.9 s_(t-1) + 0.1 x_t. The relative error of a run against another one at a step is
(a - b) / b of their smoothed losses, signed; maxima and means are of its magnitude over the second half of the steps.
"""
import dataclasses
import json
import math
import pathlib

EMA = 0.9


def ema(values, keep=EMA):
    """The running mean of the field's loss plots; begins at the first value, so nothing needs correcting."""
    out = []
    for value in values:
        out.append(keep * out[-1] + (1 - keep) * value if out else value)
    return out


def smoothed(points):
    """[(step, value)] with the values smoothed."""
    return list(zip((step for step, _ in points), ema([value for _, value in points])))


def relative_error(points, base):
    """[(step, (a - b) / b)] of two smoothed curves, at the steps that both have."""
    of_base = dict(base)
    return [(step, value / of_base[step] - 1) for step, value in points if step in of_base]


def mean_curve(curves):
    """The mean of several curves at the steps that all of them have."""
    tables = [dict(curve) for curve in curves]
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    return [(step, sum(table[step] for table in tables) / len(tables)) for step in steps]


def second_half(points, steps):
    """The points behind the middle of a run of so many steps."""
    return [(step, value) for step, value in points if 2 * step > steps]


def largest_and_mean(points, steps):
    """Of the magnitudes in the second half."""
    sizes = [abs(value) for _, value in second_half(points, steps)]
    return max(sizes), sum(sizes) / len(sizes)


def spread(values):
    """(largest - smallest) / mean: how far runs lie apart that differ in their seed alone."""
    return (max(values) - min(values)) / (sum(values) / len(values))


def median(values):
    values = sorted(values)
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@dataclasses.dataclass
class Finished:
    """A finished run: its command, what `cachalot train --json` said, and metrics.jsonl."""
    name: str
    command: list
    result: dict
    info: dict  # threads, jobs, machine, peak_rss_bytes
    lines: list

    @staticmethod
    def read(folder):
        folder = pathlib.Path(folder)
        done = json.loads((folder / "finished.json").read_text())
        return Finished(folder.name, done["command"], done["result"], done, read_lines(folder / "metrics.jsonl"))

    @property
    def steps(self):
        return self.result["step"]

    def curve(self, key="loss"):
        """[(step, value)]; a step without a finite value (it was skipped) is not in it."""
        return [(line["step"], line[key]) for line in self.lines
                if isinstance(line.get(key), (int, float)) and math.isfinite(line[key])]

    def smooth(self, key="loss"):
        return smoothed(self.curve(key))

    def validation(self, key="nats_per_token"):
        return self.result["validation"][key]

    def seconds_per_step(self):
        tokens = self.result["tokens"] / self.steps
        return tokens / median([value for _, value in self.curve("tokens_per_s")])

    def layer_loads(self):
        """Per MoE layer (the MTP layer last) the curve of its largest expert load over the mean load."""
        lines = [line for line in self.lines if line.get("expert_imbalance")]
        layers = len(lines[0]["expert_imbalance"]) if lines else 0
        return [[(line["step"], line["expert_imbalance"][i]) for line in lines] for i in range(layers)]
