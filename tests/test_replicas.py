"Replicas trained together: each must come to what it comes to alone."
import dataclasses, warnings

import numpy as np, pytest, torch
from torch import nn

from emonb import cnns, dense, replicas, training
from emonb.core import EmonbError
from emonb.protocols import Split
from emonb.replicas import Batch, Inputs, batches_of_all, fit_all, replicable, side_by_side
from emonb.training import Dataset, DivergedError, Settings, _Training, batches, fit, read_checkpoint, standardised

settings = Settings(rate=3e-3, batch=16, epochs=3, precision='float32', device='cpu')
rng = np.random.default_rng(0)
data = Dataset(rng.normal(size=(140, 2, 8, 8)).astype(np.float32), np.arange(140) % 7)
data.inputs[np.arange(140), 0, data.labels] += .7

def part(seed, train, fold=0):
    rows = np.random.default_rng(seed).permutation(140)
    return Split('toy', seed, fold, np.sort(rows[:train]), np.sort(rows[train:train + 20 + seed]), np.sort(rows[train + 20 + seed:]), 140)

uneven = [part(0, 80), part(1, 47), part(2, 64)] # 5 steps, 3 with a short last one, 4

def small(dropout=.3):
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(dropout), nn.Linear(64, 12),
                         nn.LeakyReLU(.1), nn.Dropout(dropout), nn.Linear(12, 7))

@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

def same(one, other, tolerance=1e-4):
    columns = ['train_loss', 'train_accuracy', 'val_loss', 'val_accuracy']
    assert np.allclose(one.curves[columns], other.curves[columns], atol=tolerance) and one.epoch == other.epoch
    assert np.allclose(one.probabilities, other.probabilities, atol=tolerance)
    assert list(one.snapshots) == list(other.snapshots)
    assert all(np.allclose(one.snapshots[epoch], other.snapshots[epoch], atol=tolerance, equal_nan=True) for epoch in one.snapshots)
    ours, theirs = one.model.state_dict(), other.model.state_dict()
    assert list(ours) == list(theirs) and all(torch.allclose(ours[name], theirs[name], atol=tolerance) for name in ours)

def never(*_, **__): raise AssertionError('not this way')


@pytest.mark.parametrize('change', [dict(), dict(decay=1.), dict(optimiser='sgd', rate=.03), dict(batch=200)])
def test_each_comes_to_what_it_comes_to_alone(change, monkeypatch):
    chosen = dataclasses.replace(settings, **change)
    alone = [fit(small, data, split, chosen, 'toy', [1, 3]) for split in uneven]
    monkeypatch.setattr(replicas, 'fit', never)
    for one, other in zip(fit_all(small, data, uneven, chosen, 'toy', [1, 3]), alone, strict=True): same(one, other)

def test_bfloat16_is_near(monkeypatch):
    chosen = dataclasses.replace(settings, precision='bfloat16', rate=1e-3)
    alone = [fit(small, data, split, chosen, 'toy') for split in uneven]
    monkeypatch.setattr(replicas, 'fit', never)
    for one, other in zip(fit_all(small, data, uneven, chosen, 'toy'), alone):
        assert np.allclose(one.curves.train_loss, other.curves.train_loss, atol=.02)

def test_the_company_does_not_matter():
    all_three, two = fit_all(small, data, uneven, settings, 'toy'), fit_all(small, data, uneven[::-2], settings, 'toy')
    same(all_three[0], two[1], 1e-5); same(all_three[2], two[0], 1e-5)

def test_the_callers_random_state_neither_matters_nor_changes():
    torch.manual_seed(5); one = fit_all(small, data, uneven, settings, 'toy'); after = torch.rand(3)
    torch.manual_seed(6); two = fit_all(small, data, uneven, settings, 'toy')
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3)) and all(np.array_equal(a.probabilities, b.probabilities) for a, b in zip(one, two))

