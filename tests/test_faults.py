"What happens to a whole run when it is killed, doubled, or its surroundings change: the same claims, or one clear line."
import contextlib, os, random, shlex, signal, subprocess, sys, time

import nbformat, numpy as np, psutil, pytest, torch
from filelock import FileLock, Timeout
from nbformat.v4 import new_code_cell, new_notebook

import emonb.cache
from emonb import core
from emonb.chunks import chunk_features
from emonb.cnns import build, specs
from emonb.cache import cached
from emonb.core import EmonbError, read_manifest
from emonb.data import load_clips
from emonb.demo import plan, write_clip
from emonb.experiments import run_folds
from emonb.training import Settings, read_checkpoint, write_checkpoint

kills = int(os.environ.get('EMONB_KILLS', 3)) # make faults: 20
parameters = 'corpora = "auto"\nrun = None\nprofile = None'
opened = '''from emonb.core import get_profile, start_run
from emonb.chunks import chunk_features
from emonb.demo import open_corpora
chunks = chunk_features(open_corpora(corpora, 'quick'))
store = start_run(run, get_profile(profile))'''
listed = "store.table('chunks', chunks.table[['clip', 'start', 'emotion']])"
trained = '''import pandas as pd
from emonb import training
from emonb.cnns import build, specs
from emonb.experiments import run_folds
from emonb.training import Settings
def network():
    training.checkpoint_seconds = 0 # after each epoch, in whatever process
    return build(specs['R2'])
fits = run_folds('R2', network, chunks, 'clip', 'clip', Settings(epochs=60, batch=16, device='cpu'), folds=2)
found = store.predictions('r2', pd.concat([fitted.predictions for _, fitted in fits], ignore_index=True))
score = found[found.split == 'test'].filter(like='p_').max(axis=1).mean()
store.claims('01_train', pd.DataFrame([dict(claim='confidence', ours=score, verdict='reproduced')]))'''

def furnished(house):
    "Twenty clips, a notebook that lists their chunks, and one that trains two networks on them."
    rows = plan().query("corpus == 'emodb' and emotion in ('anger', 'sadness')").groupby('emotion').head(10)
    for row in rows.to_dict('records'): write_clip(house/'corpora', row)
    (house/'nbs').mkdir()
    for name, code in {'00_list': [opened, listed], '01_train': [opened, trained]}.items():
        notebook = new_notebook(cells=[new_code_cell(f'#| default_exp {name[3:]}'), new_code_cell(parameters, metadata=dict(tags=['parameters'])),
                                       *map(new_code_cell, code)])
        nbformat.write(notebook, house/'nbs'/f'{name}.ipynb')
    return house

@pytest.fixture
def house(tmp_path): return furnished(tmp_path)

@pytest.fixture(scope='module')
def usual(tmp_path_factory):
    "What an undisturbed run comes to, and the seconds it takes."
    house, began = furnished(tmp_path_factory.mktemp('usual')), time.monotonic()
    assert finish(house, 'run', 'cache')[0] == 0 and len(results(house, 'run')) == 4
    return results(house, 'run'), time.monotonic() - began

def command(house, output, *words):
    code = ('import os, sys; from pathlib import Path; from emonb import core, reproduce, runner; reproduce.root = runner.root = lambda: Path(sys.argv[1]); '
            'core.patience = float(os.environ.get("PATIENCE", 60)); '
            'sys.exit(reproduce.main(["reproduce", "--profile", "smoke", "--corpora", f"{sys.argv[1]}/corpora", "--output", *sys.argv[2:]]))')
    return [sys.executable, '-c', code, str(house), str(house/output), *words]

def environment(house, cache, **more): return {**os.environ, 'EMONB_CACHE': str(house/cache), 'OMP_NUM_THREADS': '1', 'EMONB_WORKERS': '1', 'LOKY_MAX_CPU_COUNT': '1', **more}

def start(house, output, cache, *words, **more):
    return subprocess.Popen(command(house, output, *words), env=environment(house, cache, **more), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

def finish(house, output, cache, **more):
    process = start(house, output, cache, **more)
    said, error = process.communicate(timeout=300)
    return process.returncode, said, error.strip().splitlines()[-1:] or ['']

def results(house, output):
    return {file.relative_to(house/output).as_posix(): file.read_bytes() for kind in ('claims.csv', 'claims/*', 'tables/*', 'predictions/*')
            for file in (house/output).glob(kind)}

def family(process):
    "A process and those that it has started, however they stand to its session."
    with contextlib.suppress(psutil.NoSuchProcess):
        head = psutil.Process(process.pid)
        return [*head.children(recursive=True), head]
    return []

def kill(processes):
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess): each.kill()

