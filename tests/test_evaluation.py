"Scores equal scikit-learn's, intervals hold what they promise, verdicts follow the rule."
import warnings
from dataclasses import replace

import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

from emonb.core import EmonbError
from emonb.evaluation import (bootstrap, chance, claim_row, claim_rows, clip_counts, confusion, difference, interval,
                              metrics, metrics_of, predicted, predictions, probability_columns, same_clips, score,
                              scores, verdict)
from emonb.paper import claims, emotions

paper_corpora = ('emodb', 'savee', 'enterface')


def made(truth, said, clip=None, experiment='R1', part='test', protocol='paper', seed=0, corpora=paper_corpora):
    n = len(truth)
    rows = pd.DataFrame(dict(corpus=np.resize(corpora, n), clip=np.arange(n).astype(str) if clip is None else clip,
                             start=np.arange(n)*.5, emotion=truth))
    return predictions(experiment, part, rows, np.asarray(said), protocol, seed)


def random_frame(n=300, clips=40, skill=.4, seed=0, **more):
    rng = np.random.default_rng(seed)
    truth = np.resize(np.random.default_rng(1).choice(emotions, clips), n)
    said = np.where(rng.random(n) < skill, truth, rng.choice(emotions, n))
    return made(truth, said, np.resize([f'c{i}' for i in range(clips)], n), **more)


def values(frame): return metrics_of(clip_counts(frame).sum())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(emotions), st.sampled_from(emotions), st.integers(0, 4)), min_size=1))
def test_equals_sklearn(rows):
    "Also where classes do not occur, or are said but do not occur."
    truth, said, clip = map(list, zip(*rows))
    frame = made(truth, said, [f'c{i}' for i in clip])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        expected = [f(truth, said) for f in (accuracy_score, balanced_accuracy_score)]
        expected.append(f1_score(truth, said, average='macro'))
    assert np.allclose(values(frame), expected)
    assert np.array_equal(confusion(frame), confusion_matrix(truth, said, labels=emotions))
    assert predicted(frame).tolist() == said


def test_probabilities():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(7), 20)
    rows = pd.DataFrame(dict(corpus='a', clip='x', emotion='fear'), index=range(100, 120))
    frame = predictions('R1', 'val', rows, p, 'clip', 3, 2)
    assert np.allclose(frame[probability_columns], p) and frame.index.tolist() == list(range(20))
    assert predicted(frame).tolist() == [emotions[i] for i in p.argmax(axis=1)]
    assert frame['start'].isna().all() and set(frame['seed']) == {3} and set(frame['fold']) == {2}
    for wrong in (p[:, :6], p[:5], p*2, p - .1, p*np.nan, ['joy']*20):
        with pytest.raises(EmonbError) as caught: predictions('R1', 'val', rows, wrong, 'clip')
        assert len(str(caught.value).splitlines()) == 1


def test_stored_and_read_again(tmp_path):
    frame = pd.concat([random_frame(seed=1), made(['fear'], ['fear']).assign(start=np.nan)])
    frame.to_parquet(tmp_path/'p.parquet', index=False)
    again = pd.read_parquet(tmp_path/'p.parquet')
    pd.testing.assert_frame_equal(score(again), score(frame))


def test_notes_on_the_table_do_not_come_along(tmp_path):
    rows = pd.DataFrame(dict(corpus='a', clip=list('xy'), start=0., emotion='fear'))
    rows.attrs['report'] = pd.DataFrame(dict(file=['z']))
    frame = pd.concat([predictions('R1', 'test', rows, ['fear', 'anger'], 'clip', seed) for seed in range(2)])
    frame.to_parquet(tmp_path/'p.parquet')
    assert score(frame, 20).loc['accuracy', 'value'] == .5


def test_order_of_rows_does_not_matter():
    frame = random_frame()
    pd.testing.assert_frame_equal(score(frame), score(frame.sample(frac=1, random_state=0)))


def test_chance():
    truth = np.array([30, 10, 0, 0, 0, 0, 10])
    always = made(['anger']*30 + ['disgust']*10 + ['surprise']*10, ['anger']*50)
    assert np.allclose(chance(truth)[0], values(always))
    rng = np.random.default_rng(0)
    names = np.repeat(emotions, truth*400)
    assert np.allclose(chance(truth)[1], values(made(names, rng.permutation(names))), atol=.01)


def test_bootstrap_is_the_mean_and_reproducible():
    counts = clip_counts(random_frame()).to_numpy()
    sums = bootstrap(counts, 1203, seed=1)
    assert sums.shape == (1203, 49) and np.array_equal(sums, bootstrap(counts, 1203, seed=1))
    assert not np.array_equal(sums, bootstrap(counts, 1203, seed=2))
    assert np.allclose(sums.mean(axis=0), counts.sum(axis=0), atol=1.5)
    one = np.array([[1., 2.]])
    assert (bootstrap(one, 10) == one).all()


