"""Writes what bench_linear and stacks.py measured into docs/performance.md and docs/kernels.svg.

  python tests/bench/kernel_tables.py HOT.json COLD.json STACKS.json

HOT and COLD: bench_linear with --cache hot and cold; STACKS: stacks.py --json.
"""
import json
import pathlib
import sys

import stacks
from compare import ROOT

BEGIN, END = "<!-- kernels: tests/bench/kernel_tables.py -->", "<!-- end of kernels -->"
DYNAMIC = "ort dynamic int8"
COLOURS = ("#2b6cb0", "#2f855a", "#b7791f", "#c53030", "#6b46c1")


def bits4(results):
    return min(t["min_us"] for n, t in results.items() if n.startswith("ort 4-bit"))


def cell(results, name, baseline):
    return f"×{baseline / results[name]['min_us']:.2f}" if name in results else ""


def table(data):
    densities = ("1", "0.5", "0.2", "0.1")
    lines = ["| K×N | rows | int8 | 50 % zero | 80 % | 90 % | nested | int4 over ORT 4-bit | nested read "
             "in 4 bits, over ORT 4-bit | int8 of peak | int4 of stream |", "|---" * 11 + "|"]
    for p in data["points"]:
        r = p["results"]
        base = r[DYNAMIC]["min_us"]
        cells = [cell(r, f"int8 {d}", base) for d in densities] + [cell(r, "nested4 1", base)]
        cells += [cell(r, n, bits4(r)) for n in ("int4 1", "nested4 in 4 bits 1")]
        cells += [f"{r['int8 1']['gops'] / data['peak_gops']:.0%}",
                  f"{r['int4 1']['weight_gb_per_s'] / data['stream_gb_per_s']:.0%}"]
        lines.append(f"| {p['inputs']}×{p['outputs']} | {p['rows']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine(data):
    return (f"CPU features {data['cpu']} (kernel `{data['kernel']}`), ONNX Runtime "
            f"{data['onnxruntime']}, {data['threads']} thread, {data['clock']}, weights "
            f"{'in cache where they fit' if data['cache'] == 'hot' else 'from memory'}; measured roofs: "
            f"{data['peak_gops']:.0f} GOPS, {data['stream_gb_per_s']:.1f} GB/s.")


def plot(data, target):
    """Speed over dynamic int8 against the share of blocks kept, both axes logarithmic."""
    import math
    left, top, width, height, gap = 46, 44, 200, 190, 50
    points = [p for p in data["points"] if (p["inputs"], p["outputs"]) == (3072, 3072)]
    parts, most = [], 20

    def x(panel, density):
        return left + panel * (width + gap) + width * -math.log10(density)

    def y(ratio):
        return top + height * (1 - math.log(ratio / 0.5) / math.log(most / 0.5))

    for panel, encoding in enumerate(("int8", "int4", "nested4")):
        parts.append(f'<text x="{x(panel, 1)}" y="{top - 10}" font-weight="bold">{encoding}</text>')
        for ratio in (0.5, 1, 2, 5, 10, 20):
            parts.append(f'<line x1="{x(panel, 1)}" x2="{x(panel, 0.1)}" y1="{y(ratio):.1f}" '
                         f'y2="{y(ratio):.1f}" stroke="#cbd5e0" '
                         f'stroke-width="{2 if ratio == 1 else 1}"/>'
                         f'<text x="{x(panel, 1) - 5}" y="{y(ratio) + 4:.1f}" '
                         f'text-anchor="end">×{ratio}</text>')
        for density in (1, 0.5, 0.2, 0.1):
            parts.append(f'<text x="{x(panel, density):.1f}" y="{top + height + 16}" '
                         f'text-anchor="middle">{density:.0%}</text>')
        for colour, p in zip(COLOURS, points):
            r = p["results"]
            path = [(x(panel, d), y(r[DYNAMIC]["min_us"] / r[f"{encoding} {d:g}"]["min_us"]))
                    for d in (1, 0.5, 0.2, 0.1) if f"{encoding} {d:g}" in r]
            parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="'
                         + " ".join(f"{a:.1f},{b:.1f}" for a, b in path) + '"/>')
    for i, (colour, p) in enumerate(zip(COLOURS, points)):
        parts.append(f'<rect x="{left + i * 80}" y="6" width="12" height="4" fill="{colour}"/>'
                     f'<text x="{left + i * 80 + 16}" y="12">{p["rows"]} rows</text>')
    foot = top + height + 36
    parts.append(f'<text x="{left}" y="{foot}">speed over ONNX Runtime\'s dynamic int8, 3072×3072, by '
                 f'share of 32×4 blocks kept ({data["cpu"]}, 1 thread)</text>')
    target.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + 3 * (width + gap)}" '
                      f'height="{foot + 12}" font-family="sans-serif" font-size="11">'
                      '<rect width="100%" height="100%" fill="white"/>' + "\n".join(parts) + "</svg>\n")


def main():
    hot, cold, whole = (json.loads(pathlib.Path(p).read_text()) for p in sys.argv[1:4])
    text = "\n\n".join([
        machine(hot), table(hot), machine(cold), table(cold),
        f"Stacks of layers, {whole['cpu']}, ONNX Runtime {whole['onnxruntime']}:",
        stacks.markdown(whole["points"])])
    path = ROOT / "docs/performance.md"
    before, rest = path.read_text().split(BEGIN)
    path.write_text(before + BEGIN + "\n" + text + "\n" + END + rest.split(END)[1])
    plot(hot, ROOT / "docs/kernels.svg")


if __name__ == "__main__":
    main()
