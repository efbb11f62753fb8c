#!/usr/bin/env python3
"""Draws metrics.jsonl of a run as an SVG picture, with nothing but Python's own library.

    tools/plot_metrics.py RUN/metrics.jsonl --out loss.svg [--y KEY[,KEY...]] [--title TEXT]
"""
import argparse
import html
import json
import math
import pathlib
import sys

WIDTH, HEIGHT = 860, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 48, 52
COLOURS = ("#1f6fb2", "#d1495b", "#3a7d44", "#b07d12", "#6c4ab6")
# Read in light and dark pages alike: mid greys on no background.
STYLE = ("text{font:13px system-ui,sans-serif;fill:#808080}.title{font-size:15px;font-weight:600}"
         ".grid{stroke:#808080;stroke-opacity:.25}.axis{stroke:#808080}.curve{fill:none;stroke-width:2}"
         ".faint{fill:none;stroke-width:1;stroke-opacity:.3}.mark{stroke:#808080;stroke-dasharray:6 4}")


def ticks(low, high, wanted=6):
    """Round numbers from low to high."""
    if high <= low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / wanted))
    step *= min((1, 2, 5, 10), key=lambda m: abs((high - low) / (step * m) - wanted))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def smoothed(values, width):
    """Mean over a window that grows with the number of points; the curve behind the noise."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    out = []
    for i in range(len(values)):
        a, b = max(0, i - width), min(len(values), i + width + 1)
        out.append((sums[b] - sums[a]) / (b - a))
    return out


def read(path, keys):
    """{key: [(step, value)]} of every finite number; lines without a key are passed over."""
    series = {key: [] for key in keys}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        for key in keys:
            value = record.get(key)
            if isinstance(value, (int, float)) and math.isfinite(value):
                series[key].append((record["step"], value))
    return {key: points for key, points in series.items() if points}


def legend_rows(labels, width):
    """Labels in rows that fit; one behind the other from the right."""
    rows, used = [], width
    for label in labels:
        needed = 8 * len(label) + 16
        if used + needed > width:
            rows.append([])
            used = 0
        rows[-1].append(label)
        used += needed
    return rows


def draw(series, title, x_label, y_label, smooth=True, marks=(), y_range=None):
    """An SVG of {name: [(step, value)]}. `marks` are dashed lines at these values; without `smooth` curves are drawn
    as they are, for values that are smoothed already; `y_range` holds several pictures to one scale."""
    steps = [step for points in series.values() for step, _ in points]
    low_x, high_x = min(steps), max(max(steps), min(steps) + 1)
    # The first steps of a run lie far above the rest; the curve is what matters.
    values = sorted([v for points in series.values() for _, v in points] + list(marks))
    low_y, high_y = y_range or (values[0], values[-1])
    pad = 0.04 * (high_y - low_y or 1)
    low_y, high_y = low_y - pad, high_y + pad

    widths = {key: len(points) // 100 if smooth else 0 for key, points in series.items()}
    lines = {key: list(zip((s for s, _ in points), smoothed([v for _, v in points], widths[key])))
             for key, points in series.items()}
    labels = {f"{key}: {lines[key][-1][1]:.3g}": colour for key, colour in zip(series, COLOURS * len(series))}
    rows = legend_rows(labels, WIDTH - LEFT - RIGHT)
    # Beside the title where there is room, else in lines of its own under it.
    beside = len(rows) == 1 and sum(8 * len(label) + 16 for label in labels) + 8 * len(title) < WIDTH - LEFT - RIGHT
    top = TOP if beside else TOP + 18 * len(rows)

    def x(step):
        return LEFT + (step - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)

    def y(value):
        return HEIGHT - BOTTOM - (value - low_y) / (high_y - low_y) * (HEIGHT - top - BOTTOM)

    def path(points):
        return "M" + "L".join(f"{x(s):.1f} {y(v):.1f}" for s, v in points)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
           f"<title>{html.escape(title)}</title><style>{STYLE}</style>",
           f'<text class="title" x="{LEFT}" y="24">{html.escape(title)}</text>']
    for value in ticks(low_y, high_y):
        out.append(f'<path class="grid" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>'
                   f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for step in ticks(low_x, high_x, 8):
        out.append(f'<text x="{x(step):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{step:g}</text>')
    out.append(f'<path class="axis" d="M{LEFT} {top}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none"/>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">'
               f"{html.escape(x_label)}</text>")
    out.append(f'<text transform="translate(16 {(top + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
               f"{html.escape(y_label)}</text>")
    out += [f'<path class="mark" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>' for value in marks]
    for (key, points), colour in reversed(list(zip(series.items(), labels.values()))):
        if widths[key] > 0:
            out.append(f'<path class="faint" stroke="{colour}" d="{path(points[::max(1, len(points) // 2000)])}"/>')
        line = lines[key]
        out.append(f'<path class="curve" stroke="{colour}" d="{path(line[::max(1, len(line) // 1000)])}"/>')
        if len(points) <= 30:
            out += [f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="3" fill="{colour}"/>' for s, v in points]
    for i, row in enumerate(rows):
        legend = WIDTH - RIGHT
        for label in reversed(row):
            out.append(f'<text x="{legend}" y="{24 if beside else 46 + 18 * i}" text-anchor="end" '
                       f'style="fill:{labels[label]}">{html.escape(label)}</text>')
            legend -= 8 * len(label) + 16
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--y", default="loss,validation_loss", help="keys to draw, separated by commas")
    parser.add_argument("--title", default="training")
    parser.add_argument("--y-label", default="nats per token")
    args = parser.parse_args()
    keys = args.y.split(",")
    series = read(args.metrics, keys)
    if not series:
        sys.exit(f"plot_metrics: no line of {args.metrics} has a number under {', '.join(keys)}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(draw(series, args.title, "step", args.y_label))
    print(f"{args.out}: {', '.join(f'{k} ({len(v)} points)' for k, v in series.items())}")


if __name__ == "__main__":
    main()