def test_bootstrap_matches_drawing_clips():
    "The matrix product does what drawing clips one by one does."
    counts, rng = clip_counts(random_frame(clips=15)).to_numpy(), np.random.default_rng(0)
    slow = [metrics_of(counts[rng.integers(0, 15, 15)].sum(axis=0)) for _ in range(3000)]
    assert np.allclose(interval(np.array(slow)), interval(metrics_of(bootstrap(counts, 3000))), atol=.015)


@pytest.mark.parametrize('unit, low, high', [('clip', .90, .98), ('chunk', .55, .82)])
def test_coverage(unit, low, high):
    rng, tries, hits = np.random.default_rng(5), 250, 0
    for _ in range(tries):
        right = rng.random((60, 6)) < rng.beta(.4, .6, 60)[:, None]
        counts = np.stack([right, ~right], axis=-1)
        sums = bootstrap(counts.sum(axis=1) if unit == 'clip' else counts.reshape(-1, 2), 200)
        ends = interval(sums[:, 0]/sums.sum(axis=1))
        hits += ends[0] <= .4 <= ends[1]
    assert low < hits/tries < high


def test_seeds_travel_with_their_clip():
    "The same predictions under five seeds are no more certain than under one."
    one = random_frame()
    five = pd.concat([one.assign(seed=seed) for seed in range(5)])
    columns = ['value', 'ci_low', 'ci_high', 'n', 'clips']
    pd.testing.assert_frame_equal(score(one)[columns], score(five)[columns])
    assert np.allclose(score(five)['seed_sd'], 0) and (score(five)['seeds'] == 5).all()
    assert score(one)['seed_sd'].isna().all()


def test_augmented_copies_travel_with_their_clip():
    one = random_frame().assign(parent='')
    copies = one.assign(parent=one['clip'], clip=one['clip'] + '+')
    both = score(pd.concat([one, copies]))
    assert (both['clips'] == score(one)['clips']).all()
    assert np.allclose(both[['value', 'ci_low', 'ci_high']], score(one)[['value', 'ci_low', 'ci_high']])


def test_one_score_is_of_one_thing():
    for other in (dict(experiment='R2'), dict(part='train'), dict(protocol='clip')):
        with pytest.raises(EmonbError, match='select one'): score(pd.concat([random_frame(), random_frame(**other)]))
    table = scores(pd.concat([random_frame(), random_frame(experiment='R2'), random_frame(part='train')]), draws=50)
    assert len(table) == 9 and table['metric'].tolist() == 3*list(metrics)


def test_paired_difference_is_narrower():
    one = random_frame(skill=.5)
    rng = np.random.default_rng(3)
    changed = rng.random(len(one)) < .1 # the other model differs in a tenth of the chunks
    other = made(one['emotion'].to_numpy(), np.where(changed, rng.choice(emotions, len(one)), predicted(one)),
                 one['clip'].to_numpy(), 'R2')
    found = difference(one, other)
    assert np.allclose(found['value'], values(one) - values(other))
    apart = sum(np.ptp(score(f).loc['accuracy', ['ci_low', 'ci_high']])**2 for f in (one, other))**.5
    assert np.ptp(found.loc['accuracy', ['ci_low', 'ci_high']]) < .6*apart
    assert np.allclose(difference(other, one)['value'], -found['value'])


def test_margins():
    frames = [random_frame(skill=s, seed=i, experiment=f'e{i}') for i, s in enumerate((.6, .5, .3, .2))]
    a, b, c, d = (values(frame) for frame in frames)
    assert np.allclose(difference(frames[:2], frames[2:])['value'], np.minimum(a, b) - np.maximum(c, d))
    trained = [frame.assign(split='train') for frame in frames]
    gap = difference([trained[1], frames[2]], [trained[0], frames[3]], 'smaller gap')
    assert np.allclose(gap['value'], (a - d) - (b - c))
    assert (gap['ci_low'] < gap['value']).all() and (gap['value'] < gap['ci_high']).all()


def test_differences_need_the_same_clips():
    one, other = random_frame(clips=40), random_frame(clips=42, experiment='R2')
    with pytest.raises(EmonbError, match=r'2 test clips .*\(c40, c41\)'): difference(one, other)
    difference(*same_clips(one, other))


def test_the_price_of_a_leak():
    "One experiment under two protocols can be compared, a mixture of both can't."
    paper, speaker = random_frame(skill=.5), random_frame(skill=.3, protocol='speaker')
    assert difference(paper, speaker).loc['accuracy', 'ci_low'] > 0
    with pytest.raises(EmonbError, match="'protocol' has 2 values"): difference(pd.concat([paper, speaker]), speaker)


R1 = claims['table4.R1.test']
above = claims['order.cnn-beats-handbuilt']
no_help = next(claim for claim in claims.values() if claim.relation == 'not below')
gap = next(claim for claim in claims.values() if claim.relation == 'smaller gap')
seen = next(claim for claim in claims.values() if claim.relation == 'seen')
count = claims['count.chunks']
own, some, none, demo = paper_corpora, ('emodb', 'savee', 'ravdess'), ('ravdess',), ('demo-emodb', 'emodb')


