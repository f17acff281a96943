"The run folder under faults, and what else its notebook cannot show."
import json, subprocess, sys
from pathlib import Path

import pandas as pd, pytest

from emonb import core
from emonb.core import EmonbError, Run, digest, get_profile, profiles, read_manifest, start_run, write_manifest, write_whole


def test_an_interrupted_write_keeps_the_old_file(tmp_path):
    file = tmp_path/'table.csv'
    write_whole(file, lambda temporary: temporary.write_text('old'))
    def fails(temporary):
        temporary.write_text('half of the n')
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): write_whole(file, fails)
    assert file.read_text() == 'old' and list(tmp_path.iterdir()) == [file]

def test_a_damaged_manifest_says_so(tmp_path):
    write_manifest(tmp_path, parameters={'profile': 'smoke'})
    (tmp_path/'manifest.json').write_text('{"half')
    with pytest.raises(EmonbError, match='manifest.json: is damaged'): write_manifest(tmp_path, more=1)

@pytest.mark.parametrize('name', profiles)
def test_a_cell_that_opens_a_run_may_be_run_twice(tmp_path, monkeypatch, name):
    monkeypatch.setenv('EMONB_RUNS', str(tmp_path))
    profile, run = name, None
    for _ in range(2): run = start_run(run, profile := get_profile(profile))
    assert profile is profiles[name] and run.path == tmp_path/name and [path.name for path in tmp_path.iterdir()] == [name]
    again = start_run(start_run('other', profile), profile)
    assert again.path == tmp_path/'other' and read_manifest(again.path)['profile']['name'] == name

def test_claims_without_parts_are_no_claims(tmp_path):
    run = Run(tmp_path)
    run.claims('07_baselines', pd.DataFrame(dict(claim=['x'], ours=[.5])))
    (tmp_path/'claims'/'07_baselines.csv').unlink()
    run.join_claims()
    assert not (tmp_path/'claims.csv').exists()

def test_claims_are_those_of_all_notebooks(tmp_path):
    run = Run(tmp_path)
    for name in ('08_cnns', '07_baselines'): run.claims(name, pd.DataFrame(dict(claim=[name], ours=[0.5])))
    run.claims('07_baselines', pd.DataFrame(dict(claim=['07_baselines'], ours=[0.6])))
    assert pd.read_csv(tmp_path/'claims.csv').ours.tolist() == [0.6, 0.5]

@pytest.mark.parametrize('value', [{'a': Path('x/y'), 'b': [1, 2.5, None]}, 'text', (1, (2, 3)), {'é': {2, 1}}])
def test_digest_does_not_change(value): assert digest(value) == digest(json.loads(json.dumps(value, default=core._plain)))

def test_a_forked_process_does_not_wait_for_idle_workers(tmp_path):
    code = ("import multiprocessing as mp\ndef child():\n    import emonb.core, joblib\n    joblib.Parallel(2)(joblib.delayed(abs)(i) for i in range(4))\n"
            "process = mp.get_context('fork').Process(target=child); process.start(); process.join(60); raise SystemExit(process.exitcode)")
    assert subprocess.run([sys.executable, '-c', code], timeout=90).returncode == 0

def test_a_pool_of_ones_own_ends_with_the_process(): # joblib's is another class
    code = 'import emonb.core\nfrom joblib.externals.loky import get_reusable_executor\nprint(get_reusable_executor(1).submit(abs, -1).result())'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, '1', '')

def test_a_path_is_shown_from_the_folder_where_a_link_to_it_stands(tmp_path, monkeypatch):
    (tmp_path/'disk'/'emodb').mkdir(parents=True); (tmp_path/'data').mkdir()
    (tmp_path/'data'/'emodb').symlink_to(tmp_path/'disk'/'emodb')
    monkeypatch.setenv('EMONB_DATA', str(tmp_path/'data'))
    assert core.shown(tmp_path/'data'/'emodb'/'x.wav') == 'data/emodb/x.wav'
