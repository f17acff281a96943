"The synthetic voice: what is asked for is what is made, in every process."
import os, subprocess, sys, zlib
import numpy as np, pytest
from scipy.signal import sosfilt, sosfreqz
from emonb.core import root
from emonb.synthetic import (filtered, hop, make_voice, prosody, pulses, resonators, segments, syllables, synthesize,
                             vowel)

A, I, U = (730, 1090, 2440), (270, 2290, 3010, 3500), (300, 870)

def line_levels(sound, f0, sample_rate, count):
    "Levels (dB) of the first `count` harmonics, by projection on each."
    t, window = np.arange(len(sound))/sample_rate, np.hanning(len(sound))
    return np.array([20*np.log10(np.abs(np.sum(sound*window*np.exp(-2j*np.pi*k*f0*t)))) for k in range(1, count + 1)])

@pytest.mark.parametrize('sample_rate', [16000, 44100, 48000])
@pytest.mark.parametrize('formants', [A, I, U])
@pytest.mark.parametrize('f0', [80, 133.3, 210, 350])
def test_each_harmonic_has_the_height_that_the_filter_gives_it(f0, formants, sample_rate):
    made = vowel(f0, formants, 1, sample_rate)
    count = int(4000/f0)
    heard = line_levels(made.sound[sample_rate//4:].astype(float), f0, sample_rate, count)
    frequencies = f0*np.arange(1, count + 1)
    _, response = sosfreqz(resonators(np.array([formants], float), sample_rate)[0], frequencies, fs=sample_rate)
    pole = np.exp(-2*np.pi*300/sample_rate)
    response = response*(1 - pole)/(1 - pole*np.exp(-2j*np.pi*frequencies/sample_rate))
    asked = 20*np.log10(np.abs(response))
    strong = asked > asked.max() - 50 # what the window leaks from strong harmonics hides weaker ones
    assert np.ptp((heard - asked)[strong]) < 0.2
    assert made.f0.shape == (100,) and (made.f0 == f0).all() and made.formants.shape == (100, len(formants))
    assert made.sound.dtype == np.float32 and len(made.sound) == sample_rate
    assert np.isclose(np.abs(made.sound).max(), 0.5)

@pytest.mark.parametrize('sample_rate', [16000, 44100])
def test_a_glide_passes_through_every_pitch_asked_for(sample_rate):
    made = vowel(np.linspace(90, 280, 100), A, 1, sample_rate)
    for frame in range(5, 95, 6):
        middle, half = int((frame + 0.5)*hop*sample_rate), int(0.02*sample_rate)
        piece = made.sound[middle - half:middle + half]*np.hanning(2*half)
        r = np.fft.irfft(np.abs(np.fft.rfft(piece, 8*half))**2)[:2*half]
        lowest = int(sample_rate/400)
        lag = lowest + np.argmax(r[lowest:int(sample_rate/70)])
        assert abs(sample_rate/lag/made.f0[frame] - 1) < 0.04

def test_pulses_are_the_sum_of_their_harmonics_while_pitch_moves():
    f0 = np.linspace(300, 330, 4000)
    phase = np.cumsum(f0)/16000
    fitting = 8000/f0
    naive = sum(np.clip(fitting - k + 1, 0, 1)*np.cos(2*np.pi*k*phase) for k in range(1, 28))
    assert np.abs(pulses(f0, 16000) - naive).max() < 1e-6
    assert np.isfinite(pulses(np.full(1600, 100.), 16000)).all() # its phase hits the 0/0 of the closed form

def test_a_filter_that_does_not_change_is_one_filter():
    sound, sections = np.random.default_rng(0).normal(size=16000), resonators(np.full((100, 2), (500, 1500.)), 16000)
    assert np.allclose(filtered(sound, sections, 16000), sosfilt(sections[0], sound))
    nearly = sections.copy()
    nearly[50:, :, 4] += 1e-13 # the halves are run apart now, and the state is carried over
    assert np.allclose(filtered(sound, nearly, 16000), sosfilt(sections[0], sound))

@pytest.mark.parametrize('emotion', list(prosody.index))
@pytest.mark.parametrize('speaker, sex', [('emodb/03', 'm'), ('emodb/08', 'f')])
def test_an_utterance_is_speech_shaped(speaker, sex, emotion):
    made = synthesize('emodb/a05', make_voice(speaker, sex), emotion)
    frames = len(made.f0)
    assert len(made.sound) == frames*160 and made.formants.shape == (frames, 5) and made.sample_rate == 16000
    assert np.isfinite(made.sound).all() and 0.002 < np.abs(made.sound).max() < 1
    assert (np.diff(made.sound) == 0).mean() < 0.001 # no digital silence
    voiced = made.f0[made.f0 > 0]
    assert 0.4 < len(voiced)/frames < 0.9 and voiced.min() > 40 and voiced.max() < 700
    assert (np.diff(made.formants, axis=1) > 0).all() # F1 < F2 < … < F5
    level = 20*np.log10(np.sqrt((made.sound.reshape(-1, 160)**2).mean(1)))
    assert level[:5].max() < level.max() - 15 and level[-5:].max() < level.max() - 15 # it begins and ends in quiet

def test_sample_rates_agree():
    voice = make_voice('savee/DC', 'm')
    low, high = (synthesize('savee/common01', voice, 'anger', sample_rate=rate) for rate in (16000, 48000))
    assert len(high.sound) == 3*len(low.sound) and np.array_equal(low.formants, high.formants)
    below_4k = int(4000*len(low.sound)/16000)
    power = [(np.abs(np.fft.rfft(made.sound)/made.sample_rate)**2)[:below_4k].sum() for made in (low, high)]
    assert abs(10*np.log10(power[0]/power[1])) < 1

def test_a_sentence_belongs_to_nobody():
    assert syllables('emodb/a01') == syllables('emodb/a01') != syllables('emodb/a02')
    assert len({tuple(syllables(f'savee/a{k:02}')) for k in range(1, 16)}) == 15
    slow, fast = segments('emodb/a01', 0.8), segments('emodb/a01', 1.25)
    assert np.allclose(slow.seconds*0.8, fast.seconds*1.25)
    assert slow.drop(columns='seconds').equals(fast.drop(columns='seconds'))

def test_names_alone_decide():
    voice, other = make_voice('emodb/03', 'm'), make_voice('emodb/10', 'm')
    clips = (('emodb/a01', voice, 'fear'), ('emodb/a01', voice, 'fear', 'b'), ('emodb/a02', voice, 'fear'),
             ('emodb/a01', voice, 'anger'), ('emodb/a01', other, 'fear'))
    sounds = [synthesize(*clip).sound.tobytes() for clip in clips]
    assert len(set(sounds)) == 5 and synthesize('emodb/a01', voice, 'fear').sound.tobytes() == sounds[0]

def test_the_same_in_another_process():
    code = ('import zlib; from emonb.synthetic import *\n'
            'print(zlib.crc32(synthesize("emodb/a01", make_voice("emodb/03", "m"), "fear").sound.tobytes()))')
    def run(seed):
        env = dict(os.environ, PYTHONHASHSEED=seed, PYTHONPATH=str(root()))
        return int(subprocess.run([sys.executable, '-c', code], capture_output=True, check=True, env=env).stdout)
    here = zlib.crc32(synthesize('emodb/a01', make_voice('emodb/03', 'm'), 'fear').sound.tobytes())
    assert run('1') == run('2') == here
