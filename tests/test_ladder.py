"The ladder's rungs share ever less, and its table says of what each number is."
import numpy as np, pandas as pd, pytest

from emonb.augmentation import with_variants
from emonb.chunks import chunk_table
from emonb.core import EmonbError
from emonb.evaluation import predicted, predictions
from emonb.ladder import by_seed, fewer, ladder_row, parts_of, plot_ladder, prices, rungs, shared_items
from emonb.paper import emotions

clips = pd.DataFrame([dict(clip=f'c/{speaker}{emotion}{take}', corpus='c', path='', speaker=f's{speaker}', emotion=emotion, sentence=f't{take}',
                           duration=3., sample_rate=16000, samples=48000, digest=f'{speaker}{emotion}{take}')
                      for speaker in range(6) for emotion in emotions[:3] for take in range(4)])
tables = dict(whole=chunk_table(clips), half=chunk_table(clips, .256), copied=chunk_table(with_variants(clips)))

@pytest.fixture(scope='module')
def shared(): return pd.DataFrame({r.label: shared_items(tables[r.chunks], parts_of(r, tables[r.chunks], 1, 1)) for r in rungs}).T

def test_each_rung_closes_a_door(shared):
    rows = shared[['augmented copies, rows', 'overlapping sound, rows', 'clips, rows', 'speakers, rows', 'sentences, rows']].to_numpy() > 0
    assert rows[0].all() and rows[1].tolist() == [False, True, True, True, True] and rows[2].tolist() == [False, False, True, True, True]
    assert [row.tolist().index(True) if row.any() else 5 for row in rows] == [0, 1, 2, 3, 4, 5]

def test_a_row_says_what_it_is_of(shared):
    rng, frames = np.random.default_rng(0), {}
    for rung in rungs[2:]:
        table = tables[rung.chunks]
        made = [predictions('toy', 'test', table.iloc[p.test], rng.dirichlet(np.ones(7), len(p.test)), rung.label, p.seed, p.fold)
                for p in parts_of(rung, table, 2, 2)]
        frames['toy', rung.label] = pd.concat(made)
        row = ladder_row(frames['toy', rung.label], shared.loc[rung.label], 50)
        assert np.isnan([row['speaker_low'], row['speaker_high']]).all()
        assert row['folds'] == 2 and row['seeds'] == 2 and row['accuracy ci_low'] <= row['accuracy'] <= row['accuracy ci_high']
        assert row['accuracy'] == pytest.approx((frames['toy', rung.label].filter(like='p_').to_numpy().argmax(1) ==
                                                 [emotions.index(e) for e in frames['toy', rung.label].emotion]).mean())
        assert np.isfinite([row['fold_sd'], row['seed_sd']]).all() and row['shared clips'] == shared.loc[rung.label, 'clips']
    steps = prices(frames, 50)
    assert steps.above.tolist() == [r.label for r in rungs[2:-1]] and steps.below.tolist() == [r.label for r in rungs[3:]]
    assert (steps.seeds == 2).all() and (steps.corpora == 'c').all() and (steps.n > steps.clips).all()

def test_the_figure_has_a_dash_for_each_seed(shared):
    from matplotlib.figure import Figure
    rng, frames, table = np.random.default_rng(0), {}, tables['whole']
    for model, rung, seeds in (('toy', rungs[3], 3), ('toy', rungs[4], 2), ('other', rungs[3], 1)):
        frames[model, rung.label] = pd.concat([predictions(model, 'test', table, rng.dirichlet(np.ones(7), len(table)), rung.label, seed)
                                               for seed in range(seeds)])
    alone = by_seed(frames)
    assert alone.groupby(['model', 'rung']).size().to_dict() == {('toy', 'clip'): 3, ('toy', 'speaker'): 2, ('other', 'clip'): 1}
    for (model, label), frame in frames.items():
        mine = alone[(alone.model == model) & (alone.rung == label)]
        assert mine.accuracy.mean() == pytest.approx((predicted(frame) == frame.emotion).mean())
    ladder = pd.DataFrame([ladder_row(frame, shared.loc[label], 20) for (_, label), frame in frames.items()])
    ax = Figure().subplots()
    plot_ladder(ladder, alone, {r.label: r.title for r in rungs[3:5]}, ax)
    drawn = [line.get_xydata() for line in ax.lines if line.get_marker() == '_']
    assert sorted(np.concatenate(drawn)[:, 1]) == pytest.approx(sorted(alone.accuracy))
    assert [sorted(np.round(dashes[:, 0])) for dashes in drawn] == [[0, 0, 0, 1, 1], [0]]

def test_an_interval_over_speakers_draws_speakers(shared):
    table = tables['whole']
    right = table.speaker.isin(['s0', 's1', 's2']).to_numpy() # each speaker is known wholly or not at all
    said = np.where(right, table.emotion.map(emotions.index), (table.emotion.map(emotions.index) + 1) % 7)
    row = lambda speakers: ladder_row(predictions('toy', 'test', table, np.eye(7)[said], 'speaker'), shared.loc['speaker'], 500, speakers)
    each = clips.set_index('clip')
    own, alone = row(each.speaker), row(pd.Series(each.index, each.index))
    assert alone['speaker_low'] == alone['accuracy ci_low'] and alone['speaker_high'] == alone['accuracy ci_high']
    assert own['speaker_low'] < own['accuracy ci_low'] < .5 < own['accuracy ci_high'] < own['speaker_high']

def test_fewer_keeps_whole_clips_and_tests_the_same():
    table = tables['whole']
    for part in parts_of(rungs[4], table, 1, 2):
        thin = fewer(part, table, 100)
        names = table['clip'].iloc[thin.train]
        assert set(thin.train) < set(part.train) and 100 <= len(thin.train) < 100 + names.value_counts().max()
        assert np.array_equal(thin.train, np.intersect1d(part.train, np.flatnonzero(table['clip'].isin(names))))
        assert np.array_equal(thin.test, part.test) and np.array_equal(thin.val, part.val)
        assert np.array_equal(fewer(part, table, 10**6).train, part.train)

def test_rungs_without_a_clip_in_common_have_no_price():
    table = tables['whole']
    frame = lambda rows, label: predictions('toy', 'test', rows, np.full((len(rows), 7), 1/7), label)
    steps = prices({('toy', 'a'): frame(table[table.speaker == 's0'], 'a'), ('toy', 'b'): frame(table[table.speaker == 's1'], 'b')}, 50)
    assert steps.value.isna().all()
