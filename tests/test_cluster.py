"Trainings on a Dask cluster of separate processes: the same bits as here, whoever is killed."
import functools, json, os, re, shutil, signal, subprocess, sys, threading, time
from types import SimpleNamespace

import numpy as np, pandas as pd, psutil, pytest

import emonb.cache
from emonb import experiments, reproduce as driver
from emonb.cluster import _opened, _packed, conditions, connect, spread
from emonb.cnns import build, specs
from emonb.core import EmonbError, cache_dir
from emonb.experiments import run_experiments, search
from emonb.paper import emotions
from emonb.protocols import splits
from emonb.training import Dataset, DivergedError, Settings
from tests.test_faults import finish, furnished, results, start, waited

rows = 240

@pytest.fixture(scope='module')
def data():
    random = np.random.default_rng(0)
    labels = np.arange(rows) % len(emotions)
    inputs = random.normal(size=(rows, 2, 64, 64)).astype('f')
    for row, label in enumerate(labels): inputs[row, :, 8*label:8*label + 8] += .3
    table = pd.DataFrame(dict(clip=[f'x/{row}' for row in range(rows)], corpus='x', emotion=np.array(emotions)[labels],
                              digest=[f'{row}' for row in range(rows)], start=0., end=.5))
    return Dataset(inputs, labels), table

def train(data, epochs=3):
    "Five folds of R2."
    data, table = data
    return run_experiments('R2', functools.partial(build, specs['R2']), 'noise', data, table, list(splits(table, 'clip')), 'clip',
                           Settings(rate=1e-3, batch=32, epochs=epochs, device='cpu'))

class Cluster:
    "A scheduler and workers, processes of their own on loopback."
    def __init__(self, folder, threads):
        self.folder, self.environment, self.workers = folder, {**os.environ, 'OMP_NUM_THREADS': str(threads)}, []
        self.scheduler = self._start('scheduler', '--host', '127.0.0.1', '--port', '0', '--no-dashboard')
        self.address = self._said('scheduler', r'Scheduler at:\s+(tcp://\S+)')

    def _start(self, *words, **environment):
        with open(self.folder/f'{words[0]}.log', 'ab') as log:
            return subprocess.Popen([sys.executable, '-m', 'distributed.cli.dask_' + words[0], *words[1:]], stderr=log, stdout=log,
                                    env={**self.environment, **environment}, cwd=self.folder)

    def _said(self, name, pattern, patience=60):
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if found := re.search(pattern, (self.folder/f'{name}.log').read_text()): return found[1]
            time.sleep(.1)
        raise AssertionError((self.folder/f'{name}.log').read_text())

    def add(self, **environment):
        self.workers.append(self._start('worker', self.address, '--no-nanny', '--nthreads', '1', '--no-dashboard', **environment))
        connect(self.address).wait_for_workers(len(self.alive()), timeout=60)

    def alive(self): return [worker for worker in self.workers if worker.poll() is None]

    def close(self):
        if self.scheduler.poll() is None: connect(self.address).close()
        for process in (*self.workers, self.scheduler): process.kill(); process.wait()
        connect.cache_clear()

@pytest.fixture
def cluster(tmp_path, monkeypatch):
    import torch
    pytest.importorskip('distributed')
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'cache'))
    made = Cluster(tmp_path, torch.get_num_threads())
    monkeypatch.setenv('EMONB_SCHEDULER', made.address)
    yield made
    made.close()

def same(one, other):
    return all(a.predictions.equals(b.predictions) and a.curves.equals(b.curves)
               and all(a.weights[name].equal(b.weights[name]) for name in a.weights) for a, b in zip(one, other, strict=True))

def finished(): return {folder.name: folder.stat().st_ino for folder in (cache_dir()/'experiments').glob('[!.]*') if folder.is_dir()}


def test_processes_give_the_bits_of_this_process(data, monkeypatch, tmp_path):
    made = []
    for workers in ('1', '2'):
        monkeypatch.setenv('EMONB_CACHE', str(tmp_path/workers)); monkeypatch.setenv('EMONB_WORKERS', workers)
        made.append(train(data))
    assert same(*made)

