"The launches of 06e_fused, computed by Triton's interpreter."
import json, subprocess, sys
from pathlib import Path

import pytest

nbs = Path(__file__).parent.parent/'nbs'

def test_the_launches_give_what_torch_gives(tmp_path): # in a process of its own: Triton reads once whether it is to interpret
    pytest.importorskip('triton')
    cells = [''.join(cell['source']) for cell in json.loads((nbs/'06e_fused.ipynb').read_text())['cells'] if cell['cell_type'] == 'code']
    script = tmp_path/'fused.py' # Triton wants the source of its programs in a file
    script.write_text('\n'.join(['display = print', *(cell for cell in cells if '!test' not in cell), 'assert checked']))
    done = subprocess.run([sys.executable, '-W', 'ignore', script], cwd=nbs, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
