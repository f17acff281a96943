"Every split keeps its promise on any table, and every kind of leak is caught by name."
from dataclasses import replace
from itertools import product

import numpy as np, pandas as pd, pytest
from hypothesis import assume, given, settings, strategies as st

from emonb.core import EmonbError
from emonb.protocols import (LeakageError, Split, audit, audit_line, check_split, folds, kinds, linked, percent,
                             promises, split, splits)

emotions = ('anger', 'fear', 'neutral')


def clip_table(corpora=('a', 'b'), speakers=6, sentences=6, seed=0, twins=0):
    "Each speaker says each sentence in one or two emotions; `twins` pairs of clips hold the same audio."
    rng = np.random.default_rng(seed)
    rows = [dict(corpus=corpus, clip=f'{corpus}/{person}-{sentence}-{take}', speaker=f'{corpus}/{person}',
                 sentence=f'{corpus}/{sentence}', emotion=emotions[(person + sentence + take) % 3])
            for corpus, person, sentence in product(corpora, range(speakers), range(sentences))
            for take in range(rng.integers(1, 3))]
    table = pd.DataFrame(rows).sample(frac=1, random_state=seed).reset_index(drop=True)
    table['digest'] = 'sound of ' + table['clip']
    for _ in range(twins):
        one, other = rng.integers(len(table), size=2)
        table.loc[one, 'digest'] = table.loc[other, 'digest']
    return table


def in_chunks(table, chunks=3, hop=.256):
    out = table.loc[table.index.repeat(chunks)].reset_index(drop=True)
    out['start'] = hop*(out.groupby('clip').cumcount())
    return out.assign(end=out['start'] + .512)


def augmented(table):
    copy = table.assign(parent=table['clip'], clip=table['clip'] + '+', digest=table['digest'] + '+')
    return pd.concat([table.assign(parent=''), copy, copy.assign(parent=copy['clip'], clip=copy['clip'] + '+',
                                                                 digest=copy['digest'] + '+')], ignore_index=True)


def tables():
    return st.builds(clip_table, st.sampled_from([('a',), ('a', 'b'), ('a', 'b', 'c')]), st.integers(5, 12),
                     st.integers(4, 8), st.integers(0, 10**6), st.integers(0, 2))


any_protocol = pytest.mark.parametrize('protocol', promises)


@any_protocol
@settings(max_examples=15, deadline=None)
@given(table=tables(), seed=st.integers(0, 99), shape=st.sampled_from(['clips', 'chunks', 'augmented']))
def test_any_table(protocol, table, seed, shape):
    "Parts are disjoint, the promise is kept, each row is tested once, training has all emotions, the seed decides."
    if shape == 'chunks': table = in_chunks(table)
    if shape == 'augmented': table = augmented(table)
    try: made = list(splits(table, protocol, seed))
    except LeakageError: raise
    except EmonbError: assume(False) # too little to split
    assert len(made) == folds(table, protocol)
    assert np.array_equal(np.sort(np.concatenate([s.test for s in made])), np.arange(len(table)))
    for s in made:
        rows = np.concatenate([s.train, s.val, s.test])
        assert len(np.unique(rows)) == len(rows) == len(table) - s.left_out
        assert min(map(len, s.parts.values())) > 0
        assert set(table['emotion'].iloc[s.train]) == set(table['emotion'])
        train, val, test = (table.iloc[part] for part in (s.train, s.val, s.test))
        apart = {'paper': [], 'clip': ['clip', 'digest']}.get(protocol, ['clip', 'digest', 'speaker'])
        for one, other in ((train, test), (val, test), (train, val)):
            for column in apart: assert not set(one[column]) & set(other[column])
        if protocol == 'speaker+sentence':
            for one in (train, val): assert not set(one['sentence']) & set(test['sentence'])
        else: assert s.left_out == 0
        if shape == 'augmented' and protocol != 'paper':
            assert not set(test['clip'].str.rstrip('+')) & set(train['clip'].str.rstrip('+'))
    again = split(table, protocol, seed, fold=len(made) - 1)
    assert all(np.array_equal(again.parts[name], made[-1].parts[name]) for name in again.parts)


@any_protocol
def test_shares(protocol):
    "60/20/20 of the rows that are used, roughly."
    table = in_chunks(clip_table(speakers=15, sentences=8))
    s = split(table, protocol, seed=1)
    used = len(table) - s.left_out
    for name, share in dict(train=.6, val=.2, test=.2).items():
        assert abs(len(s.parts[name])/used - share) < (.02 if protocol in ('paper', 'clip') else .12)


@pytest.mark.parametrize('protocol', ['paper', 'clip', 'speaker', 'speaker+sentence'])
def test_seed_changes_folds(protocol):
    table = clip_table(speakers=15, sentences=8)
    assert not np.array_equal(split(table, protocol, 0).test, split(table, protocol, 1).test)


