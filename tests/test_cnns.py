"Shapes and sizes of every network of Table 4, equality of the fast forms with the plain ones, and what must never see test rows."
import dataclasses

import numpy as np, pandas as pd, pytest, torch, torch.nn.functional as F
from torch import nn

from emonb import cnns, dense, filters, paper
from emonb.core import EmonbError
from emonb.evaluation import predictions, probability_columns
from emonb.paper import emotions

each_spec = pytest.mark.parametrize('spec', cnns.specs.values(), ids=lambda spec: spec.name)


def plain(network, spec): # the same network of torch's own layers, from the same weights
    layers = []
    for layer in network.convolutions:
        if spec.size[0] == 64:
            width, weight = layer.width, layer.pictures()
            conv = nn.Conv1d(weight.shape[1], len(weight), width); conv.load_state_dict(dict(weight=weight, bias=layer.filters.bias.detach()))
            layers += [nn.ConstantPad1d(((width - 1)//2, width//2), 0.), conv, nn.LeakyReLU(spec.leak), nn.MaxPool1d(2)]
        else: layers += [layer.filters, nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers)

@each_spec
def test_network_is_its_specification(spec):
    torch.manual_seed(0)
    network, x = cnns.build(spec).eval(), torch.randn(2, 2, 64, 64)
    assert network(x).shape == (2, 7)
    assert sum(p.numel() for p in network.parameters()) == cnns.cost(spec)['parameters']
    y = plain(network, spec)(x.flatten(1, 2) if spec.size[0] == 64 else x)
    expected = network.affine(y.movedim(1, -1).flatten(1)) # our maps have the filters last
    assert torch.allclose(network(x), expected, atol=1e-4)

@each_spec
def test_specification_is_table_4(spec):
    _, names, layers, size, hidden, _ = paper.table4[spec.name.split()[0]]
    assert 'x'.join(map(str, spec.size)) == size and spec.hidden == hidden
    if spec.name not in ('R3', 'R4'): assert len(spec.filters) == layers      # these two are read by their names,
    if 'as printed' not in spec.name: assert '/'.join(map(str, spec.filters)) == names # and those by their columns

@pytest.mark.parametrize('name, parameters', [('S1', 2*25*16 + 16 + 16*1024*64 + 64 + 64*7 + 7), ('R1', 640*1024 + 1024 + 32*1024*64 + 64 + 64*7 + 7),
                                              ('R3', 640*16 + 16 + 80*32 + 32 + 16*32*64 + 64 + 64*7 + 7)])
def test_parameter_counts_by_hand(name, parameters): assert cnns.cost(cnns.specs[name])['parameters'] == parameters

@pytest.mark.parametrize('width', [1, 2, 5, 10])
@pytest.mark.parametrize('leak', [0, .01])
@pytest.mark.parametrize('filters', [6, 128]) # many are computed by emonb.winograd
def test_full_height_filter_is_a_convolution_with_its_gradient(width, leak, filters):
    torch.manual_seed(width)
    block, conv, x = cnns.FullHeight(128, filters, width, leak), nn.Conv2d(2, filters, (64, width)), torch.randn(3, 2, 64, 64)
    conv.load_state_dict(dict(weight=block.pictures().unflatten(1, (2, 64)), bias=block.filters.bias.detach()))
    ours = block(x.flatten(1, 2).transpose(1, 2).contiguous())
    theirs = F.max_pool2d(F.leaky_relu(conv(F.pad(x, ((width - 1)//2, width//2))), leak), (1, 2)).squeeze(2).transpose(1, 2)
    assert torch.allclose(ours, theirs, atol=1e-4)
    ours.square().sum().backward(); theirs.square().sum().backward()
    gradient = block.filters.weight.grad.unflatten(1, (width, 2, 64)).permute(0, 2, 3, 1)
    assert torch.allclose(gradient, conv.weight.grad, atol=1e-2, rtol=1e-3)

def test_r6_drops_out_in_training_only():
    torch.manual_seed(0)
    network, x = cnns.build(dataclasses.replace(cnns.specs['R6'], filters=(8,))), torch.randn(2, 2, 64, 64)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def some_predictions(seed=0, n=400, experiment='R1'):
    rng = np.random.default_rng(seed)
    truth = rng.integers(7, size=n)
    p = np.exp(rng.normal(size=(n, 7)) + 2*np.eye(7)[truth]); p /= p.sum(1, keepdims=True)
    rows = pd.DataFrame(dict(corpus='toy', clip=[f'toy/{i//5}' for i in range(n)], start=np.arange(n)%5*.512, emotion=np.array(emotions)[truth]))
    parts = {'train': slice(0, n//2), 'val': slice(n//2, 3*n//4), 'test': slice(3*n//4, n)}
    return pd.concat([predictions(experiment, part, rows.iloc[at], p[at], 'paper') for part, at in parts.items()], ignore_index=True)

@pytest.mark.parametrize('part', ['train', 'val'])
def test_class_score_models_never_see_test_labels_and_predict_row_by_row(part):
    frame = some_predictions()
    first = cnns.on_class_scores(frame, part)
    assert set(first.experiment) == set(paper.table3) and set(first.split) == {'test'}
    wrong = frame.copy(); wrong.loc[wrong.split == 'test', 'emotion'] = 'anger'
    assert np.array_equal(cnns.on_class_scores(wrong, part)[probability_columns], first[probability_columns])
    fewer = frame[(frame.split != 'test') | (frame['clip'] == frame['clip'].iloc[-1])] # other test rows do not count
    kept = first[first['clip'] == frame['clip'].iloc[-1]]
    assert np.allclose(cnns.on_class_scores(fewer, part)[probability_columns], kept[probability_columns], atol=1e-6)
    assert np.allclose(first[probability_columns].sum(axis=1), 1)
    right = pd.Series(first[probability_columns].to_numpy().argmax(1) == pd.Categorical(first.emotion, emotions).codes)
    assert right.groupby(first.experiment).mean().drop('gmm').min() > .4 # the mixture sees no labels

def test_class_score_models_bear_a_class_that_is_missing():
    frame = some_predictions()
    found = cnns.on_class_scores(frame[(frame.split == 'test') | (frame.emotion != 'neutral')], 'val')
    assert len(found) and np.isfinite(found[probability_columns].to_numpy()).all()

def test_ensembles():
    a, b = some_predictions(0), some_predictions(0, experiment='R3')
    b[probability_columns] = b[probability_columns].to_numpy()[:, ::-1]
    mean = cnns.averaged('ER2', a, b)
    assert set(mean.experiment) == {'ER2'} and np.allclose(mean.p_anger, (a.p_anger + b.p_anger)/2)
    with pytest.raises(EmonbError, match='ER2: its members predict different rows'): cnns.averaged('ER2', a, b.iloc[::-1])

def test_windows_over_the_clip_stay_within_clip_seed_fold_and_reach():
    frame = some_predictions()
    twice = pd.concat([frame, frame.assign(seed=1, **{probability_columns[0]: 9.})], ignore_index=True)
    found = cnns.over_clip('over', frame, twice, .512)
    for i in (0, 7, 399):
        near = frame[(frame['clip'] == frame['clip'][i]) & ((frame.start - frame.start[i]).abs() < .6)]
        assert np.allclose(found.loc[i, probability_columns].astype(float), near[probability_columns].mean())

def test_clips_are_means_of_their_chunks():
    frame = some_predictions()
    frame['emotion'] = frame.groupby('clip').emotion.transform('first')
    clips = cnns.by_clip(frame)
    assert len(clips) == frame['clip'].nunique()
    assert np.allclose(clips.p_fear, frame.groupby('clip', sort=False).p_fear.mean())

def test_snapshots_lie_in_the_second_half():
    for epochs in (1, 2, 10, 400):
        chosen = cnns.snapshots(cnns.Settings(epochs=epochs))
        assert max(chosen) == epochs and min(chosen) >= min(1, epochs/2) and len(chosen) <= 5

@each_spec
def test_settings_come_from_the_table(spec):
    settings = cnns.settings_of(spec, 'long', None)
    assert settings.epochs == 10 and settings.rate in set(cnns.tried.rate)


@pytest.mark.parametrize('hidden, parameters', [((64,), 8192*64 + 64 + 64*7 + 7), ((32, 32), 8192*32 + 32 + 32*32 + 32 + 32*7 + 7)])
def test_dense_networks(hidden, parameters):
    network = dense.build_dense(hidden)
    assert network(torch.zeros(3, 2, 64, 64)).shape == (3, 7) and sum(p.numel() for p in network.parameters()) == parameters


def test_rank_correlation_is_scipys_and_leaves_out_what_is_unknown():
    from scipy.stats import spearmanr
    rng = np.random.default_rng(0)
    answers, values = rng.normal(size=(50, 3)), rng.integers(5, size=50).astype(float)
    assert np.allclose(filters.rank_correlation(answers, values), [spearmanr(column, values)[0] for column in answers.T])
    values[:10] = np.nan
    assert np.allclose(filters.rank_correlation(answers, values), [spearmanr(column[10:], values[10:])[0] for column in answers.T])

def test_filters_are_chosen_on_one_part_and_measured_on_another():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(80, 4)), rng.normal(size=(80, 4))
    found = filters.best_filters(one, dict(a=one[:, 2]), other, dict(a=-other[:, 2]))
    assert found.loc['a', 'filter'] == 2 and np.isclose(found.correlation['a'], -1)

def test_activations_are_means_over_time():
    torch.manual_seed(0)
    network, x = cnns.build(cnns.specs['R2']), torch.randn(5, 2, 64, 64)
    expected = network.convolutions[0](x.flatten(1, 2).transpose(1, 2).contiguous()).mean(1)
    assert np.allclose(filters.activations(network, x), expected.detach(), atol=1e-5)
