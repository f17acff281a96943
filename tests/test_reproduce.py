"The driver: order, failure, resumption, the command line."
import gc, errno, os, signal, subprocess, sys, threading, time
from types import SimpleNamespace

import nbformat, pandas as pd, psutil, pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from emonb import reproduce as driver, runner
from emonb.core import EmonbError, read_manifest
from emonb.demo import plan, write_clip
from emonb.recognizer import load_recognizer, networks


def notebook(module, *code, needs=()):
    cells = [new_code_cell(f'#| default_exp {module}'), new_markdown_cell(f'# {module}\n> It is small.'),
             new_code_cell('\n'.join(f'# | export\nif False:\n    from emonb.{other} import nothing' for other in needs) or 'pass'),
             new_code_cell("run = None", metadata=dict(tags=['parameters'])), *map(new_code_cell, code)]
    return new_notebook(cells=cells)

count = 'from pathlib import Path; n = Path("count_{0}"); n.write_text(str(int(n.read_text()) + 1) if n.exists() else "1")'

writes = '''import os, pandas as pd
from pathlib import Path
from emonb.core import Run
out = Run(Path(os.environ['EMONB_RUNS'])/'out')
out.table('d', pd.DataFrame(dict(x=[5])))
out.claims('03_d', pd.DataFrame(dict(claim=['x'], ours=[.5], verdict=['partly'])))'''

@pytest.fixture
def house(tmp_path, monkeypatch):
    "A house of four small rooms: b needs a, c needs b, d needs nothing; a counts how often it runs."
    nbs = tmp_path/'nbs'; nbs.mkdir()
    rooms = dict(a=notebook('a', count.format('a')), b=notebook('b', '1/0', needs='a'), c=notebook('c', needs='b'), d=notebook('d', count.format('d')))
    for number, (name, room) in enumerate(rooms.items()): nbformat.write(room, nbs/f'0{number}_{name}.ipynb')
    for module in (driver, runner): monkeypatch.setattr(module, 'root', lambda: tmp_path)
    monkeypatch.setattr(driver, '_fingerprints', lambda corpora: {'demo-emodb': dict(clips=1, fingerprint=os.environ.get('EMONB_DATA', corpora))})
    monkeypatch.setenv('EMONB_RUNS', str(tmp_path/'runs'))
    return nbs

def results(out): return sorted(file.relative_to(out).as_posix() for file in out.rglob('[!.]*') if file.is_file() and file.name != 'manifest.json')

def times(house, name): return int((house/f'count_{name}').read_text())


def test_a_failure_takes_only_what_rests_on_it(house, tmp_path, capsys):
    assert driver.reproduce('smoke', output=tmp_path/'out') == 2
    states = read_manifest(tmp_path/'out')['notebooks']
    assert {name: state['status'] for name, state in states.items()} == {'00_a': 'done', '01_b': 'failed', '02_c': 'skipped', '03_d': 'done'}
    assert 'ZeroDivisionError: division by zero' in states['01_b']['error'] and states['02_c']['error'].startswith('needs 01_b')
    kept = nbformat.read(tmp_path/'out'/'notebooks'/'01_b.ipynb', 4)
    assert any(out.output_type == 'error' for cell in kept.cells for out in cell.get('outputs', []))
    assert 'not: 01_b, 02_c' in capsys.readouterr().out

@pytest.mark.parametrize('line', ['from emonb.a import nothing', 'import emonb.a', 'from emonb import a', 'from emonb import d, a'])
def test_each_way_to_import_a_module_is_a_need(house, line):
    nbformat.write(notebook('c', f'if False:\n    {line}'), house/'02_c.ipynb')
    assert runner.needs()['02_c'] == ['00_a']

def test_the_lstm_needs_the_baselines(): assert '07_baselines' in runner.needs()['11_lstm']

def test_what_is_done_is_not_done_again_until_something_changed(house, tmp_path):
    for _ in range(2): driver.reproduce('smoke', output=tmp_path/'out')
    assert times(house, 'a') == times(house, 'd') == 1
    driver.reproduce('smoke', 'other corpora', output=tmp_path/'out')
    assert times(house, 'a') == times(house, 'd') == 2
    nbformat.write(notebook('d', 'x = 1', count.format('d')), house/'03_d.ipynb')
    driver.reproduce('smoke', 'other corpora', output=tmp_path/'out')
    assert (times(house, 'a'), times(house, 'd')) == (2, 3)