def test_test_rows_have_no_say():
    inputs, labels, split = data.inputs.copy(), data.labels.copy(), uneven[0]
    inputs[split.test], labels[split.test] = 1e3, 0
    one, two = (fit_all(small, some, [split, split], settings, 'toy')[1] for some in (data, Dataset(inputs, labels)))
    assert one.curves.equals(two.curves) and all(map(torch.equal, one.model.parameters(), two.model.parameters()))

def test_fitted_networks_stand_alone():
    one, two, _ = fit_all(small, data, uneven, settings, 'toy')
    size = sum(weights.numel()*4 for weights in one.model.parameters())
    assert sum(weights.untyped_storage().nbytes() for weights in one.model.parameters()) == size
    before = two.model[0].weight.clone()
    with torch.no_grad(): one.model[0].weight.zero_()
    assert torch.equal(two.model[0].weight, before) and not one.model.training


def networks():
    for name, spec in cnns.specs.items(): # as they are but for the number of filters and units
        yield pytest.param(lambda spec=spec: cnns.build(dataclasses.replace(spec, filters=tuple(n//8 for n in spec.filters), hidden=8)), id=name)
    for hidden in ((8,), (8, 6)): yield pytest.param(lambda hidden=hidden: dense.build_dense(hidden), id=f'fc{len(hidden) + 1}')

@pytest.mark.parametrize('build', [*networks()])
def test_every_network_of_tables_2_and_4_stands_side_by_side(build):
    torch.manual_seed(0)
    x = torch.randn(3, 2, 2, 64, 64)
    assert replicable(build, x[:2].flatten(0, 1))
    three = [build() for _ in range(3)]
    for network in three: network.eval()
    expected = torch.stack([network(rows) for network, rows in zip(three, x)])
    slopes = [torch.autograd.grad(scores.square().sum(), network.parameters()) for scores, network in zip(expected, three)]
    stack = side_by_side(three, Batch([]))
    assert list(stack.state_dict()) == list(three[0].state_dict())
    scores = stack(x.flatten(0, 1)).unflatten(0, (3, 2))
    assert torch.allclose(scores, expected, atol=1e-5)
    for ours, theirs in zip(torch.autograd.grad(scores.square().sum(), stack.parameters()), zip(*slopes), strict=True):
        assert torch.allclose(ours, torch.stack(theirs), atol=1e-4, rtol=1e-3)

def test_weights_are_shared_with_the_stack():
    three = [small() for _ in range(3)]
    stack = side_by_side(three, Batch([]))
    with torch.no_grad(): three[1][5].bias.fill_(4)
    assert (stack[5].bias[1] == 4).all() and not (stack[5].bias[[0, 2]] == 4).any()

class Own(nn.Module):
    "Multiplies by a layer's weight without asking the layer."
    def __init__(self): super().__init__(); self.layer = nn.Linear(128, 7)
    def forward(self, x): return x.flatten(1) @ self.layer.weight.mT

class Parameter(nn.Sequential):
    "Has a weight outside of its layers."
    def __init__(self): super().__init__(*small()); self.scale = nn.Parameter(torch.ones(()))

class Mixing(nn.Sequential):
    def forward(self, x): return super().forward(x - x.mean(0))

others = [Own, Parameter, lambda: Mixing(*small()), lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 7)),
          lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 7, bias=False)),
          lambda: nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, 128)), nn.Linear(128, 7)),
          lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, padding_mode='circular'), nn.Flatten(), nn.Linear(256, 7))]

@pytest.mark.parametrize('build', others)
def test_what_cannot_stand_side_by_side_is_trained_one_after_another(build):
    assert not replicable(build, torch.from_numpy(data.inputs[:4]))
    same(fit_all(build, data, uneven[:1], settings, 'other')[0], fit(build, data, uneven[0], settings, 'other'), 0)

def test_so_are_networks_that_get_clips_or_bytes(monkeypatch):
    monkeypatch.setattr(replicas, 'replicable', never)
    given = []
    monkeypatch.setattr(replicas, 'fit', lambda *args: given.append(args[2]))
    for some in (data._replace(clips=np.arange(140)), data._replace(inputs=data.inputs.astype(np.uint8))):
        fit_all(small, some, uneven, settings, 'other')
    assert given == [*uneven, *uneven]