def waited(what, process, patience=120):
    "Wait until `what()`, while `process` lives."
    until = time.monotonic() + patience
    while not what():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(.05)

def held(file):
    try:
        with FileLock(file, timeout=0): return False
    except Timeout: return True


def halfway(cache, since=0):
    "Whether a training has left a checkpoint, later than `since`."
    with contextlib.suppress(FileNotFoundError): return any(file.stat().st_mtime > since for file in (cache/'checkpoints').glob('[!.]*.safetensors'))

@pytest.mark.fault('kill -9 of a run', kills)
def test_killed_anywhere_and_started_again_it_says_the_same(house, usual, record_property):
    "Two of three kills come soon after a training has begun; of four runs two train in processes of their own."
    (undisturbed, seconds), draw, done, halves = usual, random.Random(0), [], dict.fromkeys('12', 0)
    for number in range(kills):
        workers, began = '1122'[number % 4], time.time()
        process = start(house, 'killed', 'cache', EMONB_WORKERS=workers)
        if number % 3 == 1: time.sleep(draw.uniform(.1, 1)*seconds)
        else:
            while process.poll() is None and not halfway(house/'cache', began): time.sleep(.02)
            time.sleep(draw.uniform(0, .7))
        kill(family(process) if number % 4 in (1, 2) else family(process)[-1:]) # all processes, or the driver alone, and so the next one meets an orphan
        process.wait()
        done.append(sum(state['status'] == 'done' for state in read_manifest(house/'killed').get('notebooks', {}).values()))
        halves[workers] += bool(halfway(house/'cache'))
        if done[-1] == 2: # nothing left to kill: from the start, in a new cache
            for name in ('killed', 'cache'): (house/name).rename(house/f'{name} {len(done)}')
            assert results(house, f'killed {len(done)}') == undisturbed
    print(f'killed {kills} times, with', *done, f'notebooks done; {sum(halves.values())} times a training was half done')
    assert finish(house, 'killed', 'cache')[0] == 0 and results(house, 'killed') == undisturbed
    record_property('kill -9 in the middle of a training', halves['1'])
    record_property('kill -9 in the middle of a training in processes of its own', halves['2'])