@pytest.mark.fault('a corpus that changes during a run', 2)
@pytest.mark.parametrize('outage', ['other clips', None])
def test_what_was_made_while_the_corpora_changed_does_not_count(house, tmp_path, monkeypatch, outage):
    def what_is_there(corpora):
        if (house/'outage').exists() and outage is None: raise EmonbError('data: holds no clip')
        return dict(emodb=dict(clips=1, fingerprint=outage if (house/'outage').exists() else 'usual'))
    monkeypatch.setattr(driver, '_fingerprints', what_is_there)
    nbformat.write(notebook('d', count.format('d'), writes, 'Path("outage").touch()'), house/'03_d.ipynb')
    with pytest.raises(EmonbError, match='^03_d: the corpora changed while it ran'): driver.reproduce('smoke', output=tmp_path/'out', only=['00', '03'])
    assert not (tmp_path/'out'/'tables'/'d.csv').exists() and not (tmp_path/'out'/'claims'/'03_d.csv').exists()
    (house/'outage').unlink()
    nbformat.write(notebook('d', count.format('d'), writes), house/'03_d.ipynb')
    assert driver.reproduce('smoke', output=tmp_path/'out', only=['00', '03']) == 0
    assert times(house, 'a') == 1 and times(house, 'd') == 2 and (tmp_path/'out'/'tables'/'d.csv').exists()

def test_a_mended_notebook_and_those_behind_it_run_next_time(house, tmp_path):
    driver.reproduce('smoke', output=tmp_path/'out')
    nbformat.write(notebook('b', 'x = 1', needs='a'), house/'01_b.ipynb')
    assert driver.reproduce('smoke', output=tmp_path/'out') == 0
    assert {state['status'] for state in read_manifest(tmp_path/'out')['notebooks'].values()} == {'done'}

meets = '''import os, time
open('here_{0}', 'w').close()
for _ in range(600):
    if os.path.exists('here_{1}'): break
    time.sleep(.1)
else: raise TimeoutError('{1} does not come')'''

def test_several_notebooks_at_a_time(house, tmp_path):
    for number, (name, *code) in enumerate([('a', meets.format('a', 'd')), ('c', '1/0'), ('d', meets.format('d', 'a'), writes)]):
        nbformat.write(notebook(name, *code, needs='a' if name == 'd' else ()), next(house.glob(f'*_{name}.ipynb')))
    assert driver.reproduce('smoke', output=tmp_path/'out', only=['00', '02', '03'], jobs=2) == 1
    states = read_manifest(tmp_path/'out')['notebooks']
    assert {name: state['status'] for name, state in states.items()} == {'00_a': 'done', '02_c': 'failed', '03_d': 'done'}
    assert set(states['03_d']['files']) == {'notebooks/03_d.ipynb', 'tables/d.csv', 'claims/03_d.csv'} # and none of those that ran meanwhile
    assert len(pd.read_csv(tmp_path/'out'/'claims.csv')) == 1

def test_a_notebook_that_was_quicker_than_one_that_it_needs_is_taken_back(house, tmp_path):
    nbformat.write(notebook('a', 'import time; time.sleep(5); 1/0'), house/'00_a.ipynb')
    nbformat.write(notebook('d', writes, needs='a'), house/'03_d.ipynb')
    assert driver.reproduce('smoke', output=tmp_path/'out', only=['00', '03'], jobs=2) == 2
    states = read_manifest(tmp_path/'out')['notebooks']
    assert {name: state['status'] for name, state in states.items()} == {'00_a': 'failed', '03_d': 'skipped'}
    assert results(tmp_path/'out') == ['notebooks/00_a.ipynb']

def test_who_reads_results_waits_for_those_who_make_them(house):
    for name, code in dict(b="run.predictions('x', 1)", c="pd.read_parquet(run.path/'predictions'/'x.parquet')", d='read_results(run)').items():
        nbformat.write(notebook(name, code), next(house.glob(f'*_{name}.ipynb')))
    assert runner.waits() == {'00_a': set(), '01_b': set(), '02_c': {'01_b'}, '03_d': {'00_a', '01_b', '02_c'}}

