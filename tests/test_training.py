"Training under faults, and what must not change its result: what the notebook cannot show."
import dataclasses, os, signal, subprocess, sys

import numpy as np, pandas as pd, pytest, torch
from torch import nn

import emonb.cache
from emonb import core, training
from emonb.core import EmonbError, cache_dir
from emonb.paper import emotions
from emonb.protocols import Split
from emonb.experiments import run_experiment, search
from emonb.training import (Dataset, DivergedError, Settings, batches, fit, pair_max, read_checkpoint, standardised, windows,
                            write_checkpoint)

rows, settings = 210, Settings(rate=3e-3, batch=32, epochs=4)

def problem(seed=0):
    rng = np.random.default_rng(seed)
    labels, inputs = np.arange(rows) % 7, rng.normal(size=(rows, 2, 8, 8)).astype(np.float32)
    inputs[np.arange(rows), 0, labels] += .7
    train, val, test = np.split(rng.permutation(rows), [126, 168])
    table = pd.DataFrame(dict(corpus='toy', clip=[f'toy/{n}' for n in range(rows)], start=0., emotion=np.array(emotions)[labels]))
    return Dataset(inputs, labels), table, Split('paper', seed, 0, np.sort(train), np.sort(val), np.sort(test), rows)

class Network(nn.Module):
    "A network with dropout; it kills its process at training step `last`."
    def __init__(self, last=0):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(.2), nn.Linear(8*36, 7))
        self.last, self.steps = last, 0
    def forward(self, x):
        self.steps += self.training
        if self.last and self.steps == self.last: os.kill(os.getpid(), signal.SIGKILL)
        return self.net(x)

@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'cache'))
    emonb.cache._verified.clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

def weights(fitted): return torch.cat([value.reshape(-1) for value in fitted.model.state_dict().values()])

def run(build=Network, settings=settings, **changes):
    data, table, split = problem()
    return run_experiment('toy', build, **{**dict(key='toy', data=data, table=table, split=split, label='paper', settings=settings), **changes})


@pytest.mark.parametrize('change', [dict(), dict(optimiser='sgd', rate=.03), dict(precision='float32'), dict(precision='bfloat16')])
def test_same_seed_same_bits(change):
    data, _, split = problem()
    chosen = dataclasses.replace(settings, **change)
    one, two = (fit(Network, data, split, chosen, 'toy') for _ in range(2))
    assert torch.equal(weights(one), weights(two)) and one.curves.equals(two.curves)
    assert np.array_equal(one.probabilities, two.probabilities)
    other = fit(Network, data, dataclasses.replace(split, seed=1), chosen, 'toy')
    assert not torch.equal(weights(one), weights(other))

def test_the_callers_random_state_neither_matters_nor_changes():
    data, _, split = problem()
    torch.manual_seed(5); one = fit(Network, data, split, settings, 'toy'); after = torch.rand(3)
    torch.manual_seed(6); two = fit(Network, data, split, settings, 'toy')
    torch.manual_seed(5)
    assert torch.equal(weights(one), weights(two)) and torch.equal(after, torch.rand(3))

def test_test_rows_have_no_say():
    data, _, split = problem()
    inputs, labels = data.inputs.copy(), data.labels.copy()
    inputs[split.test], labels[split.test] = 1e3, 0
    one, two = fit(Network, data, split, settings, 'toy'), fit(Network, Dataset(inputs, labels), split, settings, 'toy')
    assert torch.equal(weights(one), weights(two)) and one.curves.equals(two.curves)

def test_mean_and_deviation_are_those_of_the_training_rows(tmp_path):
    inputs = np.random.default_rng(0).normal(-5, 2, (3000, 2, 6, 6)).astype(np.float32)
    np.save(tmp_path/'x.npy', inputs)
    train = np.arange(0, 2500, 2)
    mean = inputs[train].astype(float).mean(axis=0)
    expected = (inputs - mean)/(inputs[train] - mean).std()
    ready = standardised(np.load(tmp_path/'x.npy', mmap_mode='r'), train, torch.device('cpu'), torch.float32)
    np.testing.assert_allclose(ready, expected, atol=2e-5)