def test_the_others_are_kept_when_one_diverges(data, monkeypatch, tmp_path):
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path)); monkeypatch.setenv('EMONB_WORK', str(tmp_path/'work.jsonl'))
    (rows_of, table), parts = data, list(splits(data[1], 'clip'))[:2]
    job = lambda rate: experiments.Job('R2', functools.partial(build, specs['R2']), 'noise', rows_of, table, parts, 'clip',
                                       Settings('sgd', rate=rate, batch=32, epochs=1, device='cpu'))
    with pytest.raises(DivergedError): experiments.run_jobs([job(1e9), job(1e-3), job(1e-3)])
    assert len(finished()) <= 2 # what had its turn before
    found = experiments.run_jobs([job(1e-3), job(1e-3)])
    assert len(finished()) == 2 and same(*found) # twice asked for, once trained
    told = [json.loads(line) for line in (tmp_path/'work.jsonl').read_text().splitlines()]
    assert len(told) == 4 and all(each['operations'] > 1e9 and each['seconds'] > 0 for each in told)

def test_a_cluster_gives_the_bits_of_this_process(cluster, data, monkeypatch, tmp_path):
    cluster.add(); cluster.add()
    there = train(data)
    monkeypatch.delenv('EMONB_SCHEDULER')
    again = finished()
    assert same(there, train(data)) and finished() == again # read from the cache that all share
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'another'))
    assert same(there, train(data)) and len(again) == 5

@pytest.mark.fault('kill -9 of a worker of a cluster, in a whole run')
def test_a_run_whose_networks_are_trained_on_a_cluster_makes_the_same_claims(cluster, monkeypatch, tmp_path):
    house = furnished(tmp_path)
    monkeypatch.delenv('EMONB_SCHEDULER')
    assert finish(house, 'here', 'another')[0] == 0
    cluster.add(); cluster.add()
    run = start(house, 'there', 'cache', '--scheduler', cluster.address)
    waited(lambda: [*(tmp_path/'cache'/'checkpoints').glob('*.safetensors')], run) # a worker trains, and has come through an epoch
    cluster.workers[0].kill()
    assert run.wait(300) == 0 and results(house, 'there') == results(house, 'here')
    assert psutil.Process(cluster.workers[1].pid).cpu_times().user > 2 # it was not done here

@pytest.mark.fault('kill -9 of a worker of a cluster')
def test_a_worker_that_is_killed_takes_nothing_with_it(cluster, data, monkeypatch, tmp_path):
    cluster.add(); cluster.add()
    first_done = {}
    def kill():
        while not finished(): time.sleep(.01)
        first_done.update(finished())
        cluster.workers[0].send_signal(signal.SIGKILL)
    killer = threading.Thread(target=kill); killer.start()
    there = train(data, epochs=12)
    killer.join()
    assert cluster.workers[0].wait(10) == -signal.SIGKILL and len(cluster.alive()) == 1
    assert len(finished()) == 5 and first_done.items() <= finished().items() and len(first_done) < 5 # none lost, none done twice
    monkeypatch.delenv('EMONB_SCHEDULER'); monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'another'))
    assert same(there, train(data, epochs=12))

def test_a_worker_with_another_cache_is_refused(cluster, data, tmp_path):
    cluster.add(EMONB_CACHE=str(tmp_path/'elsewhere'))
    with pytest.raises(EmonbError, match='has other cache folder than the caller'): train(data)
    assert not finished()

def test_machines_without_a_common_folder_share_a_store(cluster, data, monkeypatch, tmp_path):
    monkeypatch.setenv('EMONB_STORE', f"file://{tmp_path/'store'}")
    for name in ('one', 'other'): cluster.add(EMONB_CACHE=str(tmp_path/name), EMONB_STORE=f"file://{tmp_path/'store'}")
    there = train(data)
    done = [sum(folder.is_dir() for folder in (tmp_path/name/'experiments').glob('[!.]*')) for name in ('one', 'other')]
    assert sum(done) == 5 and min(done) > 0 and len(finished()) == 5 # each on one of them, all fetched
    monkeypatch.delenv('EMONB_SCHEDULER'); monkeypatch.delenv('EMONB_STORE'); monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'another'))
    assert same(there, train(data))

def test_a_search_is_the_same_on_a_cluster(cluster, data, monkeypatch, tmp_path):
    cluster.add(); cluster.add()
    (inputs, table), space = data, dict(rate=[1e-4, 1e-3, 1e-2], batch=[16, 64])
    look = lambda: search('R2', functools.partial(build, specs['R2']), 'noise', inputs, next(splits(table, 'clip')), space, trials=3, epochs=2)
    there = look()
    monkeypatch.delenv('EMONB_SCHEDULER'); monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'another'))
    assert there.equals(look())

