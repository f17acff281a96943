#!/usr/bin/env bash
# What the first cell of a notebook calls in Colab: emonb with its pinned libraries, but for those that Colab's own kernel runs on.
set -euo pipefail
cd "$(dirname "$0")/.."
kernel='^(ipykernel|ipython|jupyter|notebook|prompt_toolkit|pyzmq|tornado|traitlets)'
pip install --quiet --editable '.[onnx]' --constraint <(grep -Evi "$kernel" constraints.txt)
echo 'emonb is installed. Restart the session (menu Runtime), then run all cells.'