def test_rows_that_do_not_fit_into_memory_are_read_to_the_same_bits(tmp_path, monkeypatch):
    data, _, split = problem()
    np.save(tmp_path/'x.npy', data.inputs)
    usual = fit(Network, data, split, settings, 'toy')
    monkeypatch.setattr(training, '_room', lambda device: data.inputs.nbytes//2)
    read = fit(Network, data._replace(inputs=np.load(tmp_path/'x.npy', mmap_mode='r')), split, settings, 'toy')
    assert torch.equal(weights(read), weights(usual)) and np.array_equal(read.probabilities, usual.probabilities)

def test_rows_that_do_not_fit_are_given_block_by_block(monkeypatch):
    ready = standardised(data.inputs, split.train, torch.device('cpu'), torch.float32)
    monkeypatch.setattr(training, '_room', lambda device: data.inputs.nbytes - 1)
    read = standardised(data.inputs, split.train, torch.device('cpu'), torch.float32)
    assert [len(block) for block in read.split(64)] == [64, 64, 64, 18]
    assert torch.equal(torch.cat([*read.split(64)]), ready)

def test_the_earliest_of_the_best_epochs_is_chosen():
    data, _, split = problem()
    fitted = fit(Network, data, split, dataclasses.replace(settings, epochs=12), 'toy', snapshots=range(1, 13))
    accuracy = [(p.argmax(1) == data.labels)[split.val].mean() for p in fitted.snapshots.values()]
    assert fitted.epoch == 1 + int(np.argmax(accuracy)) and np.allclose(fitted.curves.val_accuracy, accuracy)
    snapshot, asked = fitted.snapshots[fitted.epoch], np.concatenate([split.val, split.test])
    assert np.allclose(fitted.probabilities[asked], snapshot[asked], atol=1e-6) and np.isnan(snapshot[split.train]).all() # those are not scored


killed = '''
import sys; sys.path.insert(0, sys.argv[1])
import torch; torch.set_num_threads(1)
from emonb import training; training.checkpoint_seconds = 0
from tests.test_training import *
data, _, split = problem()
fit(lambda: Network(int(sys.argv[3])), data, split, Settings(sys.argv[4], .003, batch=32, epochs=4), 'toy', [1, 3], Path(sys.argv[2]))
'''.replace('import torch;', 'from pathlib import Path\nimport torch;')

@pytest.mark.parametrize('optimiser, step', [('adamw', 7), ('adamw', 14), ('sgd', 10)]) # 4 steps an epoch
def test_killed_and_resumed_is_as_undisturbed(tmp_path, optimiser, step):
    file, (data, _, split) = tmp_path/'toy.safetensors', problem()
    done = subprocess.run([sys.executable, '-c', killed, str(core.root()), str(file), str(step), optimiser])
    assert done.returncode == -signal.SIGKILL and len(read_checkpoint(file)[1]) == (step - 1)//4
    chosen = Settings(optimiser, .003, batch=32, epochs=4)
    resumed, undisturbed = (fit(Network, data, split, chosen, 'toy', [1, 3], checkpoint) for checkpoint in (file, None))
    assert torch.equal(weights(resumed), weights(undisturbed)) and resumed.curves.equals(undisturbed.curves)
    assert all(np.array_equal(resumed.snapshots[epoch], undisturbed.snapshots[epoch], equal_nan=True) for epoch in (1, 3))

def test_no_flipped_bit_is_read_as_good(tmp_path):
    file = tmp_path/'x.safetensors'
    write_checkpoint(file, dict(a=torch.arange(6.).view(2, 3), n=torch.tensor(3), b=torch.ones(5, dtype=torch.bfloat16)), [dict(epoch=1)])
    good, (tensors, notes) = file.read_bytes(), read_checkpoint(file)
    for at in range(len(good)):
        bad = bytearray(good); bad[at] ^= 1 << at % 8
        file.write_bytes(bad)
        try: found, said = read_checkpoint(file)
        except EmonbError as error: assert 'damaged' in str(error) and '\n' not in str(error)
        else: assert said == notes and all(torch.equal(found[name], tensors[name]) for name in tensors) # white space of the header
    for length in (0, 7, len(good)//2, len(good) - 1):
        file.write_bytes(good[:length])
        with pytest.raises(EmonbError, match='damaged'): read_checkpoint(file)

def test_a_damaged_checkpoint_is_said_and_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(training, 'checkpoint_seconds', 0)
    file, (data, _, split) = tmp_path/'toy.safetensors', problem()
    whole = fit(Network, data, split, settings, 'toy', checkpoint=file)
    content = bytearray(file.read_bytes()); content[-100] ^= 4
    file.write_bytes(content)
    with pytest.warns(UserWarning, match='toy: starts over; .*damaged'): again = fit(Network, data, split, settings, 'toy', checkpoint=file)
    assert torch.equal(weights(whole), weights(again))


def test_a_lost_loss_names_experiment_epoch_and_rate():
    data, _, split = problem()
    with pytest.raises(DivergedError, match=r'^fast: .*epoch 1, at learning rate 1e\+30; choose a smaller rate$'):
        fit(Network, data, split, Settings('sgd', 1e30), 'fast')

class Greedy(nn.Module):
    "A network that asks for far more memory than there is."
    def __init__(self): super().__init__(); self.linear = nn.Linear(1, 7)
    def forward(self, x): return self.linear(torch.empty(len(x), 2**50)[:, :1])

def test_too_little_memory_names_experiment_and_batch():
    data, _, split = problem()
    split = dataclasses.replace(split, train=split.train[:4])
    with pytest.raises(EmonbError, match='^greedy: out of memory at batch 4; choose a smaller batch'):
        fit(Greedy, data, split, Settings(batch=4), 'greedy')

class Broken(nn.Module):
    def __init__(self): super().__init__(); self.linear = nn.Linear(3, 7)
    def forward(self, x): return self.linear(x)

def test_other_errors_are_left_as_they_are():
    data, _, split = problem()
    with pytest.raises(RuntimeError, match='shapes'): fit(Broken, data, split, settings, 'broken')


class Wider(Network):
    "The same weights, another forward pass."
    def forward(self, x): return 2*self.net(x)

def never(*_, **__): raise AssertionError('trained again')

def test_an_experiment_is_done_once(monkeypatch):
    first = run(snapshots=[2])
    monkeypatch.setattr(training, 'progress', never) # which every training begins with
    second = run(snapshots=[2])
    assert second.predictions.equals(first.predictions) and second.curves.equals(first.curves)
    assert all(torch.equal(second.weights[name], value) for name, value in first.weights.items())
    assert np.array_equal(second.snapshots[2], first.snapshots[2], equal_nan=True) and list(second.snapshots) == [2]
    assert run(lambda: Network(), snapshots=[2]).curves.equals(first.curves) # another builder of an equal network
    assert run(label='paper, half', snapshots=[2]).predictions.protocol.eq('paper, half').all()

data, table, split = problem()
labels = data.labels.copy(); labels[0] = 3

@pytest.mark.parametrize('change', [
    dict(key='other'), dict(settings=dataclasses.replace(settings, decay=.5)), dict(data=Dataset(data.inputs, labels)), dict(build=Wider),
    dict(split=dataclasses.replace(split, seed=1)), dict(split=dataclasses.replace(split, train=split.train[1:])), dict(snapshots=[1])])
def test_what_changes_the_result_is_another_experiment(monkeypatch, change):
    run()
    monkeypatch.setattr(training, 'progress', never)
    with pytest.raises(AssertionError, match='trained again'): run(**change)

def test_an_experiment_stores_what_fit_gives():
    done, fitted = run(), fit(Network, data, split, settings, 'toy')
    stored = done.predictions.query("split == 'test'")
    assert np.array_equal(stored.filter(like='p_').to_numpy(), fitted.probabilities[split.test])
    assert stored['clip'].tolist() == table['clip'].iloc[split.test].tolist() and len(done.predictions) == rows
    assert done.curves.equals(fitted.curves) and not list((cache_dir()/'checkpoints').glob('*'))

def test_a_killed_experiment_goes_on(monkeypatch):
    monkeypatch.setattr(training, 'checkpoint_seconds', 0)
    whole = run()
    emonb.cache._verified.clear()
    next((cache_dir()/'experiments').glob('*/curves.parquet')).unlink() # as if it had never ended
    epochs = []
    def counted(epoch_range, *_):
        for epoch in epoch_range:
            if len(epochs) == 2: epochs.append(None); raise KeyboardInterrupt
            epochs.append(epoch); yield epoch
    monkeypatch.setattr(training, 'progress', counted)
    with pytest.raises(KeyboardInterrupt): run()
    assert run().curves.equals(whole.curves) and epochs == [1, 2, None, 3, 4]


def space_network(hidden): return nn.Sequential(nn.Flatten(), nn.Linear(128, hidden), nn.ReLU(), nn.Linear(hidden, 7))

def test_search_judges_by_validation_only():
    space = dict(hidden=[4, 16], rate=[1e-3, 1e-2, 1e30], optimiser=['sgd'])
    trials = search('toy', space_network, 'toy', data, split, space, trials=6, epochs=3)
    inputs, other = data.inputs.copy(), data.labels.copy()
    inputs[split.test], other[split.test] = 1e3, 0
    again = search('toy', space_network, 'other', Dataset(inputs, other), split, space, trials=6, epochs=3)
    pd.testing.assert_frame_equal(trials, again)
    assert trials.rate.iloc[-2:].eq(1e30).all() and trials.val_accuracy.iloc[-2:].isna().all() and trials.epoch.iloc[-2:].eq(0).all()
    best = trials.iloc[0]
    chosen = Settings('sgd', best.rate, epochs=3)
    fitted = fit(lambda: space_network(int(best.hidden)), data, split, chosen, 'toy')
    assert fitted.curves.val_accuracy.max() == best.val_accuracy and fitted.epoch == best.epoch


@pytest.mark.parametrize('shape, dim', [((3, 8, 5), 1), ((2, 4, 6, 3), 1), ((2, 4, 6, 3), 2)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_pair_max_is_max_pooling(shape, dim, dtype):
    y = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    ours = pair_max(y, dim)
    flat = y.movedim(dim, -1)
    torchs = nn.functional.max_pool1d(flat.reshape(-1, 1, shape[dim]), 2).reshape(*flat.shape[:-1], -1).movedim(-1, dim)
    assert torch.equal(ours, torchs)
    slope = torch.randn_like(ours)
    assert torch.equal(*(torch.autograd.grad(each, y, slope, retain_graph=True)[0] for each in (ours, torchs)))

def test_windows_are_what_a_filter_sees():
    x = torch.arange(2*6*3.).view(2, 6, 3)
    rows = windows(x, 2).view(2, 5, 6)
    assert all(torch.equal(rows[n, t], x[n, t:t + 2].reshape(-1)) for n in range(2) for t in range(5))


@pytest.mark.parametrize('lengths', [[1], [3, 1, 2, 2, 5], [4]*6])
@pytest.mark.parametrize('size', [1, 2, 10])
def test_batches_of_clips_hold_each_row_once_step_by_step(lengths, size):
    clips = np.repeat(np.arange(len(lengths)) + 7, lengths)
    rows = torch.arange(len(clips)) + 3 # of a larger table
    table = np.r_[[0]*3, clips]
    visited = list(batches(rows, table, size, torch.Generator().manual_seed(0)))
    assert len(visited) == -(-len(lengths)//size) and sorted(torch.cat([b for b, _ in visited]).tolist()) == rows.tolist()
    for taken, (sizes,) in visited:
        steps = taken.split(sizes)
        assert sizes == sorted(sizes, reverse=True)
        for before, after in zip(steps, steps[1:]): assert torch.equal(after, before[:len(after)] + 1) # the clips' next rows
        assert len(set(table[steps[0].numpy()])) == sizes[0] and (np.diff(np.r_[-1, table])[steps[0].numpy()] != 0).all() # clips' first rows

class Counts(nn.Module):
    "Knows a clip's rows before the present one: scores are sums over them."
    def __init__(self):
        super().__init__(); self.out = nn.Linear(128, 7)
    def forward(self, x, steps):
        total, found = 0, []
        for step in x.flatten(1).split(steps):
            total = step if isinstance(total, int) else total[:len(step)] + step
            found.append(total)
        return self.out(torch.cat(found))

def test_networks_with_a_memory_predict_each_row_from_its_clip_so_far():
    data, table, _ = problem()
    clips = np.repeat(np.arange(42), 5)
    train, val, test = (np.flatnonzero(np.isin(clips, part)) for part in np.split(np.arange(42), [25, 34]))
    split = Split('clip', 0, 0, train, val, test, rows)
    fitted = fit(Counts, data._replace(clips=clips), split, dataclasses.replace(settings, precision='float32', batch=8), 'counts')
    x = standardised(data.inputs, train, torch.device('cpu'), torch.float32).flatten(1).view(42, 5, 128).cumsum(1).view(rows, 128)
    with torch.no_grad(): expected = fitted.model.out(x).softmax(1)
    assert np.allclose(fitted.probabilities, expected, atol=1e-5)

def test_bytes_are_left_to_the_network():
    inputs = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    ready = standardised(inputs, np.array([0]), torch.device('cpu'), torch.bfloat16)
    assert ready.dtype == torch.uint8 and np.array_equal(ready, inputs)

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_a_gpu_a_training_comes_to_what_it_comes_to_on_a_cpu(tmp_path, monkeypatch):
    build, file, chosen = lambda: space_network(16), tmp_path/'toy.safetensors', dataclasses.replace(settings, precision='float32')
    there = dataclasses.replace(chosen, device='cuda')
    here, usual = fit(build, data, split, dataclasses.replace(chosen, device='cpu'), 'toy'), fit(build, data, split, there, 'toy')
    monkeypatch.setattr(training, 'checkpoint_seconds', 0)
    fit(build, data, split, dataclasses.replace(there, epochs=2), 'toy', checkpoint=file)
    resumed = fit(build, data, split, there, 'toy', checkpoint=file)
    monkeypatch.setattr(training, '_room', lambda device: 0)
    for other in (usual, resumed, fit(build, data, split, there, 'toy')): # the last reads its rows batch by batch
        losses = [each.curves[['train_loss', 'val_loss']] for each in (here, other)]
        assert np.allclose(*losses, atol=1e-3) and np.allclose(here.probabilities, other.probabilities, atol=1e-3)