@pytest.mark.parametrize('claim, ours, half, corpora, expected', [
    (R1, .397, .02, own, 'reproduced'), (R1, .41, .02, own, 'reproduced'), (R1, .38, .02, own, 'reproduced'),
    (R1, .44, .02, own, 'partly'), (R1, .35, .02, own, 'partly'), (R1, .46, .02, own, 'not reproduced'),
    (R1, .30, .02, own, 'not reproduced'), (R1, .46, .10, own, 'reproduced'),
    (R1, .397, .02, some, 'partly'), (R1, .46, .10, some, 'partly'), (R1, .46, .02, some, 'not reproduced'),
    (R1, .397, .02, (*own, 'ravdess'), 'partly'), (R1, .397, .02, none, 'not testable'), (R1, .397, .02, demo, ''),
    (R1, np.nan, np.nan, own, 'not testable'), (R1, np.nan, np.nan, (), 'not testable'),
    (above, .05, .02, own, 'reproduced'), (above, .01, .02, own, 'partly'), (above, -.01, .02, own, 'not reproduced'),
    (above, -.05, .02, own, 'not reproduced'), (above, .05, .02, some, 'reproduced'),
    (above, .05, .02, none, 'not testable'), (above, .05, .02, demo, ''),
    (gap, .05, .02, gap.corpora, 'reproduced'), (gap, .01, .02, gap.corpora, 'partly'),
    (no_help, .05, .02, own, 'reproduced'), (no_help, .01, .02, own, 'reproduced'),
    (no_help, -.01, .02, own, 'reproduced'), (no_help, -.05, .02, own, 'not reproduced'), (seen, 1, 0, own, ''),
    (count, 22_521, np.nan, own, 'reproduced'), (count, 22_596, np.nan, own, 'partly'),
    (count, 12_000, np.nan, own, 'not reproduced'), (count, 22_521, np.nan, some, 'not testable')])
def test_verdict_grid(claim, ours, half, corpora, expected):
    assert verdict(claim, ours, ours - half, ours + half, corpora) == expected


def test_verdict_uses_the_papers_error():
    wide, exact = replace(R1, n=100), replace(R1, n=None)
    assert verdict(wide, .45, .44, .46, own) == 'reproduced' and verdict(exact, .41, .409, .411, own) == 'partly'
    assert verdict(exact, .397, .397, .397, own) == 'reproduced'


columns = 'claim source paper ours ci_low ci_high n protocol corpora seeds verdict notebook note'.split()


def test_claim_rows():
    frame = pd.concat([random_frame(skill=.3, protocol=p, seed=s).assign(seed=s)
                       for p in ('paper', 'speaker') for s in (0, 1)])
    poor = pd.concat([random_frame(skill=.1, protocol=p, seed=s, experiment='svm').assign(seed=s)
                      for p in ('speaker', 'clip') for s in (0, 1)])
    rows = claim_rows({'table4.R1.test': frame, 'order.cnn-beats-handbuilt': (frame, [poor]), 'lstm.test': None},
                      '08_cnns', 100, 'hop 256 ms')
    assert list(rows) == columns
    assert rows[['claim', 'protocol']].to_numpy().tolist() == [
        ['table4.R1.test', 'paper'], ['table4.R1.test', 'speaker'], ['order.cnn-beats-handbuilt', 'speaker'],
        ['lstm.test', '']]
    first = rows.iloc[0]
    assert (first['n'], first['seeds'], first['corpora'], first['paper']) == (300, 2, 'emodb enterface savee', .397)
    assert first['note'] == '40 clips; hop 256 ms' and first['notebook'] == '08_cnns'
    assert rows['verdict'].isin(['reproduced', 'partly', 'not reproduced', 'not testable']).all()
    assert rows.iloc[3]['verdict'] == 'not testable' and np.isnan(rows.iloc[3]['ours'])
    assert rows.to_csv(index=False).count('\n') == 5


def test_demo_data_has_no_verdict():
    frame = random_frame(corpora=['demo-emodb', 'demo-savee'])
    svm = frame.assign(experiment='svm')
    rows = claim_rows({'table4.R1.test': frame, 'order.cnn-beats-handbuilt': (frame, svm)}, '08_cnns', 50)
    assert (rows['verdict'] == '').all() and rows['ours'].notna().all()
    assert claim_row('count.chunks', 22_521, corpora=['demo-emodb'])['verdict'] == ''


def test_claims_refuse_what_they_are_not_about():
    frame, other, clip = random_frame(), random_frame(experiment='R2'), random_frame(protocol='clip')
    for message, results in (('is about test', {'table4.R1.test': random_frame(part='train')}),
                             ('none of that name', {'table4.R8.test': frame}),
                             ('share no protocol', {'order.cnn-beats-handbuilt': (frame, clip)}),
                             ('select one', {'table4.R1.test': pd.concat([frame, other])})):
        with pytest.raises(EmonbError, match=message): claim_rows(results, '08_cnns')
    with pytest.raises(EmonbError, match='none of that name'): claim_row('table4.R8.test')
