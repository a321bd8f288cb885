"""Two processes give what one gives."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from hf_robustvit.evaluation.results import read_predictions, read_result


TESTS = Path(__file__).parent.parent
SCRIPT = """
import sys
from pathlib import Path

import datasets
from accelerate import Accelerator
from planted_benchmarks import box_masks, dataset_of, photographs, vit

from hf_robustvit.evaluation.benchmark import evaluate_benchmark
from hf_robustvit.evaluation.run import BenchmarkData
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.label_spaces import match_classes
from hf_robustvit.evaluation.loop import LoopOptions

accelerator = Accelerator(cpu=True)
folder = Path(sys.argv[1])
checkpoint = Checkpoint("tiny", None, *vit(12))
names = [f"c{index}" for index in range(8)]
with accelerator.main_process_first():
    paths = photographs(folder / f"images{accelerator.process_index}", count=21)
    masks = box_masks(paths, folder / f"masks{accelerator.process_index}")
paths[9].write_text("broken")
rows = dataset_of(paths, [number % 8 for number in range(21)], names)
rows = rows.add_column("mask", [{"path": str(mask), "bytes": None} for mask in masks], feature=datasets.Image())
space = match_classes("toy", names, None, checkpoint.model.config)
data = BenchmarkData("toy-segmentation", rows, space, tests_masks=True)
options = LoopOptions(batch_size=4, num_workers=1, skip_unreadable=True)
result = evaluate_benchmark(checkpoint, data, folder / str(accelerator.num_processes), accelerator, options)
line = f"{accelerator.process_index}/{accelerator.num_processes}: {result.num_images} images, {result.top1:.4f}"
sys.stdout.write(line + "\\n")  # in one piece, or the processes' lines could run together
accelerator.end_training()
"""


def test_two_processes_give_what_one_gives(tmp_path, monkeypatch, capsys):
    """21 images, one broken, in batches of 4: the processes get unequal shares, and nothing is counted twice."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
    runpy.run_path(str(script))
    single = capsys.readouterr().out.split()

    flags = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
    command = [sys.executable, "-m", "accelerate.commands.launch", *flags.split(), "--main_process_port", "0"]
    environment = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([*command, script, tmp_path], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    # Some versions of Gloo print too.
    first, second = (line.split() for line in sorted(re.findall(r"^\d/\d: .*$", run.stdout, re.MULTILINE)))
    assert (single[0], first[0], second[0]) == ("0/1:", "0/2:", "1/2:")
    assert single[1:] == first[1:] == second[1:], "every process has the whole result"
    assert single[1:3] == ["20", "images,"]

    one, two = read_result(tmp_path / "1", "toy-segmentation"), read_result(tmp_path / "2", "toy-segmentation")
    assert (one.per_class, one.unreadable, one.top5_subset) == (two.per_class, two.unreadable, two.top5_subset)
    assert one.mean_iou == pytest.approx(two.mean_iou, abs=0.01)
    frames = [read_predictions(tmp_path / count, "toy-segmentation") for count in "12"]
    pd.testing.assert_frame_equal(*frames, check_exact=False, rtol=1e-3)
