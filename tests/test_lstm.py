"The LSTM is PyTorch's whatever way its rows are laid out; features of R1 never come from test clips' labels; odd clips do no harm."
from types import SimpleNamespace

import numpy as np, pandas as pd, pytest, torch
from torch import nn

from emonb import lstm
from emonb.chunks import Chunks
from emonb.evaluation import predictions, probability_columns
from emonb.paper import emotions
from emonb.protocols import Split, check_split, splits
from emonb.training import Settings, batches, fit


def padded(network, clips): # the plain way: one clip at a time
    return [network.scores(network.lstm(clip.flatten(1)[:, None])[0][:, 0]) for clip in clips]

@pytest.mark.parametrize('lengths', [[1], [1, 1, 1], [3, 2, 1], [1170, 1], [5, 5, 4, 1]]) # 1,170 chunks are ten minutes
@pytest.mark.parametrize('bidirectional', [False, True])
def test_rows_laid_out_step_by_step_are_the_clips_one_by_one(lengths, bidirectional):
    torch.manual_seed(0)
    network = lstm.ClipLSTM(6, 4, bidirectional).eval()
    number, x = np.repeat(np.arange(len(lengths)), lengths), torch.randn(sum(lengths), 6)
    with torch.inference_mode():
        for rows, (steps,) in batches(torch.arange(len(x)), number, 10): found = network(x[rows], steps)
        expected = torch.cat(padded(network, x.split(lengths)))
    assert torch.allclose(found, expected[rows], atol=1e-5)

def test_one_chunk_at_a_time_is_all_at_once():
    torch.manual_seed(0)
    network, x, state = lstm.ClipLSTM(2*64*64, 8).eval(), torch.randn(7, 3, 2, 64, 64), None
    with torch.inference_mode():
        whole = network(x.flatten(0, 1), [3]*7).view(7, 3, 7)
        for t in range(7):
            scores, state = network.step(x[t], state)
            assert torch.allclose(scores, whole[t], atol=1e-5)
    with pytest.raises(ValueError): lstm.ClipLSTM(6, 4, True).step(x[0])

def test_the_past_does_not_see_the_future_unless_bidirectional():
    torch.manual_seed(0)
    x = torch.randn(5, 6); changed = torch.cat([x[:4], -x[4:]])
    for bidirectional in (False, True):
        network = lstm.ClipLSTM(6, 4, bidirectional).eval()
        with torch.inference_mode(): same = torch.equal(network(x, [1]*5)[:4], network(changed, [1]*5)[:4])
        assert same != bidirectional


def some_chunks(clips=60, seed=0):
    rng = np.random.default_rng(seed)
    length = rng.integers(1, 5, size=clips); number = np.repeat(np.arange(clips), length)
    table = pd.DataFrame(dict(corpus='toy', clip=[f'toy/{n}' for n in number], emotion=np.array(emotions)[number % 7], speaker=[f'{n % 6}' for n in number],
                              sentence=[f'{n//7 % 4}' for n in number], digest=[f'd{n}' for n in number],
                              start=pd.Series(number).groupby(number).cumcount()*.512))
    table['end'] = table.start + .512
    return Chunks(table, rng.normal(size=(len(table), 2, 64, 64)).astype(np.float32), rng.normal(size=(len(table), 26)).astype(np.float32))

def test_last_mean_and_so_far_are_of_one_clip_each():
    chunks = some_chunks()
    p = np.random.default_rng(1).dirichlet(np.ones(7), len(chunks.table))
    frame = predictions('toy', 'test', chunks.table, p, 'clip')
    last, running = lstm.last_step(frame), lstm.so_far(frame)
    assert len(last) == 60 and not last['clip'].duplicated().any()
    for clip, rows in frame.groupby('clip'):
        of = rows[probability_columns].to_numpy()
        assert np.array_equal(last[last['clip'] == clip][probability_columns].to_numpy()[0], of[-1])
        assert np.allclose(running.loc[rows.index, probability_columns], np.cumsum(of, axis=0)/np.arange(1, len(of) + 1)[:, None], atol=1e-6)
        assert lstm.voted(rows)[probability_columns].to_numpy().sum() == pytest.approx(1)

