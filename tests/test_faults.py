"What happens to a whole run when it is killed, doubled, or its surroundings change: the same claims, or one clear line."
import os, random, signal, subprocess, sys, time

import nbformat, pandas as pd, pytest
from nbformat.v4 import new_code_cell, new_notebook

from emonb.core import read_manifest
from emonb.demo import plan, write_clip

kills = int(os.environ.get('EMONB_KILLS', 4)) # make faults: 20
parameters = 'corpora = "auto"\nrun = None\nprofile = None'
opened = '''from emonb.core import get_profile, start_run
from emonb.chunks import chunk_features
from emonb.demo import open_corpora
chunks = chunk_features(open_corpora(corpora, 'quick'))
store = start_run(run, get_profile(profile))'''
listed = "store.table('chunks', chunks.table[['clip', 'start', 'emotion']])"
trained = '''import pandas as pd
from emonb.cnns import build, specs
from emonb.experiments import run_folds
from emonb.training import Settings
fits = run_folds('R2', lambda: build(specs['R2']), chunks, 'clip', 'clip', Settings(epochs=4, batch=16, device='cpu'), folds=2)
found = store.predictions('r2', pd.concat([fitted.predictions for _, fitted in fits], ignore_index=True))
score = found[found.split == 'test'].filter(like='p_').max(axis=1).mean()
store.claims('01_train', pd.DataFrame([dict(claim='confidence', ours=score, verdict='reproduced')]))'''

@pytest.fixture
def house(tmp_path):
    "Twenty clips, a notebook that lists their chunks, and one that trains two networks on them."
    rows = plan().query("corpus == 'emodb' and emotion in ('anger', 'sadness')").groupby('emotion').head(10)
    for row in rows.to_dict('records'): write_clip(tmp_path/'corpora', row)
    (tmp_path/'nbs').mkdir()
    for name, code in {'00_list': [opened, listed], '01_train': [opened, trained]}.items():
        notebook = new_notebook(cells=[new_code_cell(f'#| default_exp {name[3:]}'), new_code_cell(parameters, metadata=dict(tags=['parameters'])),
                                       *map(new_code_cell, code)])
        nbformat.write(notebook, tmp_path/'nbs'/f'{name}.ipynb')
    return tmp_path

def start(house, output, cache):
    code = ('import sys; from pathlib import Path; from emonb import reproduce; reproduce.root = lambda: Path(sys.argv[1]); '
            'sys.exit(reproduce.main(["reproduce", "--profile", "smoke", "--corpora", f"{sys.argv[1]}/corpora", "--output", sys.argv[2]]))')
    environment = {**os.environ, 'EMONB_CACHE': str(house/cache), 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen([sys.executable, '-c', code, str(house), str(house/output)], env=environment, text=True, start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

def finish(house, output, cache):
    process = start(house, output, cache)
    said, error = process.communicate(timeout=120)
    return process.returncode, said, error.strip().splitlines()[-1:] or ['']

def results(house, output):
    return {file.relative_to(house/output).as_posix(): file.read_bytes() for kind in ('claims.csv', 'tables/*', 'predictions/*')
            for file in (house/output).glob(kind)}


def test_killed_anywhere_and_started_again_it_says_the_same(house):
    began = time.monotonic()
    assert finish(house, 'undisturbed', 'cache')[0] == 0
    usual, draw, done = time.monotonic() - began, random.Random(0), []
    for _ in range(kills):
        process = start(house, 'killed', 'another cache')
        time.sleep(draw.uniform(.1, 1)*usual)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        done.append(sum(state['status'] == 'done' for state in read_manifest(house/'killed').get('notebooks', {}).values()))
        if done[-1] == 2: # nothing left to kill: from the start, in a new cache
            for name in ('killed', 'another cache'): (house/name).rename(house/f'{name} {len(done)}')
            assert results(house, f'killed {len(done)}') == results(house, 'undisturbed')
    print(f'killed {kills} times, with', *done, 'notebooks done')
    assert finish(house, 'killed', 'another cache')[0] == 0
    assert results(house, 'killed') == results(house, 'undisturbed') and len(results(house, 'killed')) == 3

def test_two_runs_at_once_in_one_folder(house):
    first = start(house, 'both', 'cache')
    while not (house/'both'/'manifest.json').exists(): time.sleep(.05)
    status, _, error = finish(house, 'both', 'cache')
    assert status == 1 and 'both: another run is at work there' in error[0]
    first.communicate(timeout=120)
    assert first.returncode == 0 and len(results(house, 'both')) == 3

def test_two_runs_at_once_with_one_cache(house):
    first, second = start(house, 'one', 'cache'), start(house, 'other', 'cache')
    for process in (first, second):
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert results(house, 'one') == results(house, 'other')

def test_a_corpus_that_changes_between_runs_and_clocks_that_jump(house):
    assert finish(house, 'run', 'cache')[0] == 0
    before = results(house, 'run')
    for year, file in zip((1, 4e9), sorted((house/'corpora').rglob('*.wav'))): os.utime(file, (year, year)) # 1970 and 2096
    for file in (*(house/'cache').rglob('*.*'), *(house/'run').rglob('*.*')): os.utime(file, (4e9, 4e9))
    status, said, _ = finish(house, 'run', 'cache')
    assert status == 0 and said.count('done before') == 2 and results(house, 'run') == before # what counts is the content
    changed, other = sorted((house/'corpora').rglob('*.wav'))[:2]
    changed.write_bytes(other.read_bytes())
    status, said, _ = finish(house, 'run', 'cache')
    assert status == 0 and 'done before' not in said and results(house, 'run').keys() == before.keys()
    assert results(house, 'run')['claims.csv'] != before['claims.csv']

def test_folders_that_cannot_be_written(house):
    (house/'taken').write_text('a file stands here')
    for output, cache in (('taken', 'cache'), ('run', 'taken')):
        status, _, error = finish(house, output, cache)
        assert status == 1 and error[0].startswith('emonb: ') and 'a file stands where a folder is needed' in error[0]
