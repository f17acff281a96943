"What trainings cost, and where they run."
import dataclasses, functools, json

import joblib, numpy as np, pandas as pd, pytest, torch

from emonb import experiments, replicas
from emonb.cnns import build, cost, specs
from emonb.core import cache_dir
from emonb.dense import build_dense
from emonb.experiments import Job, least_work, run_jobs
from emonb.finetune import FaceNet
from emonb.fusion import built
from emonb.lstm import ClipLSTM
from emonb.paper import emotions
from emonb.protocols import Split
from emonb.training import Dataset, Settings, fit

split = Split('paper', 0, 0, np.arange(30), np.arange(30, 35), np.arange(35, 40), 40)
data = Dataset(np.random.default_rng(0).normal(size=(40, 2, 64, 64)).astype(np.float32), np.arange(40) % 7)
table = pd.DataFrame(dict(corpus='noise', clip=[str(n) for n in range(40)], start=0., emotion=np.array(emotions)[data.labels]))

def counted(make, data=data, **settings):
    made = Job('x', make, 'noise', data, None, [split, split], 'paper', Settings(epochs=3, **{'device': 'cpu', 'precision': 'float32', **settings}), (1, 2))
    (one, other), = least_work([made])
    assert one == other
    return one

def first_layer(spec): # of a row, forward
    full, width = spec.size[0] == 64, spec.size[1]
    return 2*2*(64 if full else width)*width*(64 if full else 64*64)*spec.filters[0]

def by_hand(forward, no_slope): # three epochs, two snapshots; the first layer hands no slope on
    return 3*((3*forward - no_slope)*30 + forward*5) + forward*(40 + 2*5)

@pytest.mark.parametrize('name', ['R2', 'R3', 'S3', 'S4'])
def test_operations_of_plain_products(name):
    assert counted(functools.partial(build, specs[name]))['operations'] == by_hand(cost(specs[name])['operations'], first_layer(specs[name]))

@pytest.mark.parametrize('name', ['R1', 'R5'])
def test_operations_are_those_of_the_way_that_is_taken(name, monkeypatch):
    make, whole, first = functools.partial(build, specs[name]), cost(specs[name])['operations'], first_layer(specs[name])
    rest = whole - first
    assert counted(make)['operations'] == pytest.approx(by_hand(rest + .4*first, .4*first), rel=.03) # 06d_winograd
    assert counted(make, precision='bfloat16')['operations'] == by_hand(whole, first)
    monkeypatch.setattr(experiments, '_hardware', lambda settings: (torch.device('cuda'), torch.bfloat16))
    assert counted(make)['operations'] == by_hand(whole, first)

@pytest.mark.parametrize('device, precision', [('cpu', 'float32'), ('cpu', 'bfloat16'), ('cuda', 'bfloat16')])
def test_operations_of_a_network_with_a_memory(device, precision, monkeypatch):
    monkeypatch.setattr(experiments, '_hardware', lambda settings: (torch.device(device), getattr(torch, precision)))
    into, forward = 2*8192*4*8, 2*4*8*(8192 + 8) + 2*8*7 # 8 units with four gates each
    found = counted(lambda: ClipLSTM(8192, 8, dropout=.5), data._replace(clips=np.repeat(np.arange(10), 4)))
    assert found['operations'] == pytest.approx(by_hand(forward, into), rel=1e-3)
    assert found['bytes'] == 3*(24*(8192*32 + 8*32 + 2*32 + 8*7 + 7)) + (3*35 + 50)*2*64*64*(4 if precision == 'float32' else 2) # ten clips: a step an epoch

@pytest.mark.parametrize('optimiser, trained', [('adamw', 24), ('sgd', 16)])
def test_bytes_of_an_optimiser_and_of_weights_that_stay(optimiser, trained):
    def make(): return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8192, 8, bias=False).requires_grad_(False), torch.nn.Linear(8, 7, bias=False))
    assert counted(make, optimiser=optimiser, batch=8)['bytes'] == 3*4*(4*8192*8 + trained*8*7) + (3*35 + 50)*4*8192 # 30 rows: four steps an epoch

def zeros(*shape, dtype=np.float32): return np.zeros((40, *shape), dtype)
scale = {sense: (torch.zeros(size), torch.ones(())) for sense, size in (('audio', 8192), ('face', 2304))}

@pytest.mark.parametrize('make, inputs, clips', [
    *(pytest.param(functools.partial(build, spec), zeros(2, 64, 64), False, id=name) for name, spec in specs.items()),
    pytest.param(lambda: build_dense((128, 128)), zeros(2, 64, 64), False, id='fc3'),
    pytest.param(lambda: ClipLSTM(64, 8, True, .2), zeros(64), True, id='LSTM'),
    pytest.param(lambda: built(scale), zeros(10498, dtype=np.uint8), True, id='fusion'),
    *(pytest.param(functools.partial(FaceNet, 'squeezenet1_1', None, size, learn), zeros(3, 64, 64, dtype=np.uint8), False, id=f'faces, {learn}, {size}')
      for learn in ('all', 'last') for size in (48, 80))])
def test_no_network_makes_tensors_that_stay_on_the_cpu(make, inputs, clips, monkeypatch):
    monkeypatch.setattr(experiments, '_hardware', lambda settings: (torch.device('cuda'), torch.bfloat16)) # computes nothing, but minds devices
    assert counted(make, Dataset(inputs, data.labels, np.repeat(np.arange(10), 4) if clips else None), batch=5)['operations'] > 1e4

