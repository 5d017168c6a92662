"""The timing benchmarks run at their smallest size and write their tables."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

if not (ROOT / "benchmarks" / "timing").is_dir():
    pytest.skip("needs the benchmarks", allow_module_level=True)


@pytest.mark.slow
def test_latency(tmp_path):
    """Each method has its row, the hour its memory; all samples become final."""
    options = ["--runs", "30", "--minutes", "0.1", "--results", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks.timing.latency", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    text = (tmp_path / "latency.txt").read_text()
    assert text.startswith("python -m benchmarks.timing.latency --runs 30")
    for name in ("stream", "window", "Evoked"):
        assert f"DeepSIF, {name}" in text
    assert len(re.findall("^(?:sLORETA|LCMV) ", text, re.M)) == 4
    assert re.search(r"network( +\d+\.\d){4}", text)
    assert "x real time; 750 final samples," in text