def test_a_run_that_is_stopped_ends_its_notebooks(house, tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler) # who started the tests may ignore it
    for name in 'ad': nbformat.write(notebook(name, 'import os, time; open(f"pid_{os.getpid()}", "w").close(); time.sleep(60)'), next(house.glob(f'*_{name}.ipynb')))
    def interrupt():
        while len([*house.glob('pid_*')]) < 2: time.sleep(.1)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt): driver.reproduce('smoke', output=tmp_path/'out', jobs=2)
    finally: signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 50
    for file in house.glob('pid_*'): assert not psutil.pid_exists(int(file.name.removeprefix('pid_')))

def test_a_kernel_that_dies_is_a_failure_with_a_reason(house, tmp_path):
    nbformat.write(notebook('d', 'import os, signal; os.kill(os.getpid(), signal.SIGKILL)'), house/'03_d.ipynb')
    driver.reproduce('smoke', output=tmp_path/'out', only=['03'])
    state = read_manifest(tmp_path/'out')['notebooks']['03_d']
    assert state['status'] == 'failed' and 'died' in state['error'].lower()

def test_publish_takes_outputs_over_and_refuses_those_of_other_code(house, tmp_path):
    nbformat.write(notebook('d', 'import sys\nprint("progress", file=sys.stderr)\nprint("result")'), house/'03_d.ipynb')
    driver.reproduce('smoke', output=tmp_path/'out', only=['03'])
    pd.DataFrame(dict(claim=['x'])).to_csv(tmp_path/'out'/'claims.csv')
    driver.publish(tmp_path/'out')
    outputs = [out for cell in nbformat.read(house/'03_d.ipynb', 4).cells for out in cell.get('outputs', [])]
    assert [out.text for out in outputs] == ['result\n']
    nbformat.write(notebook('d', 'print("another")'), house/'03_d.ipynb')
    with pytest.raises(driver.EmonbError, match='was made from other code'): driver.publish(tmp_path/'out')

def test_results_of_an_earlier_run_do_not_outlive_their_notebook(house, tmp_path):
    nbformat.write(notebook('d', writes), house/'03_d.ipynb')
    driver.reproduce('smoke', output=tmp_path/'out', only=['03'])
    driver.reproduce('smoke', output=tmp_path/'out', only=['03'])
    assert results(tmp_path/'out') == ['claims.csv', 'claims/03_d.csv', 'notebooks/03_d.ipynb', 'tables/d.csv'] # done before
    nbformat.write(notebook('d', writes, '1/0'), house/'03_d.ipynb')
    driver.reproduce('smoke', output=tmp_path/'out', only=['03'])
    assert results(tmp_path/'out') == ['notebooks/03_d.ipynb', 'tables/d.csv'] # it shows the error; what it claimed does not count
    nbformat.write(notebook('d', '1/0'), house/'03_d.ipynb')
    driver.reproduce('smoke', output=tmp_path/'out', only=['03'])
    assert results(tmp_path/'out') == ['notebooks/03_d.ipynb']

@pytest.mark.parametrize('damage', ['flip', 'delete'])
@pytest.mark.parametrize('name', ['tables/d.csv', 'claims/03_d.csv', 'notebooks/03_d.ipynb'])
def test_a_notebook_whose_files_are_not_as_it_wrote_them_runs_again(house, tmp_path, name, damage):
    out, run = tmp_path/'out', lambda: driver.reproduce('smoke', output=tmp_path/'out', only=['00', '03'])
    nbformat.write(notebook('d', count.format('d'), writes), house/'03_d.ipynb')
    run()
    before = {name: (out/name).read_bytes() for name in ('claims.csv', 'tables/d.csv', 'claims/03_d.csv')}
    if damage == 'flip': (out/name).write_bytes((out/name).read_bytes().replace(b'5', b'4'))
    else: (out/name).unlink()
    run(); run()
    assert (times(house, 'a'), times(house, 'd')) == (1, 2) and all((out/name).read_bytes() == content for name, content in before.items())

