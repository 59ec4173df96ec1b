"""Checks the figures of a finished run: wide bounds, for a small budget on a machine that may be busy."""

import json
import sys
from pathlib import Path

import onnxruntime

run = Path(sys.argv[1])
result = json.loads((run / "result.json").read_text())
chosen, reference = result["networks"]
agreement = result["agreement"]
figures = {
    "times faster than the reference": (reference["latency_measured_ms"] / chosen["latency_measured_ms"], 1.6, 100),
    "times fewer weight bytes": (reference["weight_bytes"] / chosen["weight_bytes"], 4.0, 1000),
    "points of accuracy gained": (100 * (chosen["test_accuracy"] - reference["test_accuracy"]), -4.0, 100),
    "predicted over measured latency": (chosen["latency_predicted_ms"] / chosen["latency_measured_ms"], 0.8, 1.25),
    "images classified alike": (agreement["same_top1"] + agreement["ties"], agreement["images"], 256),
}
for name, (value, least, most) in figures.items():
    print(f"{name}: {value:.3f}  (accepted: {least} to {most})")
onnxruntime.InferenceSession(str(run / "model.onnx"), providers=["CPUExecutionProvider"])
bad = [name for name, (value, least, most) in figures.items() if not least <= value <= most]
sys.exit(f"out of bounds: {', '.join(bad)}" if bad else 0)
