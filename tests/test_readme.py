"What the README tells a reader to type works."
import os, re, shlex, shutil, subprocess, sys
from pathlib import Path

import pandas as pd, pytest

from emonb.data import load_clips
from emonb.demo import demo_corpora
from emonb.reproduce import _parser

root = Path(__file__).parent.parent
text = (root/'README.md').read_text(encoding='utf-8')
blocks = re.findall(r'```(\w+)\n(.*?)```', text, re.DOTALL)
typed = [re.split(r'\s+#', line)[0].strip() for kind, block in blocks if kind == 'sh' for line in block.splitlines() if line.strip()]
inline = re.findall(r'`((?:emonb|make) [^`\n]+)`', text)
commands = sorted({part.strip() for line in (*typed, *inline) for part in line.split('&&')})
elsewhere = ('emonb listen', 'emonb data get', 'emonb publish', 'emonb reproduce') # a microphone, the network, a whole run: other tests
made_here = [command for command in commands if command.startswith('emonb ') and not command.startswith(elsewhere)]

@pytest.mark.parametrize('command', [c for c in commands if c.startswith('emonb ')])
def test_emonb_commands_are_accepted(command):
    assert _parser().parse_args(shlex.split(command)[1:]).do

@pytest.mark.parametrize('command', [c for c in commands if c.startswith('make ')])
def test_make_knows_what_it_is_asked(command):
    subprocess.run([*shlex.split(command), '--dry-run'], cwd=root, check=True, capture_output=True)

def test_nothing_else_is_asked_of_the_reader():
    known = ('emonb ', 'make ', 'git clone ', 'cd emonb', 'source .venv/bin/activate', 'pip install ')
    assert all(command.startswith(known) for command in commands)

def test_the_environment_is_entered_before_the_first_command_in_it():
    assert text.index('source .venv/bin/activate') < text.index('\nemonb ') and 'BIN := .venv/bin' in (root/'Makefile').read_text()

@pytest.fixture(scope='module')
def desk(tmp_path_factory):
    "A folder with all that the README's commands name: a few demo clips as corpora and as a list, recordings, a film, a split, runs."
    desk = tmp_path_factory.mktemp('desk')
    clips = load_clips(demo_corpora(), ['emodb'])
    some = clips[clips.speaker.isin(clips.speaker.unique()[:5])].drop_duplicates(['speaker', 'emotion'])
    for path in some.path:
        (desk/'data'/'emodb'/'wav').mkdir(parents=True, exist_ok=True)
        shutil.copy(path, desk/'data'/'emodb'/'wav')
    (desk/'data'/'demo.json').write_text('{}')
    some[['path', 'emotion', 'speaker']].to_csv(desk/'mine.csv', index=False)
    (desk/'recordings').mkdir()
    for path in some.path[:2]: shutil.copy(path, desk/'recordings')
    shutil.copy(load_clips(demo_corpora(), ['enterface']).path[0], desk/'talk.mp4')
    some.assign(split=['train', 'test']*(len(some)//2) + ['val']*(len(some) % 2))[['split', 'clip', 'speaker']].to_csv(desk/'splits.csv', index=False)
    for run in ('runs/quick', 'runs/long', 'runs/smoke-demo', 'nbs/results'): shutil.copytree(root/'nbs'/'results', desk/run, ignore=shutil.ignore_patterns('*.png'))
    return desk

def run_it(command, desk):
    "Output and exit status of a command, typed at the desk."
    line = [sys.executable, '-c', 'import sys; from emonb.reproduce import main; sys.exit(main())', *shlex.split(os.path.expandvars(command.replace('$HOME', str(desk))))[1:]]
    quiet = dict(os.environ, HOME=str(desk), EMONB_RUNS=str(desk/'runs'), EMONB_DATA=str(desk/'data'), EMONB_CACHE=str(desk/'cache'), PYTHONPATH=str(root))
    done = subprocess.run(line, cwd=desk, env=quiet, capture_output=True, text=True)
    return done.stdout + done.stderr, done.returncode

@pytest.fixture(scope='module')
def done(desk):
    "Command → what it printed and its exit status; each is typed once, training first."
    return {command: run_it(command, desk) for command in sorted(made_here, key=lambda command: not command.startswith('emonb train'))}

@pytest.mark.parametrize('command', made_here)
def test_emonb_commands_do_what_is_said(command, done):
    said, status = done[command]
    assert status == 0 or command.startswith('emonb audit'), said # whose status tells that the split shares clips
    assert 'Traceback' not in said
    expected = {'train': 'Accuracy', 'predict': ' %', 'report': 'same' if 'nbs/results' in command else '## In short', 'audit': 'speaker', 'data': 'EMO-DB', 'export': ''}
    assert expected[shlex.split(command)[1]] in said

def test_files_that_the_commands_name_are_made(desk, done):
    assert (desk/'talk.png').stat().st_size > 1000 and len(pd.read_csv(desk/'emotions.csv')) > 2
    assert all((desk/file).exists() for file in ('runs/recognizer.safetensors', 'mine.safetensors', 'recognizer.onnx'))

def test_library_example_runs(tmp_path):
    code, = [block for kind, block in blocks if kind == 'python']
    assert 'my/corpora' in code
    done = subprocess.run([sys.executable, '-c', code.replace('my/corpora', str(demo_corpora())) + '\nprint(x.shape, len(y))'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.match(r'\(\d+, 26\) \d+', done.stdout.splitlines()[-1])
