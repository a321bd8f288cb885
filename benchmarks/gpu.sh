#!/usr/bin/env bash
# What a GPU makes of this project, as one Markdown table: benchmarks/gpu.sh [TABLE.md], at most six minutes.
# It installs nothing, and on a machine without a GPU it runs unchanged with smaller sizes. PYTHON names the interpreter.
set -euo pipefail
table=$(realpath -m "${1:-gpu.md}")
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || command -v python3)}
HF_HUB_OFFLINE=1 PYTHONPATH=".:tests" timeout 360 "$python" -m benchmarks.gpu "$table"
