"Runs in a store: another machine goes on, what is damaged there is made again, and what cannot be reached is said."
import errno
from pathlib import Path

import nbformat, pandas as pd, pytest
from fsspec.implementations.local import LocalFileSystem

from emonb import reproduce as driver
from emonb.core import EmonbError, Run, checksum, read_manifest, write_manifest
from emonb.storage import StoredRun, folder_of
from tests.test_cache import s3
from tests.test_faults import family, finish, furnished, kill, results, start, waited
from tests.test_reproduce import count, house, notebook, times, writes
from tests.test_results import row


@pytest.fixture
def machine(tmp_path, monkeypatch):
    "Another machine has another cache."
    return lambda name: monkeypatch.setenv('EMONB_CACHE', str(tmp_path/name))

@pytest.fixture
def stored(house, tmp_path):
    "A run of two small rooms in a store: where it is there."
    nbformat.write(notebook('d', count.format('d'), writes), house/'03_d.ipynb')
    return tmp_path/'store'/'out'

def ran(address): return driver.reproduce('smoke', output=str(address), only=['00', '03'])

def kept(folder): return {file.relative_to(folder).as_posix(): checksum(file) for file in Path(folder).rglob('[!.]*') if file.is_file()}


@pytest.mark.filterwarnings('ignore:datetime.datetime.utcnow')
@pytest.mark.parametrize('kind', ['file', 's3'])
def test_another_machine_goes_on(kind, stored, house, machine, request, capsys):
    if kind == 's3': request.getfixturevalue('s3')
    address = dict(file=f'file://{stored}', s3='s3://emonb/runs/out')[kind]
    machine('one'); assert driver.reproduce('smoke', output=address, only=['00']) == 0
    machine('two'); assert ran(address) == 0
    assert times(house, 'a') == times(house, 'd') == 1 and f'results in {address}' in capsys.readouterr().out
    machine('three'); assert ran(address) == 0
    assert times(house, 'a') == times(house, 'd') == 1
    folder = folder_of(address)
    assert pd.read_csv(folder/'claims.csv').verdict.tolist() == ['partly'] and pd.read_csv(folder/'tables'/'d.csv').x.tolist() == [5]
    assert {'notebooks/00_a.ipynb', 'notebooks/03_d.ipynb', 'claims/03_d.csv'} <= kept(folder).keys()

@pytest.mark.fault('a damaged store', 3)
@pytest.mark.parametrize('damage', ['changed', 'missing', 'emptied'])
def test_what_is_damaged_is_made_again(stored, house, machine, damage):
    machine('one'); ran(f'file://{stored}')
    table = stored/'tables'/'d.csv'
    good = table.read_bytes()
    if damage == 'missing': table.unlink()
    else: table.write_bytes(b'x\n6\n' if damage == 'changed' else b'')
    machine('two')
    with pytest.raises(EmonbError, match=r'lacks tables/d.csv and 0 more'), pytest.warns(UserWarning, match='damaged or gone'): folder_of(f'file://{stored}')
    with pytest.warns(UserWarning, match='d.csv: is damaged or gone'): assert ran(f'file://{stored}') == 0
    assert (times(house, 'a'), times(house, 'd')) == (1, 2) and table.read_bytes() == good
    machine('three'); assert ran(f'file://{stored}') == 0 and times(house, 'd') == 2

@pytest.mark.fault('a store that fails')
def test_a_store_that_fails_costs_nothing_that_was_done(stored, house, machine, monkeypatch, capsys):
    machine('one')
    def fails(*_): raise OSError(errno.EACCES, 'Permission denied')
    with monkeypatch.context() as broken:
        broken.setattr(LocalFileSystem, 'put_file', fails)
        assert driver.main(['reproduce', '--profile', 'smoke', '--output', f'file://{stored}', '--notebooks', '00', '03']) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f'emonb: file://{stored}: cannot be used') and said.endswith('what was finished is kept')
    assert ran(f'file://{stored}') == 0 and times(house, 'a') == 1
    machine('two'); assert ran(f'file://{stored}') == 0 and times(house, 'a') == 1

@pytest.mark.fault('two runs at once at one address')
def test_two_machines_at_one_address_lose_nothing_that_the_other_has_finished(stored, machine):
    def sends(run, stem, made):
        run.folder.mkdir(parents=True, exist_ok=True)
        Run(run.folder).table(stem, pd.DataFrame(dict(x=[made]))); Run(run.folder).claims(stem, pd.DataFrame(dict(claim=[stem], ours=[.5])))
        files = {name: checksum(run.folder/name) for name in (f'tables/{stem}.csv', f'claims/{stem}.csv')}
        write_manifest(run.folder, notebooks={**read_manifest(run.folder).get('notebooks', {}), stem: dict(status='done', made=made, files=files)})
        run.send()
    machine('one'); one = StoredRun(f'file://{stored}'); one.fetch()
    machine('two'); two = StoredRun(f'file://{stored}'); two.fetch()
    machine('one'); sends(one, '00_a', '1'); sends(one, '01_b', '2')
    machine('two'); sends(two, '02_c', '3'); sends(two, '00_a', '4')
    machine('one'); sends(one, '03_d', '5')
    machine('three'); folder = folder_of(f'file://{stored}')
    assert {stem: state['made'] for stem, state in read_manifest(folder)['notebooks'].items()} == {'00_a': '4', '01_b': '2', '02_c': '3', '03_d': '5'}
    for claims in (folder/'claims.csv', stored/'claims.csv'): assert sorted(pd.read_csv(claims).claim) == ['00_a', '01_b', '02_c', '03_d']