def test_heard_never_hears_more_than_the_time_and_leaves_no_clip_out():
    frame = predictions('toy', 'test', some_chunks().table, np.random.default_rng(1).dirichlet(np.ones(7), len(some_chunks().table)), 'clip')
    for seconds in (.1, .512, 1.1, 600):
        found = lstm.heard(frame, seconds)
        assert set(found['clip']) == set(frame['clip']) and len(found) == 60
    assert np.array_equal(lstm.heard(frame, .1)[probability_columns], frame[frame.start == 0][probability_columns])
    assert np.array_equal(lstm.heard(frame, 600)[probability_columns], lstm.last_step(frame)[probability_columns])

def test_what_lies_before_the_first_speech_is_heard_and_not_counted():
    table = some_chunks().table
    frame = predictions('toy', 'test', table, np.random.default_rng(1).dirichlet(np.ones(7), len(table)), 'clip')
    last = frame.groupby('clip').start.transform('max') # speech begins with the last chunk: after one chunk all has been heard
    found = lstm.heard(frame.assign(start=frame.start - last), .512)
    assert np.array_equal(found[probability_columns], lstm.last_step(frame)[probability_columns])

@pytest.mark.parametrize('protocol', ['clip', 'speaker'])
def test_crossed_halves_learn_from_training_rows_only_and_keep_the_promise(protocol):
    table = some_chunks(120).table
    part = next(splits(table, protocol))
    halves = lstm.crossed(table, part)
    assert np.array_equal(np.sort(np.concatenate([half.test for half in halves])), part.train)
    for half in halves:
        check_split(table, half)
        assert not set(half.train) & set(half.test) and set(half.train) <= set(part.train)

def test_scores_of_training_rows_come_from_the_network_that_has_not_seen_them():
    chunks = some_chunks(120)
    part = next(splits(chunks.table, 'clip'))
    def told(split, name): # a network that says, of each row, how often it was trained on it
        frames = [predictions('R1', which, chunks.table.iloc[rows], np.eye(7)[np.full(len(rows), name)], 'clip') for which, rows in split.parts.items()]
        return SimpleNamespace(predictions=pd.concat(frames))
    halves = lstm.crossed(chunks.table, part)
    scores = lstm._scored(chunks, part, told(part, 0), [told(half, n + 1) for n, half in enumerate(halves)]).argmax(axis=1)
    assert (scores[part.val] == 0).all() and (scores[part.test] == 0).all()
    assert (scores[halves[0].test] == 1).all() and (scores[halves[1].test] == 2).all()

@pytest.mark.parametrize('protocol', ['clip', 'speaker'])
def test_seen_and_unseen_sentences_learn_from_equally_much(protocol):
    table = some_chunks(240).table
    half = (table.sentence.astype(int) % 2).to_numpy()
    for part in splits(table, protocol):
        for tested in (0, 1):
            seen, unseen = lstm.seen_and_unseen(table, part, half, tested)
            assert np.array_equal(seen.test, unseen.test)
            count = [table.iloc[each.train].drop_duplicates('clip').emotion.value_counts().sort_index() for each in (seen, unseen)]
            assert count[0].equals(count[1])
            assert not set(table.sentence.iloc[unseen.train]) & set(table.sentence.iloc[unseen.test])
            assert set(table.sentence.iloc[seen.test]) <= set(table.sentence.iloc[seen.train])
            check_split(table, seen), check_split(table, unseen)

def test_clip_statistics_of_a_clip_with_one_chunk_have_no_spread():
    chunks = some_chunks()
    clips, values = lstm.clip_statistics(chunks)
    single = chunks.table.groupby('clip', sort=False).size().to_numpy() == 1
    assert single.any() and (values[single, 26:] == 0).all() and np.isfinite(values).all() and len(clips) == 60

def test_one_chunk_clips_and_a_clip_of_ten_minutes_train_together():
    number = np.repeat(np.arange(4), [1, 1170, 1, 2]); rng = np.random.default_rng(0)
    data = lstm.Dataset(rng.normal(size=(len(number), 5)).astype(np.float32), number % 7, number.astype(np.int64))
    rows = [np.flatnonzero(np.isin(number, some)) for some in ([0, 1], [2], [3])]
    fitted = fit(lambda: lstm.ClipLSTM(5, 4), data, Split('clip', 0, 0, *rows, len(number)), Settings(epochs=2, batch=2, device='cpu'), 'odd clips')
    assert np.isfinite(fitted.probabilities).all()
