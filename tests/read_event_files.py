"""Reads the event files of a run with TensorBoard's own reader: `python tests/read_event_files.py RUN`.

Needs the package `tensorboard`. Compares every step's loss and the validation with what the run folder says.
"""

import json
import math
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = pathlib.Path(sys.argv[1])
# 0 means that everything is kept.
events = EventAccumulator(
    str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0}
).Reload()
tags = events.Tags()
steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
epochs = [json.loads(line) for line in (run / "epochs.jsonl").read_text().splitlines()]


def same(tag, expected):
    found = [(event.step, event.value) for event in events.Scalars(tag)]
    assert len(found) == len(expected), (tag, len(found), len(expected))
    for (step, value), (expected_step, expected_value) in zip(found, expected):
        assert step == expected_step, (tag, step, expected_step)
        assert math.isclose(value, expected_value, rel_tol=1e-6), (tag, step, value)


same("train/loss", [(line["step"], line["loss"]) for line in steps])
same("train/learning_rate", [(line["step"], line["lr"]) for line in steps])
if any(line["val_loss"] is not None for line in epochs):
    same("validation/loss", [(line["step"], line["val_loss"]) for line in epochs])
assert "pipeline/samples_per_s" in tags["scalars"], tags
assert {"config", "verdict"} <= set(tags["tensors"]), tags
for tag in tags["images"]:
    image = events.Images(tag)[-1]
    assert image.encoded_image_string[1:4] == b"PNG" and image.width > 0, tag
print(f"{len(steps)} steps, {len(epochs)} epochs, pictures: {', '.join(tags['images']) or 'none'}")
