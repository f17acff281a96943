"Frames fall into their chunks, a missing sense says nothing, and no CNN learns from a test clip."
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings as hypothesis_settings, strategies as st

from emonb.chunks import chunk_seconds
from emonb.demo import write_avi
from emonb.faces import film
from emonb.fusion import (Fusion, answers, as_bytes, brightness, built, columns, faces_at_middles, frame_of_chunk, late, log_posteriors, scale_of, senses,
                          shapes, train_folds, without)
from emonb.paper import emotions
from emonb.protocols import split
from emonb.training import Dataset, Settings

width = columns['face'].stop + 2

def random_rows(n, seed=0):
    rows = np.random.default_rng(seed).integers(0, 256, (n, width), np.uint8)
    rows[:, -2:] = 1
    return rows

def corpus(speakers=5, each=6):
    "Chunk table and rows of clips of 1 to 3 chunks."
    rng = np.random.default_rng(1)
    clips = [(f'x/{s}_{k}', f'x/{s}', emotions[k]) for s in range(speakers) for k in range(each)]
    table = pd.DataFrame([dict(clip=clip, corpus='x', speaker=speaker, emotion=emotion, digest=clip, sentence='', start=n*chunk_seconds, end=(n + 1)*chunk_seconds)
                          for clip, speaker, emotion in clips for n in range(rng.integers(1, 4))])
    return table, random_rows(len(table)), pd.factorize(table['clip'])[0]

@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    return Fusion(scale_of(random_rows(20), np.arange(20))).eval()


times = st.lists(st.tuples(st.sampled_from('ab'), st.floats(0, 3)), max_size=20)

@given(times, st.integers(0, 4), st.integers(0, 4))
@hypothesis_settings(deadline=None, max_examples=80)
def test_a_chunk_gets_the_nearest_frame_that_lies_in_it(frames, first, second):
    table = pd.DataFrame([dict(clip=clip, start=n*chunk_seconds, end=(n + 1)*chunk_seconds) for clip, count in (('a', first), ('b', second)) for n in range(count)],
                         columns=['clip', 'start', 'end'])
    frames = pd.DataFrame(frames, columns=['clip', 'start'])
    found = frame_of_chunk(table, frames)
    assert len(found) == len(table)
    for (clip, start, end), number in zip(table.itertuples(index=False), found):
        away = np.abs(frames.start.to_numpy(float) - (start + end)/2)[(frames['clip'] == clip).to_numpy(bool)]
        if number < 0: assert not (away < chunk_seconds/2 - 1e-9).any()
        else:
            assert frames['clip'][number] == clip and start - 1e-9 <= frames.start[number] <= end + 1e-9
            assert abs(frames.start[number] - (start + end)/2) == away.min()

def test_frames_in_any_order_and_under_any_index_give_the_same():
    table, _, _ = corpus()
    frames = pd.DataFrame([(clip, time) for clip in table['clip'].unique() for time in np.arange(0, .9, .04)], columns=['clip', 'start'])
    shuffled = frames.sample(frac=1, random_state=0)
    one, two = frame_of_chunk(table, frames), frame_of_chunk(table.set_index(table.index[::-1]), shuffled)
    assert ((one < 0) == (two < 0)).all() and (one < 0).any() and (one >= 0).any()
    assert frames.iloc[one[one >= 0]].equals(shuffled.iloc[two[two >= 0]])

def test_sound_that_goes_on_after_the_pictures_has_no_face(tmp_path, monkeypatch):
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'cache'))
    sound = .1*np.sin(np.arange(3*48000)/30)
    write_avi(tmp_path/'a.avi', sound, film(sound, 48000, 'enterface/1', 'anger', '1')[:25]) # one second of pictures
    table = pd.DataFrame([dict(clip='a', start=n*chunk_seconds, end=(n + 1)*chunk_seconds) for n in range(5)])
    faces = faces_at_middles(pd.DataFrame([dict(clip='a', video=str(tmp_path/'a.avi'))]), table)
    assert (frame_of_chunk(table, faces.table) >= 0).tolist() == [True, True, False, False, False]

def test_bytes():
    x = np.random.default_rng(0).uniform(-11.5, 1, (3, 2, 64, 64)).astype(np.float32)
    assert np.abs(as_bytes(x)*.05 - 11.55 - x.reshape(3, -1)).max() <= .0251
    assert as_bytes(np.full((1, 2, 64, 64), 99.)).max() == 255 and as_bytes(np.full((1, 2, 64, 64), -99.)).min() == 0
    assert brightness(np.full((2, 3, 48, 48), 255, np.uint8)).min() == 255 and brightness(np.zeros((2, 3, 48, 48), np.uint8)).max() == 0

