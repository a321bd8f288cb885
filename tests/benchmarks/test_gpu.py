"""The script for machines with a GPU, as it runs on one without."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"


@pytest.mark.skipif(torch.cuda.is_available(), reason="takes minutes on a GPU, where it is run by hand")
def test_the_script_for_gpus_writes_its_table(tmp_path):
    path = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    table = tmp_path / "table.md"
    subprocess.run([SCRIPT, table], check=True, env=path, capture_output=True)
    text = table.read_text()
    assert "not run on a GPU" in text and "failed" not in text and "the time was over" not in text
    errors = re.findall(r"authors' map \| (\w+), (\w+) \| ([\d.e-]+)", text)
    assert {(attention, dtype) for attention, dtype, _ in errors} == {
        (attention, dtype)
        for attention in ("eager", "lean", "lean_kept_maps")
        for dtype in ("float32", "bfloat16", "float16")
    }
    assert all(float(error) < (1e-5 if dtype == "float32" else 0.1) for _, dtype, error in errors)
    for row in (
        "step: RobustViT, lean, fp16",
        "growth: lean",
        "torch.compile / plain step",
        "run_eval, 1 workers, bf16",
    ):
        assert f"| {row}" in text