def everything(place, cache):
    "A run of all notebooks of this repository, on the demo corpora."
    code = 'import sys; from emonb.reproduce import main; sys.exit(main(sys.argv[1:]))'
    words = ['reproduce', '--profile', 'smoke', '--corpora', 'demo', '--jobs', '2', '--output', str(place/'smoke')]
    return subprocess.Popen([sys.executable, '-c', code, *words], env={**os.environ, 'EMONB_CACHE': str(place/cache)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

@pytest.mark.fault('kill -9 of a run of all notebooks', 20)
@pytest.mark.skipif(kills < 20, reason='takes half an hour: make faults')
def test_all_notebooks_killed_twenty_times_say_the_same(tmp_path):
    said = lambda house: {file.relative_to(house).as_posix(): file.read_bytes() for kind in ('claims.csv', 'claims/*', 'predictions/*') for file in (house/'smoke').glob(kind)}
    usual, house, draw, done = tmp_path/'usual', tmp_path/'killed', random.Random(0), []
    began = time.monotonic()
    assert everything(usual, 'cache').wait() == 0
    seconds = time.monotonic() - began
    while len(done) < 20:
        process = everything(house, 'cache')
        with contextlib.suppress(subprocess.TimeoutExpired): process.wait(draw.uniform(0, 2)*seconds/12)
        if process.poll() is None:
            kill(family(process) if draw.random() < .5 else family(process)[-1:]); process.wait()
            done.append(sum(state['status'] == 'done' for state in read_manifest(house/'smoke').get('notebooks', {}).values()))
        else: # it came to its end: from the start
            assert process.returncode == 0 and said(house) == said(usual)
            house = tmp_path/f'killed {len(done)}'
    print('killed 20 times, with', *done, f'notebooks done of a run of {seconds:.0f} s')
    assert everything(house, 'cache').wait() == 0 and said(house) == said(usual) and len(said(usual)) > 20

@pytest.mark.fault('a notebook that outlives its killed driver')
def test_a_notebook_that_outlives_its_driver_does_not_write_beside_the_next(house):
    first = start(house, 'run', 'cache')
    waited(lambda: '00_list' in read_manifest(house/'run').get('notebooks', {}) and any(map(held, (house/'run').glob('.writer-*.lock'))), first)
    *kernels, driver = family(first)
    for kernel in kernels: kernel.suspend() # it cannot notice
    kill([driver]); first.wait()
    try: status, _, error = finish(house, 'run', 'cache', PATIENCE='1')
    finally:
        for kernel in kernels: kernel.resume()
    assert status == 1 and 'left by a run that was killed, is still at work there' in error[0]
    assert finish(house, 'run', 'cache')[0] == 0 and len(results(house, 'run')) == 4
    assert not any(kernel.is_running() for kernel in kernels)

@pytest.mark.fault('two runs at once in one folder')
def test_two_runs_at_once_in_one_folder(house):
    first = start(house, 'both', 'cache')
    waited((house/'both'/'manifest.json').exists, first)
    status, _, error = finish(house, 'both', 'cache')
    assert status == 1 and 'both: another run is at work there' in error[0]
    first.communicate(timeout=300)
    assert first.returncode == 0 and len(results(house, 'both')) == 4

@pytest.mark.fault('two runs at once with one cache')
def test_two_runs_at_once_with_one_cache(house):
    first, second = start(house, 'one', 'cache'), start(house, 'other', 'cache')
    for process in (first, second):
        process.communicate(timeout=300)
        assert process.returncode == 0
    assert results(house, 'one') == results(house, 'other')

@pytest.mark.fault('a corpus that changes between runs')
@pytest.mark.fault('dates of files in 1970 and 2096')
def test_a_corpus_that_changes_between_runs_and_dates_that_jump(house):
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

@pytest.mark.fault('a clock that jumps during a run')
def test_a_clock_that_jumps_during_a_run(house, usual):
    (house/'clock').mkdir()
    (house/'clock'/'sitecustomize.py').write_text('import random, time\nusual, draw = time.time, random.Random()\n'
                                                  'time.time = lambda: usual() + draw.choice([-1e8, -3600, 0, 3600, 1e9])\n')
    asked = subprocess.run([sys.executable, '-c', 'import time; print(time.time.__name__)'], env={**os.environ, 'PYTHONPATH': str(house/'clock')},
                           capture_output=True, text=True).stdout
    if 'lambda' not in asked: pytest.skip('this Python does not take our clock')
    status, said, error = finish(house, 'jumping', 'cache', PYTHONPATH=str(house/'clock'))
    assert status == 0 and results(house, 'jumping') == usual[0], (said, error)

@pytest.mark.fault('a file of a run with a flipped bit, or lost', 8)
def test_files_of_a_finished_run_that_are_changed_or_lost(house):
    assert finish(house, 'run', 'cache')[0] == 0
    whole, draw = results(house, 'run'), random.Random(0)
    for name, content in whole.items():
        changed = bytearray(content); changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        (house/'run'/name).write_bytes(changed)
    assert finish(house, 'run', 'cache')[0] == 0 and results(house, 'run') == whole
    for name in whole: (house/'run'/name).unlink()
    assert finish(house, 'run', 'cache')[0] == 0 and results(house, 'run') == whole

flips = 200

def flipped(file, draw):
    "Turn one bit over; what stood there before."
    content = file.read_bytes()
    changed = bytearray(content); changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(changed)
    return content

@pytest.mark.fault('a flipped bit in the cache', flips)
def test_flipped_bits_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path))
    draw, contents = random.Random(0), {name: random.Random(name).randbytes(3000) for name in ('a.bin', 'b.bin')}
    def make(folder):
        for name, content in contents.items(): (folder/name).write_bytes(content)
    for number in range(flips):
        folder = cached('flipped', 'key', make)
        assert {name: (folder/name).read_bytes() for name in contents} == contents
        flipped(folder/['a.bin', 'b.bin', 'checksums.json'][number % 3], draw)
        emonb.cache._verified.clear() # as in a new process
    assert {name: (cached('flipped', 'key', make)/name).read_bytes() for name in contents} == contents