def test_claims_are_put_together_anew_by_each_run(house, tmp_path):
    out, run = tmp_path/'out', lambda: driver.reproduce('smoke', output=tmp_path/'out', only=['03'])
    nbformat.write(notebook('d', count.format('d'), writes), house/'03_d.ipynb')
    run()
    whole = (out/'claims.csv').read_bytes()
    for damage in (lambda: (out/'claims.csv').unlink(), lambda: (out/'claims.csv').write_text('claim,ours,verdict\nx,0.9,reproduced\n'),
                   lambda: (out/'claims'/'99_gone.csv').write_text('claim,ours\ny,1\n'), lambda: (out/'claims'/'99_gone.csv').write_text('')):
        damage(); run()
        assert (out/'claims.csv').read_bytes() == whole and times(house, 'd') == 1

def test_what_was_done_on_another_kind_of_device_is_not_done(house, tmp_path, monkeypatch):
    run = lambda: driver.reproduce('smoke', output=tmp_path/'out', only=['03'])
    run()
    monkeypatch.setattr(driver, 'pick_device', lambda name: SimpleNamespace(type='cuda'))
    run(); run()
    assert times(house, 'd') == 2

def test_labels_and_films_belong_to_the_fingerprint(tmp_path, monkeypatch):
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'cache'))
    monkeypatch.setenv('EMONB_DATA', str(tmp_path/'corpora'))
    for row in plan().query("corpus == 'emodb'").head(2).to_dict('records'): write_clip(tmp_path/'corpora', row)
    film = plan().query("corpus == 'enterface'").iloc[-1].to_dict(); write_clip(tmp_path/'corpora', film)
    files = sorted(file.relative_to(tmp_path/'corpora') for file in (tmp_path/'corpora').rglob('*.wav'))
    def listed(emotion): (tmp_path/'corpora'/'own.csv').write_text('path,emotion,speaker\n' + ''.join(f'{file},{emotion},me\n' for file in files))
    look = lambda: {name: each['fingerprint'] for name, each in driver._fingerprints('auto').items()}
    listed('anger'); first = look()
    listed('sadness'); relabelled = look()
    assert first['own'] != relabelled['own'] and first['enterface'] == relabelled['enterface']
    file = tmp_path/'corpora'/film['path']
    os.utime(file, (1, 1))
    assert look() == relabelled # what counts is the content
    content = bytearray(file.read_bytes())
    at = content.index(b'00dc') + 200; content[at] ^= 1 # in the first picture
    file.write_bytes(content)
    changed = look()
    assert changed['enterface'] != relabelled['enterface'] and changed['own'] == relabelled['own']

@pytest.mark.parametrize('network', ['R2', 'R2+LSTM'])
def test_train_on_a_list_of_recordings(tmp_path, monkeypatch, capsys, network):
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'cache'))
    rows = plan().query("corpus == 'emodb' and emotion in ('anger', 'sadness')").groupby('emotion').head(10).to_dict('records')
    for row in rows: write_clip(tmp_path, row)
    lines = [f"{row['path']},{row['emotion']},{row['speaker'].split('/')[1]}" for row in rows]
    (tmp_path/'mine.csv').write_text('\n'.join(['path,emotion,speaker', *lines]) + '\n')
    assert driver.main(['train', str(tmp_path/'mine.csv'), '--network', network, '--epochs', '1', '--protocol', 'clip',
                        '--output', str(tmp_path/'mine.safetensors'), '--device', 'cpu']) == 0
    assert load_recognizer(tmp_path/'mine.safetensors').about['network'] == network and f'{network}, trained on mine 20 clips' in capsys.readouterr().out

def test_the_networks_that_can_be_trained_are_those_that_are_offered(capsys):
    with pytest.raises(SystemExit): driver.main(['train', 'x.csv', '--network', 'none'])
    assert f"(choose from {', '.join(networks)})" in capsys.readouterr().err.replace("'", '')

@pytest.mark.parametrize('left', [None, '{"cells": [', ''])
def test_a_disk_that_fills_while_a_copy_is_written_is_one_line(house, tmp_path, monkeypatch, capsys, left):
    import papermill
    def full(path, output, *_, **__):
        if left is not None: output.write_text(left)
        raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(papermill, 'execute_notebook', full)
    assert driver.main(['reproduce', '--profile', 'smoke', '--output', str(tmp_path/'out'), '--notebooks', '03']) == 1
    assert 'notebooks/03_d.ipynb: no space is left' in capsys.readouterr().err