@pytest.mark.fault('kill -9 of a scheduler')
def test_a_cluster_that_is_lost_is_said_and_the_next_run_goes_on(cluster, data, monkeypatch):
    cluster.add()
    def kill():
        while not finished(): time.sleep(.01)
        cluster.scheduler.kill()
    killer = threading.Thread(target=kill); killer.start()
    with pytest.raises(EmonbError, match='the connection is lost'): train(data, epochs=12)
    killer.join()
    before = finished()
    monkeypatch.delenv('EMONB_SCHEDULER')
    train(data, epochs=12)
    assert len(finished()) == 5 and before.items() <= finished().items()

def test_a_connection_that_was_lost_between_experiments_is_said_and_made_again(cluster):
    cluster.add()
    connect(cluster.address).close()
    with pytest.raises(EmonbError, match='the connection is lost'): spread(abs, [(-1,)])
    assert spread(abs, [(-1,)]) == [1]

def test_machines_that_worked_alone_before_can_share_a_store_but_copies_are_no_cache_in_common(monkeypatch, tmp_path):
    def on(machine): monkeypatch.setenv('EMONB_CACHE', str(tmp_path/machine)); return conditions()
    alone = on('one'), on('other')
    assert alone[0] != alone[1] and on('one') == alone[0]
    shutil.copytree(tmp_path/'one', tmp_path/'copied')
    assert on('copied') != alone[0]
    monkeypatch.setenv('EMONB_STORE', f"file://{tmp_path/'store'}")
    assert on('one') == on('other') == on('third') != alone[0]

@pytest.mark.fault('a flipped bit in the cache')
def test_an_input_that_was_damaged_in_the_cache_is_not_opened(monkeypatch, tmp_path):
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path))
    emonb.cache._verified.clear()
    array = np.random.default_rng(0).normal(size=2**18)
    packed = _packed(array)
    assert np.array_equal(_opened(packed), array)
    content = bytearray((tmp_path/packed.file).read_bytes())
    content[-1] ^= 1
    (tmp_path/packed.file).write_bytes(content)
    emonb.cache._verified.clear() # as in another process
    with pytest.raises(EmonbError, match='is neither in the cache nor in EMONB_STORE'): _opened(packed)
    assert np.array_equal(_opened(_packed(array)), array)

@pytest.mark.parametrize('address', ['tcp://127.0.0.1:9', '']) # '': of a variable that is not set
def test_a_run_on_a_cluster_that_is_not_there_stops_at_once(address, capsys):
    assert driver.main(['reproduce', '--scheduler', address]) == 1
    assert f"scheduler '{address}': does not answer" in capsys.readouterr().err

@pytest.mark.parametrize('store', ['store', 's3://emonb/store'])
def test_the_notebooks_of_a_run_share_the_drivers_store(store, tmp_path, monkeypatch):
    told = {}
    monkeypatch.chdir(tmp_path); monkeypatch.setenv('EMONB_STORE', store)
    monkeypatch.setattr(driver, '_fingerprints', lambda corpora: {'demo-emodb': {}})
    monkeypatch.setattr(driver, 'run_notebooks', lambda *_: told.update(os.environ) or {})
    driver.reproduce('smoke', 'demo', output=tmp_path/'out')
    assert told['EMONB_STORE'] == (store if '://' in store else str(tmp_path/store))

def test_the_notebooks_of_a_run_are_told_of_the_cluster(monkeypatch):
    told = {}
    monkeypatch.setattr(driver, '_reached', lambda address: None)
    monkeypatch.setattr(driver, '_fingerprints', lambda corpora: {'demo-emodb': {}})
    monkeypatch.setattr(driver, 'run_notebooks', lambda *_: told.update(os.environ) or {})
    for address in ('tcp://host:8786', None):
        driver.reproduce('smoke', 'demo', scheduler=address)
        assert told.pop('EMONB_SCHEDULER', None) == address

def test_on_a_gpu_the_folds_are_trained_side_by_side_to_the_same_end(data, monkeypatch, tmp_path):
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'alone'))
    alone = train(data)
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'together'))
    monkeypatch.setattr(experiments, 'pick_device', lambda name: SimpleNamespace(type='cuda')) # it computes on the CPU all the same
    calls, fit_all = [], experiments.replicas.fit_all
    monkeypatch.setattr(experiments.replicas, 'fit_all', lambda *args: calls.append(len(args[2])) or fit_all(*args))
    together = train(data)
    assert calls == [5] and not set(finished()) & {folder.name for folder in (tmp_path/'alone'/'experiments').iterdir()}
    probabilities = [name for name in alone[0].predictions if name.startswith('p_')]
    for one, other in zip(alone, together, strict=True):
        assert np.allclose(one.predictions[probabilities], other.predictions[probabilities], atol=2e-3)
    assert same(together, train(data)) and calls == [5] # kept
