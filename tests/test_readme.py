"What the README tells a reader to type works."
import re, shlex, subprocess, sys
from pathlib import Path

import pandas as pd, pytest

from emonb.demo import demo_corpora
from emonb.reproduce import _parser, main

root = Path(__file__).parent.parent
text = (root/'README.md').read_text(encoding='utf-8')
blocks = re.findall(r'```(\w+)\n(.*?)```', text, re.DOTALL)
typed = [re.split(r'\s+#', line)[0].strip() for kind, block in blocks if kind == 'sh' for line in block.splitlines() if line.strip()]
inline = re.findall(r'`((?:emonb|make) [^`\n]+)`', text)
commands = sorted({part.strip() for line in (*typed, *inline) for part in line.split('&&')})

@pytest.mark.parametrize('command', [c for c in commands if c.startswith('emonb ')])
def test_emonb_commands_are_accepted(command):
    assert _parser().parse_args(shlex.split(command)[1:]).do

@pytest.mark.parametrize('command', [c for c in commands if c.startswith('make ')])
def test_make_knows_what_it_is_asked(command):
    subprocess.run([*shlex.split(command), '--dry-run'], cwd=root, check=True, capture_output=True)

def test_nothing_else_is_asked_of_the_reader():
    known = ('emonb ', 'make ', 'git clone ', 'cd emonb', 'pip install ')
    assert all(command.startswith(known) for command in commands)

def test_audit_of_a_table_of_ones_own(tmp_path, capsys):
    pd.DataFrame(dict(split=['train', 'test'], clip=['a', 'b'], speaker=['x', 'x'])).to_csv(tmp_path/'splits.csv', index=False)
    assert main(['audit', str(tmp_path/'splits.csv')]) == 0
    assert 'speaker' in capsys.readouterr().out

def test_library_example_runs(tmp_path):
    code, = [block for kind, block in blocks if kind == 'python']
    assert 'my/corpora' in code
    done = subprocess.run([sys.executable, '-c', code.replace('my/corpora', str(demo_corpora())) + '\nprint(x.shape, len(y))'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.match(r'\(\d+, 26\) \d+', done.stdout.splitlines()[-1])