@pytest.mark.parametrize('size', [1, 16, 100])
def test_batches_hold_each_row_once_in_the_order_of_one(size):
    trains, orders = [torch.from_numpy(split.train) for split in uneven], [torch.Generator().manual_seed(split.seed) for split in uneven]
    steps = list(batches_of_all(trains, size, orders, torch.device('cpu')))
    for r, (split, train) in enumerate(zip(uneven, trains)):
        alone = [rows for rows, _ in batches(train, None, size, torch.Generator().manual_seed(split.seed))]
        assert len(steps) == -(-80//min(size, 80)) # of the longest
        for n, (rows, weights, own) in enumerate(steps):
            expected = alone[n] if n < len(alone) else train[:0]
            assert own[r] == len(expected) and torch.equal(rows[r, :own[r]], expected) and set(rows[r].tolist()) <= set(train.tolist())
            assert torch.allclose(weights[r, :own[r]], torch.full((own[r],), 1/max(own[r], 1))) and not weights[r, own[r]:].any()

@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_inputs_are_those_of_one_to_the_bit(dtype):
    inputs = Inputs(data.inputs, [split.train for split in uneven], torch.device('cpu'), dtype)
    taken = inputs(torch.arange(140).expand(3, -1)).unflatten(0, (3, 140))
    for split, ours in zip(uneven, taken): assert torch.equal(ours, standardised(data.inputs, split.train, torch.device('cpu'), dtype))
    assert inputs.rows.numel() == data.inputs.size

def test_a_replica_without_rows_stands_still():
    together = replicas.Replicas(small, data, uneven, [dataclasses.replace(settings, batch=40)]*3) # 2, 2 and 2 steps
    together.learn()
    before = [weights.clone() for weights in together.models[1].parameters()]
    others = together.models[0][5].weight.clone()
    for stacked, _ in together.weights: stacked.grad = torch.ones_like(stacked)
    together.step([5, 0, 3])
    assert all(map(torch.equal, before, together.models[1].parameters())) and not torch.equal(others, together.models[0][5].weight)


def test_one_that_diverges_is_named_and_spoils_nothing():
    only = next(iter(set(uneven[1].train) & set(uneven[0].test)))
    inputs = data.inputs.copy(); inputs[only] = np.nan
    assert only > 3 # the first rows are those that `replicable` looks at
    lost, kept = fit_all(small, data._replace(inputs=inputs), [uneven[1], uneven[0]], settings, 'fast')
    assert isinstance(lost, DivergedError)
    assert str(lost) == 'fast, seed 1, fold 0: the loss is no number any more in epoch 1, at learning rate 0.003; choose a smaller rate'
    assert kept.curves.equals(fit_all(small, data, [uneven[1], uneven[0]], settings, 'fast')[1].curves)

class Stopped(Exception): "The program."

def stopping(monkeypatch, module, epochs):
    "Stop the program after so many epochs, the first time."
    left = [epochs]
    def counted(epoch_range, *_):
        for epoch in epoch_range:
            if not left[0]: left[0] = -1; raise Stopped
            left[0] -= 1; yield epoch
    monkeypatch.setattr(module, 'progress', counted)

@pytest.mark.parametrize('change', [dict(), dict(optimiser='sgd', rate=.03)])
def test_stopped_and_resumed_is_as_undisturbed(change, monkeypatch, tmp_path):
    chosen, file = dataclasses.replace(settings, epochs=5, **change), tmp_path/'toy.safetensors'
    undisturbed = fit_all(small, data, uneven, chosen, 'toy', [1, 4])
    monkeypatch.setattr(replicas, 'checkpoint_seconds', 0)
    stopping(monkeypatch, replicas, 3)
    with pytest.raises(Stopped): fit_all(small, data, uneven, chosen, 'toy', [1, 4], file)
    assert [len(curves) for curves in read_checkpoint(file)[1]] == [3, 3, 3]
    for one, other in zip(fit_all(small, data, uneven, chosen, 'toy', [1, 4], file), undisturbed, strict=True):
        same(one, other, 0); assert one.curves.equals(other.curves)

def test_one_that_diverged_before_the_program_stopped_is_still_named(monkeypatch, tmp_path):
    inputs, file = data.inputs.copy(), tmp_path/'toy.safetensors'
    inputs[next(iter(set(uneven[1].train) & set(uneven[0].test)))] = np.nan
    monkeypatch.setattr(replicas, 'checkpoint_seconds', 0)
    stopping(monkeypatch, replicas, 2)
    with pytest.raises(Stopped): fit_all(small, data._replace(inputs=inputs), uneven[:2], settings, 'fast', (), file)
    kept, lost = fit_all(small, data._replace(inputs=inputs), uneven[:2], settings, 'fast', (), file)
    assert isinstance(lost, DivergedError) and 'in epoch 1,' in str(lost) and len(kept.curves) == settings.epochs

def test_one_after_another_each_has_a_checkpoint(monkeypatch, tmp_path):
    monkeypatch.setattr(training, 'checkpoint_seconds', 0)
    stopping(monkeypatch, training, 4)
    with pytest.raises(Stopped): fit_all(Parameter, data, uneven, settings, 'toy', (), tmp_path/'toy.safetensors')
    assert {file.name: len(read_checkpoint(file)[1]) for file in tmp_path.iterdir()} == {'toy-0.safetensors': 3, 'toy-1.safetensors': 1}
    again = fit_all(Parameter, data, uneven, settings, 'toy', (), tmp_path/'toy.safetensors')
    for one, split in zip(again, uneven): same(one, fit(Parameter, data, split, settings, 'toy'), 0)

@pytest.mark.parametrize('build', [small, Parameter])
def test_all_diverge(build):
    done = fit_all(build, data, uneven, Settings('sgd', 1e30, device='cpu'), 'fast')
    assert len(done) == 3 and all(isinstance(each, DivergedError) and 'epoch 1, at learning rate 1e+30' in str(each) for each in done)

def hungry(most): # takes at most so many rows at once
    class Hungry(nn.Sequential):
        def forward(self, x):
            if len(x) > most: torch.empty(2**60)
            return super().forward(x)
    return lambda: Hungry(*small())

def test_too_little_memory_splits_the_replicas():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        done = fit_all(hungry(150), data, uneven, settings, 'hungry') # one replica: 140 rows when it predicts
    assert [str(each.message)[:40] for each in said] == [f'hungry: {n} replicas at once are too many f'[:40] for n in (3, 2)]
    for one, split in zip(done, uneven): same(one, fit(small, data, split, settings, 'hungry'))

def test_too_little_memory_for_one_names_experiment_and_batch():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(EmonbError, match='^hungry: out of memory at batch 16; choose a smaller batch'):
            fit_all(hungry(12), data, uneven, settings, 'hungry')

def test_an_unknown_optimiser_is_no_lack_of_memory():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with pytest.raises(EmonbError, match="optimiser 'lion'"): fit_all(small, data, uneven, Settings('lion', device='cpu'), 'toy')

def test_inputs_too_large_for_the_device_are_read_by_one_after_another(monkeypatch):
    alone = [fit(small, data, split, settings, 'toy') for split in uneven]
    monkeypatch.setattr(replicas, '_room', lambda device: data.inputs.nbytes - 1)
    monkeypatch.setattr(replicas, '_together', never)
    for one, other in zip(fit_all(small, data, uneven, settings, 'toy'), alone, strict=True): same(one, other, 0)

def test_no_splits(): assert fit_all(small, data, [], settings, 'toy') == []

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_a_gpu_each_comes_to_what_it_comes_to_alone():
    chosen = dataclasses.replace(settings, device='cuda')
    build = lambda: small(0.) # dropped units are others there
    for one, split in zip(fit_all(build, data, uneven, chosen, 'toy'), uneven): same(one, fit(build, data, split, chosen, 'toy'), 1e-3)
