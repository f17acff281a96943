"The paper's claims: what its notebook cannot check about itself."
import subprocess, sys
from pathlib import Path

from emonb.paper import ambiguities

nbs = Path(__file__).parent.parent/'nbs'


def test_import_is_light():
    code = "import sys, emonb.paper; print({'pandas', 'numpy', 'torch', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout == 'set()\n'


to_come = set() # all are written

def test_choices_point_to_notebooks():
    assert all((nbs/f'{a.notebook}.ipynb').exists() or a.notebook in to_come for a in ambiguities)
    assert not any((nbs/f'{name}.ipynb').exists() for name in to_come), 'written: take it off the list'