@pytest.mark.fault('a flipped bit in features or a training', 8)
def test_flipped_bits_in_features_and_a_training(house, monkeypatch):
    monkeypatch.setenv('EMONB_CACHE', str(house/'cache'))
    clips, draw = load_clips(house/'corpora'), random.Random(0)
    def asked():
        emonb.cache._verified.clear() # as in a new process
        chunks = chunk_features(clips)
        (_, fitted), = run_folds('R2', lambda: build(specs['R2']), chunks, 'clip', 'clip', Settings(epochs=2, batch=16, device='cpu'), folds=1)
        return np.array(chunks.spectrograms), np.array(chunks.handbuilt), fitted
    pictures, values, fitted = asked()
    files = [file for kind in ('features', 'experiments') for file in sorted((house/'cache'/kind).glob('*/*'))]
    assert len(files) == 8
    for file in files:
        flipped(file, draw)
        pictures_again, values_again, again = asked()
        assert np.array_equal(pictures_again, pictures) and np.array_equal(values_again, values)
        assert again.predictions.equals(fitted.predictions) and again.curves.equals(fitted.curves)
        assert all(again.weights[name].equal(value) for name, value in fitted.weights.items())

@pytest.mark.fault('a flipped bit in a checkpoint', flips)
def test_flipped_bits_in_checkpoints(tmp_path):
    draw, file, tensors = random.Random(0), tmp_path/'x.safetensors', dict(a=torch.randn(30, 20), b=torch.arange(9))
    write_checkpoint(file, tensors, [dict(epoch=1)])
    for _ in range(flips):
        whole = flipped(file, draw)
        try: found, notes = read_checkpoint(file)
        except EmonbError: pass
        else: assert notes == [dict(epoch=1)] and all(tensors[name].equal(found[name]) for name in tensors) # the bit meant nothing
        file.write_bytes(whole)

def namespaced(house, script):
    "Run a script that may mount; what it prints."
    if subprocess.run(['unshare', '-rm', 'true'], capture_output=True).returncode: pytest.skip('mounting is not permitted here')
    done = subprocess.run(['unshare', '-rm', 'sh', '-c', script], capture_output=True, text=True, timeout=600, cwd=house)
    return done.stdout + done.stderr

def run_in(house, output, cache): return f"EMONB_CACHE={shlex.quote(str(house/cache))} OMP_NUM_THREADS=1 {shlex.join(command(house, output))} 2>&1; echo status $?"

full = [('output', 40), ('cache', 300), ('cache', 6000), *([('output', 8), ('cache', 100), ('cache', 1000), ('cache', 2000)] if 'EMONB_KILLS' in os.environ else [])] # make faults: all

@pytest.mark.fault('a full disk under output or cache')
@pytest.mark.skipif(sys.platform != 'linux', reason='mounts a disk as Linux does')
@pytest.mark.parametrize('place, kilobytes', full)
def test_a_disk_that_is_full(house, usual, place, kilobytes):
    (house/'small').mkdir()
    run = run_in(house, *dict(output=('small/run', 'cache'), cache=('run', 'small/cache'))[place])
    said = namespaced(house, f"mount -t tmpfs -o size={kilobytes}k tmpfs small || exit\n{run}\nmount -o remount,size=200m small\n{run}\ncp -r {'small/run' if place == 'output' else 'run'} kept")
    first, second = said.split('status ')[:2]
    assert second.startswith('1') and 'Traceback' not in first and 'no space is left' in first, said
    assert said.split('status ')[2].startswith('0') and results(house, 'kept') == usual[0], said # with more room it goes on

@pytest.mark.fault('a read-only output or cache')
@pytest.mark.skipif(sys.platform != 'linux', reason='mounts a folder as Linux does')
@pytest.mark.parametrize('place', ['run', 'cache'])
def test_a_folder_that_is_read_only(house, place):
    assert finish(house, 'run', 'cache')[0] == 0
    before = results(house, 'run')
    said = namespaced(house, f"mount --bind {place} {place} && mount -o remount,ro,bind {place} || exit\n{run_in(house, 'run', 'cache')}")
    assert 'status 1' in said and 'it is read-only' in said and 'Traceback' not in said and results(house, 'run') == before, said

@pytest.mark.fault('a file in the place of a folder', 2)
def test_folders_that_cannot_be_written(house):
    (house/'taken').write_text('a file stands here')
    for output, cache in (('taken', 'cache'), ('run', 'taken')):
        status, _, error = finish(house, output, cache)
        assert status == 1 and error[0].startswith('emonb: ') and 'a file stands where a folder is needed' in error[0]
