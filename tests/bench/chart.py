"""Draws docs/results.svg from what compare.py --json wrote.

  python tests/bench/chart.py results.json docs/results.svg
"""
import json
import pathlib
import sys

BAR, GAP, LEFT, WIDTH = 11, 16, 190, 330
OURS, THEIRS, GREY = "#2b6cb0", "#a0aec0", "#4a5568"


def bars(results, value, title, top, most, mark):
    """One panel: two bars a model, `value(row, key)` → number, a line at `mark`."""
    parts = [f'<text x="10" y="{top}" font-weight="bold">{title}</text>']
    y = top + 12
    for row in results:
        parts.append(f'<text x="{LEFT - 8}" y="{y + BAR + 3}" text-anchor="end">{row["model"]}</text>')
        for key, colour in (("sparsefuse", OURS), ("ort_int8", THEIRS)):
            number = value(row, key)
            if number is not None:
                length = min(number / most, 1) * WIDTH
                parts.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" '
                             f'fill="{colour}"/><text x="{LEFT + length + 4:.1f}" y="{y + BAR - 2}" '
                             f'font-size="9">{number:.2f}</text>')
            else:
                parts.append(f'<text x="{LEFT + 4}" y="{y + BAR - 2}" font-size="9">refused</text>')
            y += BAR
        y += GAP - BAR // 2
    x = LEFT + mark / most * WIDTH
    parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top + 8}" y2="{y - 6}" stroke="{GREY}" '
                 f'stroke-dasharray="3 3"/>')
    return parts, y + 14


def speed(row, key):
    if key not in row:
        return None
    ratios = [row["fp32"]["latency"][b]["min_ms"] / t["min_ms"]
              for b, t in row[key]["latency"].items()]
    product = 1.0
    for ratio in ratios:
        product *= ratio
    return product ** (1 / len(ratios))


def size(row, key):
    return row[key]["bytes"] / row["fp32"]["bytes"] if key in row else None


def main():
    source, target = map(pathlib.Path, sys.argv[1:3])
    data = json.loads(source.read_text())
    results = data["results"]
    most = max(speed(r, k) or 0 for r in results for k in ("sparsefuse", "ort_int8")) * 1.1
    first, y = bars(results, speed, "speed over fp32 (geometric mean over batches; higher is better)",
                    40, most, 1)
    second, y = bars(results, size, "size of the file against fp32 (lower is better)", y + 10, 1, 1)
    legend = (f'<rect x="10" y="8" width="{BAR}" height="{BAR}" fill="{OURS}"/>'
              f'<text x="26" y="18">sparsefuse</text>'
              f'<rect x="110" y="8" width="{BAR}" height="{BAR}" fill="{THEIRS}"/>'
              f'<text x="126" y="18">ONNX Runtime int8</text>'
              f'<text x="250" y="18" fill="{GREY}">{data["cpu"]}, 1 thread</text>')
    target.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 60}" height="{y}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        + legend + "\n".join(first + second) + "</svg>\n")


if __name__ == "__main__":
    main()
