"Functionals of odd sounds, no knowledge of the test speaker, and the choice that sees only the others."
import numpy as np, pandas as pd, pytest

from emonb import yardsticks
from emonb.paper import emotions


@pytest.mark.parametrize('seconds', [.05, .512, 3, 600])
@pytest.mark.parametrize('kind', ['silence', 'noise', 'tone'])
def test_functionals_of_any_sound_are_finite_and_equally_many(seconds, kind):
    if seconds == 600 and kind != 'tone': pytest.skip('once is enough')
    time = np.arange(round(16000*seconds))/16000
    y = dict(silence=0*time, noise=.1*np.random.default_rng(0).normal(size=len(time)), tone=.3*np.sin(2*np.pi*150*time))[kind].astype(np.float32)
    values = yardsticks.functionals(yardsticks.descriptors(y))
    assert values.shape == (822,) and np.isfinite(values).all()

def some(speakers=4, seed=0):
    rng = np.random.default_rng(seed)
    y, speaker = np.tile(np.arange(7), 4*speakers), np.repeat([f's{n}' for n in range(speakers)], 28)
    x = rng.normal(size=(len(y), 12)) + 1.5*np.eye(7, 12)[y] + np.repeat(rng.normal(size=(speakers, 12)), 28, axis=0)*np.r_[np.zeros(7), np.full(5, 5.)]
    return x, y, speaker

def test_test_speakers_say_nothing_about_anything_but_themselves():
    x, y, speaker = some()
    out = speaker == 's3'
    first = yardsticks.all_fitted(x[~out], y[~out], speaker[~out], x[out])
    alone = yardsticks.all_fitted(x[~out], y[~out], speaker[~out], x[out][:1]) # a clip by itself is named as it is among others
    for name in first:
        assert np.allclose(first[name].sum(axis=1), 1) and np.allclose(first[name][:1], alone[name])

def test_numbers_in_which_speakers_differ_weigh_less():
    x, y, speaker = some()
    ready, _ = yardsticks.scaled(x, speaker, x)
    assert ready[:, 7:].std(axis=0).max() < ready[:, :7].std(axis=0).min()

def test_leave_one_speaker_out_predicts_each_clip_once_and_chooses_without_the_test_speaker(tmp_path, monkeypatch):
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path))
    x, y, speaker = some()
    clips = pd.DataFrame(dict(corpus='toy', clip=[f'toy/{n}' for n in range(len(y))], emotion=np.array(emotions)[y], speaker=speaker, digest=[f'd{n}' for n in range(len(y))]))
    frame, chosen = yardsticks.leave_one_speaker_out(clips, x, 'online', 'toy')
    assert frame['clip'].to_list() == clips['clip'].to_list() and chosen.speaker.to_list() == ['s0', 's1', 's2', 's3']
    changed = clips.assign(emotion=clips.emotion.where(clips.speaker != 's3', 'anger')) # other labels for one speaker: no matter when that one is tested
    other, again = yardsticks.leave_one_speaker_out(changed, x, 'online', 'toy')
    columns = [column for column in frame if column.startswith('p_')]
    assert np.allclose(frame[columns][speaker == 's3'], other[columns][speaker == 's3'])
    assert (chosen.iloc[3][['chosen', 'inner']] == again.iloc[3][['chosen', 'inner']]).all()
    two, _ = yardsticks.leave_one_speaker_out(clips, x, 'online', 'toy', 2)
    assert len(two) == (speaker < 's2').sum()

def test_offline_gives_each_speaker_the_same_mean_and_deviation():
    x, _, speaker = some()
    for each in np.unique(speaker):
        rows = yardsticks.by_speaker(x, speaker)[speaker == each]
        assert np.allclose(rows.mean(axis=0), 0) and np.allclose(rows.std(axis=0), 1)