@pytest.mark.parametrize('sense', senses)
def test_what_is_missing_has_no_say(network, sense):
    rows, clips, lost = random_rows(6), np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 0, 0, 0, 1], bool)
    gone = without(rows, sense, lost)
    assert np.array_equal(gone[~lost], rows[~lost]) and rows[:, -2:].all() # a copy
    other = gone.copy()
    other[lost, columns[sense]] = 77
    a, b, whole = (log_posteriors(network, each, clips) for each in (gone, other, rows))
    assert np.array_equal(a, b) and not np.allclose(a[lost], whole[lost], atol=1e-4)
    assert np.allclose(a[[0, 3, 4]], whole[[0, 3, 4]], atol=1e-6) # chunks before the loss, and other clips

def test_nothing_at_all_is_an_answer(network):
    rows = without(without(random_rows(4), 'audio', np.ones(4, bool)), 'face', np.ones(4, bool))
    assert np.isfinite(log_posteriors(network, rows, np.zeros(4, int))).all()

def test_late_fusion_asks_only_those_who_know():
    a, b = (torch.randn(5, 7, generator=torch.manual_seed(n)).log_softmax(1).numpy() for n in (0, 1))
    yes, no = np.ones(5, bool), np.zeros(5, bool)
    assert np.allclose(late([a, b], [yes, no]), a, atol=1e-6) and np.allclose(late([a, b], [no, yes]), b, atol=1e-6)
    both = late([a, b], [yes, yes])
    assert np.allclose(both, torch.tensor((a + b)/2).log_softmax(1), atol=1e-6) and np.allclose(late([a, b], [no, no]), both)

@pytest.mark.parametrize('memory', [True, False])
@pytest.mark.parametrize('some', [('audio',), ('face',), senses])
def test_shapes_in_and_out(some, memory):
    rows = random_rows(4)
    seen = shapes(Fusion(scale_of(rows, np.arange(4)), some, memory).eval(), rows)
    assert seen['out'] == (4, 7) and seen['joined'] == (4, 64*len(some)) and all(seen[f'cnns.{sense}'] == (4, 64) for sense in some)
    assert ('lstm' in seen) == memory

def test_the_order_of_clips_makes_no_difference_and_the_future_is_not_heard(network):
    _, rows, clips = corpus()
    said, order = log_posteriors(network, rows, clips), np.random.default_rng(0).permutation(clips.max() + 1)
    places = np.concatenate([np.flatnonzero(clips == clip) for clip in order])
    assert np.allclose(log_posteriors(network, rows[places], np.repeat(np.arange(len(order)), np.bincount(clips)[order])), said[places], atol=1e-5)
    last = np.append(np.flatnonzero(np.diff(clips)), len(clips) - 1)
    changed = rows.copy()
    changed[last, :-2] = 255 - changed[last, :-2]
    before = np.setdiff1d(np.arange(len(rows)), last)
    assert np.allclose(log_posteriors(network, changed, clips)[before], said[before], atol=1e-6)

def test_a_clip_loses_no_more_than_one_sense():
    torch.manual_seed(0)
    network = Fusion(scale_of(random_rows(9), np.arange(9)))
    lost = network._lost(4000, [1000]*4, 'cpu').view(4, 1000, 2)
    assert not lost.any(0).all(1).any() and .2 < lost.any(2).float().mean() < .4
    assert .05 < lost[..., 1].all(0).float().mean() < .2 # of clips never show a face
    network.lose = 0
    assert not network._lost(4000, [1000]*4, 'cpu').any()

def test_no_cnn_and_no_lstm_learns_from_test_clips(tmp_path, monkeypatch):
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path))
    table, rows, clips = corpus()
    part, how = split(table, 'speaker'), Settings(epochs=2, batch=8, precision='float32', device='cpu')
    labels = pd.Categorical(table.emotion, emotions).codes.astype(np.int64)
    other_rows, other_labels = rows.copy(), labels.copy()
    other_rows[part.test, :-2] = 255 - other_rows[part.test, :-2]; other_labels[part.test] = (labels[part.test] + 1) % 6
    (one,), (two,) = (train_folds(Dataset(x, y, clips), table, [part], 'speaker', how) for x, y in ((rows, labels), (other_rows, other_labels)))
    for name in one: assert all(torch.equal(a, b) for a, b in zip(one[name].state_dict().values(), two[name].state_dict().values())), name
    for sense in senses: # in stages the CNNs are those of the first stage
        for name in (f'{sense}, LSTM in stages', 'joined, LSTM in stages'):
            first, second = (each.cnns[sense].state_dict() for each in (one[f'{sense}, CNN'], one[name]))
            assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(one['audio, LSTM end to end'].cnns['audio'].affine.weight, one['audio, CNN'].cnns['audio'].affine.weight)
    said = answers(one, rows[part.test], clips[part.test])
    assert len(said) == 13 and all(np.allclose(np.exp(p).sum(1), 1, atol=1e-5) for p in said.values())

def test_frozen_is_frozen():
    scale = scale_of(random_rows(9), np.arange(9))
    learnt = {sense: built(scale, (sense,), False).cnns[sense].state_dict() for sense in senses}
    network = built(scale, learnt=learnt)
    assert not any(p.requires_grad for p in network.cnns.parameters()) and network.missing['face'].requires_grad and network.lstm.weight_hh_l0.requires_grad
