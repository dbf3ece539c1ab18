"""Writes what compare.py --json measured into README.md's table and docs/performance.md.

  python tests/bench/publish.py results.json
"""
import json
import pathlib
import sys

from compare import ROOT, markdown

BEGIN, END = "<!-- results: tests/bench/compare.py -->", "<!-- end of results -->"


def main():
    data = json.loads(pathlib.Path(sys.argv[1]).read_text())
    text = (f"{data['cpu']}, ONNX Runtime {data['onnxruntime']}, 1 thread; speed = ratio of shortest "
            f"times to fp32, interleaved:\n\n{markdown(data['results'])}\n")
    for name in ("README.md", "docs/performance.md"):
        path = ROOT / name
        before, rest = path.read_text().split(BEGIN)
        path.write_text(before + BEGIN + "\n" + text + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