def test_a_tensor_that_stays_on_the_cpu_is_seen(monkeypatch):
    class Stays(torch.nn.Linear):
        def forward(self, x): return super().forward(x.flatten(1)) + torch.ones(7)
    monkeypatch.setattr(experiments, '_hardware', lambda settings: (torch.device('cuda'), torch.bfloat16))
    with pytest.raises(RuntimeError, match='device'): counted(lambda: Stays(8192, 7))

def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    counted(functools.partial(build, specs['R6']))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize('on_gpu, workers, jobs, expected', [(False, '3', 5, 3), (False, '3', 2, 2), (False, '3', 0, 1), (False, '9', 8, 8), (True, '9', 8, 6), (True, '9', 1, 1)])
def test_processes_are_as_many_as_the_jobs_device_allows(on_gpu, workers, jobs, expected, monkeypatch):
    monkeypatch.setenv('EMONB_WORKERS', workers)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True) # a GPU that nobody asks for changes nothing
    monkeypatch.setattr(experiments, 'spread', lambda do, jobs: joblib.parallel.get_active_backend()[1])
    assert experiments._side_by_side(None, [()]*jobs, on_gpu) == expected

def test_a_study_of_settings_is_trained_in_one_go_on_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(experiments, '_on_gpu', lambda settings: True) # it computes on the CPU all the same
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path))
    calls, fit_all = [], replicas.fit_all
    monkeypatch.setattr(replicas, 'fit_all', lambda *args: calls.append(len(args[2])) or fit_all(*args))
    make, plain = functools.partial(build, specs['R2']), Settings(epochs=2, batch=16, device='cpu', precision='float32')
    each = [plain, dataclasses.replace(plain, rate=1e-4, decay=1.), dataclasses.replace(plain, optimiser='sgd'), dataclasses.replace(plain, epochs=3)]
    found = run_jobs([Job('R2', make, 'noise', data, table, [split], 'paper', settings) for settings in each])
    assert sorted(calls) == [1, 1, 2] # another optimiser or number of epochs is another training
    for settings, (one,) in zip(each, found):
        alone = fit(make, data, split, settings, 'R2').curves
        assert np.allclose(one.curves, alone, atol=1e-4) and list(one.curves) == list(alone)

def test_replicas_that_were_stopped_go_on_and_leave_no_checkpoint(monkeypatch, tmp_path):
    monkeypatch.setattr(experiments, '_on_gpu', lambda settings: True) # it computes on the CPU all the same
    monkeypatch.setattr(replicas, 'checkpoint_seconds', 0)
    stopped = []
    def once(epochs, *_):
        for epoch in epochs:
            if epoch == 3 and not stopped: stopped.append(epoch); raise KeyboardInterrupt
            yield epoch
    job = Job('R2', functools.partial(build, specs['R2']), 'noise', data, table, [split, dataclasses.replace(split, seed=1)], 'paper',
              Settings(epochs=4, batch=16, device='cpu', precision='float32'))
    files = lambda: [*(cache_dir()/'checkpoints').glob('*')]
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'undisturbed'))
    undisturbed, = run_jobs([job])
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'stopped'))
    monkeypatch.setattr(replicas, 'progress', once)
    with pytest.raises(KeyboardInterrupt): run_jobs([job])
    assert stopped and len(files()) == 1
    for one, other in zip(run_jobs([job])[0], undisturbed, strict=True):
        assert one.curves.equals(other.curves) and one.predictions.equals(other.predictions) and len(one.curves) == 4
    assert not files()

def test_the_account_counts_anew_what_was_trained_before(monkeypatch, tmp_path):
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path)); monkeypatch.setenv('EMONB_WORK', str(tmp_path/'work.jsonl'))
    settings = Settings(epochs=np.int64(1), device='cpu', precision='float32') # as a table of budgets holds it
    job = Job('R2', functools.partial(build, specs['R2']), 'noise', data, table, [split], 'paper', settings)
    run_jobs([job])
    kept, = (cache_dir()/'experiments').glob('*/work.json')
    assert [*json.loads(kept.read_text())] == ['seconds', 'torch']
    monkeypatch.setattr(experiments, 'least_work', lambda jobs: [[dict(operations=7., bytes=5.)]])
    run_jobs([job])
    first, second = map(json.loads, (tmp_path/'work.jsonl').read_text().splitlines())
    assert first['operations'] > 1e8 and second == dict(first, operations=7., bytes=5.)

def test_trainings_of_another_torch_are_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path))
    job = Job('R2', functools.partial(build, specs['R2']), 'noise', data, table, [split], 'paper', Settings(epochs=1, device='cpu', precision='float32'))
    run_jobs([job]); run_jobs([job])
    assert 'torch' not in capsys.readouterr().out
    monkeypatch.setattr(torch, '__version__', '99.0.0'); run_jobs([job])
    assert f"trained before with torch {torch.torch_version.internal_version}, and this is 99.0.0" in capsys.readouterr().out

def test_who_trains_takes_the_precision_that_stands_in_the_key(monkeypatch):
    told = []
    monkeypatch.setattr(experiments, '_hardware', lambda settings: (torch.device('cpu'), torch.bfloat16))
    monkeypatch.setattr(experiments, 'spread', lambda do, jobs: told.extend(jobs) or [[pd.DataFrame(dict(epoch=[1], val_accuracy=[.5]))]]*len(jobs))
    experiments.search('fc', lambda: build_dense((8,)), 'noise', data, split, dict(rate=[1e-3]), trials=1)
    (depends,), *_, (settings,) = told[0]
    assert depends['settings'].precision == 'auto' and settings.precision == 'bfloat16'