@pytest.mark.fault('a machine that is lost, its run in a store')
def test_a_machine_that_is_lost_takes_no_notebook_with_it(tmp_path):
    house, there = furnished(tmp_path), tmp_path/'store'/'run'
    assert finish(house, 'here', 'undisturbed')[0] == 0
    first = start(house, 'nowhere', 'first', '--output', f'file://{there}')
    waited(lambda: (there/'manifest.json').exists() and '00_list' in (there/'manifest.json').read_text(), first)
    kill(family(first)); first.communicate()
    second = start(house, 'nowhere', 'second', '--output', f'file://{there}')
    said, _ = second.communicate(timeout=300)
    assert second.returncode == 0 and said.count('done before') == 1
    assert results(house, 'store/run') == results(house, 'here') and len(results(house, 'here')) == 4

@pytest.mark.filterwarnings('ignore:.*damaged or gone')
def test_another_notebook_can_run_while_a_file_is_damaged(stored, house, machine):
    machine('one'); ran(f'file://{stored}')
    (stored/'tables'/'d.csv').unlink()
    machine('two')
    nbformat.write(notebook('a', 'x = 1', count.format('a')), house/'00_a.ipynb')
    assert driver.reproduce('smoke', output=f'file://{stored}', only=['00']) == 0 and times(house, 'a') == 2
    assert ran(f'file://{stored}') == 0 and times(house, 'd') == 2 and (stored/'tables'/'d.csv').exists()

def test_what_a_run_no_longer_says_goes(stored, house, machine):
    machine('one'); ran(f'file://{stored}')
    assert (stored/'tables'/'d.csv').exists() and (stored/'claims.csv').exists()
    nbformat.write(notebook('d', '1/0'), house/'03_d.ipynb')
    assert ran(f'file://{stored}') == 1
    assert {name for name in kept(stored) if 'd' in Path(name).stem.split('_')} == {'notebooks/03_d.ipynb'} and not (stored/'claims.csv').exists()
    machine('two'); assert not (StoredRun(f'file://{stored}').fetch()/'claims.csv').exists()

@pytest.mark.fault('a path that leads elsewhere')
@pytest.mark.parametrize('manifest', ['{"notebooks": {"00_a": {"status": "done", "files": {"../../escaped.txt": "1"}}}}', '{"notebooks": {"00_a": {"status": "done", "files": {"/escaped.txt": "1"}}}}',
                                      '{"notebooks": {"00_a": {"status": "done", "files": {".": "1"}}}}', '{"notebooks": {"00_a": {"files": {}}}}',
                                      'no JSON', '[]', '7', 'null', '{"notebooks": 7}', '{"notebooks": {"00_a": 7}}', '{"notebooks": {"00_a": {"status": "done", "files": 7}}}'])
def test_a_manifest_that_cannot_be_true_is_refused(tmp_path, machine, manifest):
    machine('one'); (tmp_path/'store'/'out').mkdir(parents=True)
    (tmp_path/'store'/'escaped.txt').write_text('!'); (tmp_path/'store'/'out'/'manifest.json').write_text(manifest)
    with pytest.raises(EmonbError, match='out/manifest.json: is damaged'): StoredRun(f"file://{tmp_path/'store'/'out'}").fetch()
    assert not list((tmp_path/'one').rglob('escaped*'))

@pytest.mark.parametrize('address, said', [('s3://', 'names no place in the store'), ('nothing://x/y', 'cannot be used')])
def test_an_address_that_is_none_is_one_clear_line(address, said, capsys):
    assert driver.main(['reproduce', '--profile', 'smoke', '--output', address, '--notebooks', '00']) == 1
    assert capsys.readouterr().err.startswith(f'emonb: {address}: {said}')

def test_a_stored_run_is_reported_as_its_folder_is(tmp_path, machine, capsys):
    machine('one')
    address = f"file://{tmp_path/'store'/'quick'}"
    assert driver.main(['report', address]) == 1 and 'holds no run' in capsys.readouterr().err
    made = StoredRun(address)
    Run(made.folder).claims('08_cnns', pd.DataFrame([row()]))
    write_manifest(made.folder, path='of no meaning', notebooks={'08_cnns': dict(status='done', made='2026', files={'claims/08_cnns.csv': checksum(made.folder/'claims'/'08_cnns.csv')})})
    made.send()
    machine('two')
    assert driver.main(['report', address]) == 0
    there = capsys.readouterr().out
    assert driver.main(['report', str(made.folder)]) == 0 and capsys.readouterr().out == there and 'table4.R1.test' in there
    Run(made.folder).claims('08_cnns', pd.DataFrame([row(ours=.123)]))
    write_manifest(made.folder, notebooks={'08_cnns': dict(status='done', made='2025', files={'claims/08_cnns.csv': checksum(made.folder/'claims'/'08_cnns.csv')})})
    made.send() # by a machine whose clock is behind
    assert driver.main(['report', address]) == 0 and '.123' in capsys.readouterr().out