def test_leave_one_speaker_out():
    assert folds(clip_table(('a',), speakers=10), 'speaker') == 10
    assert folds(clip_table(('a',), speakers=11), 'speaker') == 5
    assert folds(clip_table(('a', 'b'), speakers=4), 'speaker') == 5
    assert folds(clip_table(('a',), speakers=4), 'speaker+sentence') == 8
    for s in splits(table := clip_table(('a',), speakers=10), 'speaker'):
        assert table['speaker'].iloc[s.test].nunique() == table['speaker'].iloc[s.val].nunique() == 1


def test_emotions_on_both_halves():
    "Where each emotion has its own sentences, both halves of the sentences have all emotions."
    table = clip_table(('a',), speakers=6, sentences=15)
    table['sentence'] = 'a/' + table['emotion'] + (table.groupby(['speaker', 'emotion']).cumcount() % 5).astype(str)
    for s in splits(table, 'speaker+sentence'):
        assert table['emotion'].iloc[s.test].nunique() == table['emotion'].iloc[s.train].nunique() == 3


def test_shared_recording_binds_speakers():
    table = clip_table(('a',), speakers=5)
    first = table.groupby('speaker')['clip'].first()
    table.loc[table['clip'] == first['a/0'], 'digest'] = 'sound of ' + first['a/1']
    assert folds(table, 'speaker') == 4
    for s in splits(table, 'speaker'): assert not audit(table, s).query("promise == 'forbidden' and count > 0").size


def leak(kind, table, s):
    "`table` and `s` with one leak of `kind` from test into training, and the clip where it is."
    train, test = s.train[0], s.test[0]
    table, clip = table.copy(), table['clip'].iloc[test]
    at = lambda column: table.columns.get_loc(column)
    in_test = np.flatnonzero(table['clip'] == clip)
    if kind == 'speakers': table.iloc[in_test, at('speaker')] = table['speaker'].iloc[train]
    if kind == 'sentences': table.iloc[in_test, at('sentence')] = table['sentence'].iloc[train]
    if kind == 'identical audio': table.iloc[in_test, at('digest')] = table['digest'].iloc[train]
    if kind == 'augmented copies':
        table['parent'] = ''
        table.iloc[in_test, at('parent')] = table['clip'].iloc[train]
    if kind == 'clips': s = replace(s, train=np.append(s.train, in_test[-1]), test=s.test[s.test != in_test[-1]])
    return table, s, clip


@pytest.mark.parametrize('kind', ['speakers', 'sentences', 'identical audio', 'augmented copies', 'clips'])
@pytest.mark.parametrize('protocol', ['clip', 'speaker', 'speaker+sentence'])
def test_injected_leak(protocol, kind):
    table = in_chunks(clip_table(speakers=8))
    leaky, s, clip = leak(kind, table, split(table, protocol))
    found = audit(leaky, s).set_index(['between', 'shared'])
    assert found.loc[('train | test', kind), 'count'] > 0
    if kind in promises[protocol]:
        with pytest.raises(LeakageError, match=f'train and test share .*{clip}') as caught: check_split(leaky, s)
        assert len(str(caught.value).splitlines()) == 1
    else: check_split(leaky, s)


def test_leak_into_validation():
    table = clip_table(speakers=8)
    s = split(table, 'clip')
    table.loc[s.val[0], 'digest'] = table.loc[s.test[0], 'digest']
    with pytest.raises(LeakageError, match='val and test share 1 identical recording'): check_split(table, s)
    table.loc[s.val[0], 'digest'] = table.loc[s.train[0], 'digest']
    with pytest.raises(LeakageError, match='train and val share 1 identical recording'): check_split(table, s)


def test_row_in_two_parts():
    table = clip_table()
    s = split(table, 'paper')
    twice = replace(s, test=np.append(s.test, s.train[0]))
    with pytest.raises(LeakageError, match='two parts'): check_split(table, twice)


def test_three_clips_are_named():
    table = clip_table(speakers=8)
    with pytest.raises(LeakageError) as caught: check_split(table, replace(split(table, 'clip'), protocol='speaker'))
    assert str(caught.value).count('a/') + str(caught.value).count('b/') == 3


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 8), st.integers(1, 4), st.booleans()), min_size=2))
def test_overlap_is_what_it_says(chunks):
    "The sorted search finds what comparing every two chunks finds; chunks that only touch do not overlap."
    table = pd.DataFrame([dict(corpus='a', emotion='x', clip=f'c{clip}', start=.1*start, end=.1*start + .1*length)
                          for clip, start, length, _ in chunks])
    test = np.array([t for *_, t in chunks])
    assume(test.any() and not test.all())
    s = Split('paper', 0, 0, np.flatnonzero(~test), np.array([], int), np.flatnonzero(test), len(table))
    expected = sum(any(c == c2 and b < b2 + n2 and b2 < b + n for c2, b2, n2, t2 in chunks if not t2)
                   for c, b, n, t in chunks if t)
    assert audit(table, s).set_index('shared').loc['overlapping sound', 'count'] == expected


