"Functionals of odd sounds, no knowledge of the test speaker, and copies that are only learnt from."
import numpy as np, pandas as pd, pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from emonb import yardsticks
from emonb.augmentation import vary
from emonb.paper import emotions


@pytest.mark.parametrize('seconds', [.05, .512, 3, 600])
@pytest.mark.parametrize('kind', ['silence', 'noise', 'tone'])
def test_functionals_of_any_sound_are_finite_and_equally_many(seconds, kind):
    if seconds == 600 and kind != 'tone': pytest.skip('once is enough')
    time = np.arange(round(16000*seconds))/16000
    y = dict(silence=0*time, noise=.1*np.random.default_rng(0).normal(size=len(time)), tone=.3*np.sin(2*np.pi*150*time))[kind].astype(np.float32)
    for shift in yardsticks.shifts if seconds < 600 else [0]:
        values = yardsticks.functionals(yardsticks.descriptors(vary(y, shift)))
        assert values.shape == (1080,) and np.isfinite(values).all()

def test_the_voice_is_measured_as_it_was_made():
    time, rng = np.arange(16000)/16000, np.random.default_rng(0)
    partials = [np.sin(2*np.pi*200*n*time + rng.uniform(0, 6)) for n in range(1, 20)]
    voice = lambda weights, noise=0.: yardsticks.descriptors((.05*sum(w*x for w, x in zip(weights, partials)) + noise*rng.normal(size=16000)).astype(np.float32))[20:80, 68:].mean(axis=0)
    falling = voice([1/n for n in range(1, 20)])
    assert falling[6] == pytest.approx(6, abs=.5) # the second harmonic has half the first one's amplitude
    flat, noisy = voice(np.ones(19)), voice([1/n for n in range(1, 20)], .02)
    assert flat[1] > falling[1] and flat[2] < falling[2] and noisy[0] < falling[0]

def some(speakers=4, seed=0):
    rng = np.random.default_rng(seed)
    y, speaker = np.tile(np.arange(7), 4*speakers), np.repeat([f's{n}' for n in range(speakers)], 28)
    x = rng.normal(size=(len(y), 12)) + 1.5*np.eye(7, 12)[y] + np.repeat(rng.normal(size=(speakers, 12)), 28, axis=0)*np.r_[np.zeros(7), np.full(5, 5.)]
    return x, y, speaker

def test_a_clip_is_named_the_same_alone_and_among_others():
    x, y, speaker = some()
    out = speaker == 's3'
    every, alone = yardsticks.named(x[~out], y[~out], x[out]), yardsticks.named(x[~out], y[~out], x[out][:1])
    assert np.allclose(every.sum(axis=1), 1) and np.allclose(every[:1], alone)

def test_the_classifier_is_scikit_learns_with_a_ridge_and_equal_priors():
    x, y, _ = some()
    keep = np.r_[0:60:1, 61:112:2] # unequal classes
    x, y = x[keep], y[keep]
    ready = np.clip((x - x.mean(axis=0))/(x.std(axis=0) + 1e-9), -2, 2)
    means = np.stack([ready[y == each].mean(axis=0) for each in range(7)])
    covariance = np.cov((ready - means[y]).T, bias=True)
    covariance += 3*np.trace(covariance)/12*np.eye(12)
    model = LinearDiscriminantAnalysis(solver='lsqr', priors=np.full(7, 1/7)).fit(ready, y)
    model.coef_ = np.linalg.solve(covariance, means.T).T
    model.intercept_ = -.5*np.diag(means @ model.coef_.T) + np.log(1/7)
    assert np.allclose(yardsticks.named(x, y, x), model.predict_proba(ready))

def test_an_emotion_that_training_lacks_has_no_probability():
    x, y, _ = some()
    p = yardsticks.named(x[y != 2], y[y != 2], x)
    assert (p[:, 2] == 0).all() and np.allclose(p.sum(axis=1), 1)

def frame_of(y, speaker):
    return pd.DataFrame(dict(corpus='toy', clip=[f'toy/{n}' for n in range(len(y))], emotion=np.array(emotions)[y], speaker=speaker, digest=[f'd{n}' for n in range(len(y))]))

@pytest.mark.parametrize('regime', ['online', 'offline'])
def test_leave_one_speaker_out_predicts_each_clip_once_from_other_speakers_and_never_learns_from_copies_of_the_tested(regime):
    x, y, speaker = some()
    x, clips = np.stack([x, x + .1]), frame_of(y, speaker)
    frame = yardsticks.leave_one_speaker_out(clips, x, regime, 'toy')
    assert frame['clip'].to_list() == clips['clip'].to_list()
    changed = clips.assign(emotion=clips.emotion.where(clips.speaker != 's3', 'anger')) # other labels for one speaker: no matter when that one is tested
    odd = x.copy()
    odd[1, speaker == 's3'] = np.random.default_rng(1).normal(size=odd[1, speaker == 's3'].shape) # nor do its copies
    columns, mine = [column for column in frame if column.startswith('p_')], speaker == 's3'
    for other in (yardsticks.leave_one_speaker_out(changed, x, regime, 'toy'), yardsticks.leave_one_speaker_out(clips, odd, regime, 'toy')):
        assert np.allclose(frame[columns][mine], other[columns][mine]) and not np.allclose(frame[columns][~mine], other[columns][~mine])
    assert len(yardsticks.leave_one_speaker_out(clips, x, regime, 'toy', 2)) == (speaker < 's2').sum()

def test_offline_gives_each_speaker_the_same_mean_and_deviation():
    x, _, speaker = some()
    for each in np.unique(speaker):
        rows = yardsticks.by_speaker(x, speaker)[speaker == each]
        assert np.allclose(rows.mean(axis=0), 0) and np.allclose(rows.std(axis=0), 1)