def test_a_relative_folder_is_the_same_for_all_notebooks(house, tmp_path, monkeypatch):
    (tmp_path/'corpora').mkdir()
    monkeypatch.chdir(tmp_path); monkeypatch.setenv('EMONB_DATA', 'corpora')
    nbformat.write(notebook('d', 'import os; print(os.environ["EMONB_DATA"])'), house/'03_d.ipynb')
    driver.reproduce('smoke', output=tmp_path/'out', only=['03'])
    kept = nbformat.read(tmp_path/'out'/'notebooks'/'03_d.ipynb', 4)
    assert [out.text for cell in kept.cells for out in cell.get('outputs', [])] == [f'{tmp_path/"corpora"}\n']
    assert os.environ['EMONB_DATA'] == 'corpora'

def test_killed_and_started_again_it_goes_on(tmp_path):
    command = [sys.executable, '-c', 'import sys; from emonb.reproduce import main; sys.exit(main(sys.argv[1:]))', 'reproduce', '--profile', 'smoke',
               '--corpora', 'demo', '--output', str(tmp_path/'out'), '--notebooks', '00', '01_core']
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    for line in first.stdout: # killed while the second notebook runs
        if line.startswith('[1/2]'): break
    os.killpg(first.pid, signal.SIGKILL); first.wait()
    done = read_manifest(tmp_path/'out')['notebooks']['00_paper']
    again = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    assert again.returncode == 0 and 'done before' in again.stdout
    assert read_manifest(tmp_path/'out')['notebooks']['00_paper'] == done

@pytest.mark.parametrize('words, reason', [
    (['reproduce', '--corpora', 'no/such/folder'], 'no/such/folder'), (['reproduce', '--notebooks', '99'], "notebook '99'"),
    (['data', 'check', 'no/such/folder'], 'such/folder'), (['data', 'get', 'nothing'], 'nothing'), (['audit', 'no_such.csv'], 'no_such.csv'),
    (['publish', 'nowhere'], 'nowhere: is no run folder'), (['reproduce', '--seeds', '-3'], 'seeds: -3'), (['reproduce', '--device', 'abacus'], "device 'abacus'")])
def test_a_wrong_word_is_one_line_and_exit_status_1(words, reason, capsys):
    assert driver.main(words) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('emonb: ') and reason in error

def test_help_and_import_are_quick():
    for code, limit in (('import emonb', 0.3), ('import sys; from emonb.reproduce import main; main(["--help"])', 0.5)):
        began = time.perf_counter()
        for _ in range(3): subprocess.run([sys.executable, '-c', code], stdout=subprocess.DEVNULL)
        assert (time.perf_counter() - began)/3 < 2*limit, 'twice the limit, for a busy machine; make bench measures'


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get('EMONB_DATA'), reason='EMONB_DATA is not set')
def test_every_notebook_runs_on_the_real_recordings(tmp_path):
    assert driver.reproduce('smoke', os.environ['EMONB_DATA'], tmp_path/'out', jobs=2) == 0
    claims = pd.read_csv(tmp_path/'out'/'claims.csv')
    settings = {'paper', 'paper, hop 256 ms', 'clip', 'speaker', 'speaker+sentence'}
    linear = claims[claims.claim.str.match(r'table2\.(svm|softmax)\.')]
    assert set(linear.protocol) == settings and len(linear) == 30
    made_up = claims.corpora.str.contains('demo', na=False) # faces on film, of which no real corpus with clips is here
    assert claims[made_up].verdict.isna().all() and claims[made_up].claim.str.match('table5|order.finetuned').all()
    judged = claims[~made_up & (claims.claim != 'order.filters-look-like-speech')] # which is shown, not measured
    assert judged.verdict.isin(['reproduced', 'partly', 'not reproduced', 'not testable']).all()
    scores = claims[claims.ours.notna() & ~claims.claim.str.startswith('count.')]
    assert scores[['corpora', 'protocol']].notna().all(axis=None) # a number says what it is of

@pytest.mark.filterwarnings('error')
def test_a_run_leaves_nothing_open(house, tmp_path):
    nbformat.write(notebook('d', 'import os'), house/'03_d.ipynb')
    driver.reproduce('smoke', output=tmp_path/'out', only=['03'])
    gc.collect()