@pytest.mark.parametrize('tempo, start, shared', [
    (1, .512, True), (1, .256, True), (1, 0, False), (1, 1.024, False), # a chunk from .512 to 1.024 s is trained on
    (.81, .512, True), (.81, 0, False), (.81, 1.24, True), (.81, 1.28, False), # the copy's 1.28 s is the original's 1.037 s
    (1.23, .512, True), (1.23, .3, True), (1.23, .84, False), (1.23, 0, True), (2, .512, False)])
def test_an_altered_copy_of_the_same_stretch_overlaps(tempo, start, shared):
    rows = [dict(clip='x', parent='', tempo=1, start=.512), dict(clip='x+', parent='x', tempo=tempo, start=start),
            dict(clip='y', parent='', tempo=1, start=.512), dict(clip='y+', parent='y', tempo=tempo, start=start)]
    table = pd.DataFrame(rows).assign(corpus='a', emotion='anger', end=lambda t: t['start'] + .512)
    for train, test in (([0], [1]), ([1], [0])):
        found = audit(table, Split('paper', 0, 0, *map(np.array, (train, [2, 3], test)), 4)).set_index(['between', 'shared'])['count']
        assert found['train | test', 'overlapping sound'] == shared and found['train | val', 'overlapping sound'] == 0

@pytest.mark.parametrize('nothing', ['', None, np.nan])
def test_cells_of_a_csv_that_are_empty_hide_no_copy(nothing):
    rows = [dict(clip='x', parent=nothing, tempo=nothing or np.nan, start=0.), dict(clip='x+', parent='x', tempo=1., start=0.), dict(clip='y', parent=nothing, tempo=1., start=0.)]
    table = pd.DataFrame(rows).assign(corpus='a', emotion='anger', end=.512)
    found = audit(table, Split('paper', 0, 0, *map(np.array, ([0], [2], [1])), 3)).set_index(['between', 'shared'])['count']
    assert found['train | test', 'overlapping sound'] == 1 and found['train | val', 'overlapping sound'] == 0


def test_paper_shares_samples():
    "At a hop of half a chunk most test chunks of the paper's protocol overlap with training; without overlap none."
    table = clip_table(speakers=8)
    for hop, shared in ((.256, True), (.512, False)):
        chunks = in_chunks(table, 8, hop)
        assert ('overlapping' in audit_line(audit(chunks, split(chunks, 'paper')))) == shared


def test_a_little_is_not_nothing():
    assert [percent(share) for share in (0, .0004, .014, 1)] == ['0 %', '<1 %', '1 %', '100 %']


def test_linked():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(dict(clip=rng.integers(0, 30, 60), digest=rng.integers(0, 40, 60)))
    group = linked(table, 'clip', 'digest')
    for column in table: assert (pd.Series(group).groupby(table[column]).nunique() == 1).all()
    assert set(group) == set(range(group.max() + 1))
    empty = pd.DataFrame(dict(clip=['', None, np.nan, 'a', 'a']))
    assert linked(empty, 'clip').tolist() == [0, 1, 2, 3, 3]
    assert not len(linked(empty[:0], 'clip'))


@pytest.mark.parametrize('table, protocol, message', [
    (clip_table(), 'speakers', 'choose one of paper, clip, speaker'),
    (clip_table().drop(columns='speaker'), 'speaker', "no column 'speaker'"),
    (clip_table().assign(sentence=''), 'speaker+sentence', 'clips have no sentence'),
    (clip_table(('a',), speakers=2), 'speaker', '2 speakers are too few'),
    (clip_table(('a', 'b'), speakers=2), 'speaker', '4 speakers are too few'),
    (clip_table(speakers=12, sentences=1), 'speaker+sentence', 'too few sentences'),
    (clip_table(sentences=1), 'speaker', 'no emotion has five rows'),
    (clip_table()[:3], 'clip', '3 clips are too few'),
    (clip_table()[:0], 'paper', '0 rows are too few'),
    (clip_table()[:0], 'speaker', '0 speakers are too few')])
def test_cannot_be_split(table, protocol, message):
    with pytest.raises(EmonbError, match=message) as caught: list(splits(table, protocol))
    assert len(str(caught.value).splitlines()) == 1


def test_emotion_of_one_speaker():
    table = clip_table(speakers=8)
    table.loc[table['speaker'] == 'a/3', 'emotion'] = 'disgust'
    with pytest.raises(EmonbError, match='training has no disgust'): list(splits(table, 'speaker'))


def test_fold_out_of_range():
    with pytest.raises(EmonbError, match='folds 0 to 4'): split(clip_table(), 'clip', fold=5)


def test_unknown_is_not_zero():
    table = clip_table().drop(columns=['digest', 'speaker'])
    found = audit(table, split(table, 'clip')).set_index(['between', 'shared'])
    assert found.loc[('train | test', 'speakers'), 'count'] is pd.NA
    assert found.loc[('train | test', 'clips'), 'count'] == 0
    assert set(found.index.get_level_values('shared')) == set(kinds)


def test_index_of_the_table_does_not_matter():
    table = clip_table()
    other = table.set_index(np.random.default_rng(0).permutation(len(table)) + 100)
    for protocol in promises: assert np.array_equal(split(table, protocol).test, split(other, protocol).test)
