"Both feature sets against the definition, librosa and known sounds."
import os
import librosa, numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from scipy.signal import lfilter

from emonb.core import EmonbError
from emonb.features import (_spectral_kernels, bands, bin_width, bins, chunk, chunk_spectrograms, floor, frame_fft, frame_hop,
                            frame_length, handbuilt, handbuilt_names, hop, log_spectrogram, n_fft, sample_rate, shares, windows)

torch.set_num_threads(1)


def pulse_train(f0, samples, sample_rate=sample_rate):
    "All harmonics of `f0` below 4 kHz, weaker by 6 dB an octave, through one resonance: a buzz that has a pitch."
    phase = 2*np.pi*np.cumsum(np.broadcast_to(f0, samples))/sample_rate
    y = sum(np.cos(k*phase)/k for k in range(1, int(4000//np.max(f0)) + 1))
    r, angle = np.exp(-np.pi*80/sample_rate), 2*np.pi*600/sample_rate
    y = lfilter([1], [1, -2*r*np.cos(angle), r*r], y)
    return (0.5*y/np.abs(y).max()).astype('f4')

def speechlike(samples, seed=0):
    "Voice, then hiss far above 2 kHz and stronger than it, then near silence."
    rng = np.random.default_rng(seed)
    y = pulse_train(rng.uniform(80, 300), samples) + 0.0003*rng.standard_normal(samples)
    middle = slice(samples//3, 2*samples//3)
    y[middle] += 0.3*np.diff(rng.standard_normal(samples + 1))[middle]
    y[2*samples//3:] *= 1e-3
    return y.astype('f4')

def tone(f, samples=chunk, amplitude=1.):
    return (amplitude*np.sin(2*np.pi*f*np.arange(samples)/sample_rate)).astype('f4')

def reference(y):
    "Both channels in float64 by librosa."
    kwargs = dict(n_fft=n_fft, hop_length=hop, center=True, pad_mode='constant')
    S = [librosa.stft(y.astype(float), win_length=window, **kwargs)*4/window for window in windows]
    return 0.5*np.log(np.abs(np.array(S)[:, 1:bins + 1])**2 + floor**2)


# the spectrogram

@pytest.mark.filterwarnings('ignore:n_fft')
@pytest.mark.parametrize('samples', [1, 31, 32, 79, 641, 4097, chunk, chunk + 1, 16*1024 + 5, 3*sample_rate])
def test_spectrogram_is_librosas_in_double_precision(samples):
    y = speechlike(max(samples, 9))[:samples]
    ours, theirs = log_spectrogram(y), reference(y)
    assert ours.dtype == torch.float32 and ours.shape == theirs.shape == (2, 256, 1 + samples//hop)
    assert np.abs(ours.numpy() - theirs).max() <= 1e-3

@pytest.mark.data
@pytest.mark.skipif(not os.environ.get('EMONB_DATA'), reason='EMONB_DATA names no corpora')
def test_spectrogram_of_recordings_is_librosas_in_double_precision():
    from emonb.audio import read_audio
    from emonb.data import load_clips
    clips = load_clips(os.environ['EMONB_DATA'])
    for path in clips.groupby('corpus').sample(8, random_state=0, replace=True).path.unique():
        y = read_audio(path)
        assert np.abs(log_spectrogram(y).numpy() - reference(y)).max() <= 1e-3, path

def test_error_in_amplitude_stays_below_a_hundredth_of_the_floor():
    for y in (tone(203.7), tone(1999), speechlike(chunk, 3)): # loud and pure: the hardest for float32
        error = np.abs(log_spectrogram(y).exp().numpy() - np.exp(reference(y)))
        assert error.max() < 2e-6 and (error/np.exp(reference(y)))[np.exp(reference(y)) > 1e-3].max() < 1e-4

@pytest.mark.parametrize('k', [2, 20, 100, 255])
@pytest.mark.parametrize('amplitude', [1, 0.03])
def test_a_tone_reads_its_amplitude_in_its_bin(k, amplitude):
    picture = log_spectrogram(tone(k*bin_width, amplitude=amplitude)).exp().numpy()[:, :, 128]
    assert picture[0].argmax() == k - 1 or k == 2
    assert picture[0, k - 1] == pytest.approx(amplitude, rel=0.01 if k > 10 else 0.5)
    if k >= 100: assert picture[1, k - 1] == pytest.approx(amplitude, rel=0.02)

def test_a_click_lies_in_its_frame():
    y = np.zeros(chunk, 'f4'); y[100*hop] = 1
    assert set(log_spectrogram(y)[1].amax(0).topk(3).indices.tolist()) == {99, 100, 101}

@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 10), st.integers(0, 10**6))
def test_louder_by_a_factor_is_higher_by_its_logarithm(factor, seed):
    y = speechlike(4096, seed)
    low, high = log_spectrogram(y), log_spectrogram((y*factor).astype('f4'))
    far = torch.minimum(low, high) > np.log(floor) + 5
    assert torch.allclose(high[far], low[far] + np.log(factor), atol=2e-3)

def test_silence_is_the_floor():
    assert torch.allclose(log_spectrogram(np.zeros(5000, 'f4')), torch.tensor(np.log(floor)).float())
    assert log_spectrogram(np.zeros(0, 'f4')).shape == (2, 256, 1)


# chunks

@pytest.mark.parametrize('samples, starts', [
    (chunk, [0]),                                                   # exactly one
    (3*chunk, [0, chunk, 2*chunk]), (3*chunk, [0, 4096, 8192, 16384]), # side by side, overlapping
    (3*chunk + 77, [2*chunk + 64, 0, 32, 96, 4096, 4096]),          # any order, any multiple of the hop, twice the same
    (20*chunk, [19*chunk, 0]), (40*chunk, range(0, 39*chunk, 4096))])  # far apart; more than one block
def test_a_chunk_is_a_slice_of_the_whole_in_means_of_four_by_four(samples, starts):
    y = speechlike(samples)
    chunks, whole = chunk_spectrograms(y, starts), log_spectrogram(y)
    assert chunks.shape == (len(starts), 2, 64, 64) and chunks.dtype == torch.float32 and chunks.is_contiguous()
    for picture, i in zip(chunks, np.asarray(starts)//hop):
        assert torch.allclose(picture, whole[:, :, i:i + 256].reshape(2, 64, 4, 64, 4).mean((2, 4)), atol=2e-3)

def test_chunks_see_what_lies_beside_them():
    y = speechlike(3*chunk)
    assert not torch.allclose(chunk_spectrograms(y, [chunk]), chunk_spectrograms(y[chunk:2*chunk], [0]), atol=1e-2)

@pytest.mark.parametrize('features, width', [(chunk_spectrograms, (2, 64, 64)), (handbuilt, (26,))])
def test_no_chunks_no_rows(features, width):
    assert features(np.zeros(10, 'f4'), []).shape == features(np.zeros(0, 'f4'), np.arange(0)).shape == (0, *width)

@pytest.mark.parametrize('features', [chunk_spectrograms, handbuilt])
@pytest.mark.parametrize('kind', [torch.from_numpy, lambda y: y.astype(float), lambda y: torch.from_numpy(y).double()])
def test_any_kind_of_floats_will_do(features, kind):
    y = speechlike(2*chunk)
    for starts in ([0, 4096], range(0, 4097, 4096), np.array([0, 4096], 'i4'), torch.tensor([0, 4096])):
        assert torch.equal(features(kind(y), starts), features(y, [0, 4096]))

@pytest.mark.parametrize('features', [chunk_spectrograms, handbuilt])
@pytest.mark.parametrize('y, starts, problem', [
    (np.zeros((2, chunk), 'f4'), [0], 'shape (2, 8192)'), (np.zeros(chunk, 'i2'), [0], 'int16'),
    (np.full(chunk, np.nan, 'f4'), [0], 'not finite'), (np.full(chunk, np.inf), [0], 'not finite'),
    (np.full(chunk, 20000.), [0], 'full scale'), (np.zeros(chunk, 'f4'), [7], 'multiple of'),
    (np.zeros(chunk, 'f4'), [0.5], 'multiple of'), (np.zeros(chunk, 'f4'), [[0]], 'multiple of'),
    (np.zeros(chunk - 1, 'f4'), [0], '0 is no start'), (np.zeros(2*chunk, 'f4'), [0, 8192 + 256], '8448 is no start'),
    (np.zeros(chunk, 'f4'), [-256], '-256 is no start')])
def test_errors_say_what_is_wrong_in_one_line(features, y, starts, problem):
    with pytest.raises(EmonbError) as error: features(y, starts)
    assert problem in str(error.value) and '\n' not in str(error.value)

def test_torchs_precision_settings_change_nothing():
    y, before = speechlike(2*chunk), torch.get_float32_matmul_precision()
    exact = log_spectrogram(y)
    try:
        torch.set_float32_matmul_precision('medium')
        assert torch.allclose(log_spectrogram(y), exact, atol=1e-4)
    finally: torch.set_float32_matmul_precision(before)

def test_threads_give_what_one_thread_gives():
    from concurrent.futures import ThreadPoolExecutor
    ys = [speechlike(2*chunk, seed) for seed in range(8)]
    work = lambda y: chunk_spectrograms(y, [0, 4096, 8192])
    with ThreadPoolExecutor(4) as threads: together = list(threads.map(work, ys))
    assert all(torch.allclose(a, work(y), atol=1e-4) for a, y in zip(together, ys))

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
@pytest.mark.parametrize('precision', ['highest', 'medium'])
def test_a_gpu_gives_what_the_processor_gives(precision):
    y, starts = speechlike(5*chunk), range(0, 4*chunk, 4096)
    try:
        torch.set_float32_matmul_precision(precision)
        on_gpu = torch.from_numpy(y).cuda()
        assert np.abs(log_spectrogram(on_gpu).cpu().numpy() - reference(y)).max() <= 1e-3
        assert torch.allclose(chunk_spectrograms(on_gpu, starts).cpu(), chunk_spectrograms(y, starts), atol=1e-3)
        assert torch.allclose(handbuilt(on_gpu, starts).cpu(), handbuilt(y, starts), rtol=1e-3, atol=1e-2)
    finally: torch.set_float32_matmul_precision('highest')


# the hand-built features

def measured(y, start=0): return dict(zip(handbuilt_names, handbuilt(y, [start])[0].tolist()))

@pytest.fixture(scope='module')
def frames():
    "32 frames of a sound and the features of its second chunk, which they make up."
    y = speechlike(4*chunk)
    padded = y[chunk - (frame_length - frame_hop)//2:][:31*frame_hop + frame_length]
    return np.lib.stride_tricks.sliding_window_view(padded, frame_length)[::frame_hop].T.astype(float), measured(y, chunk)

@pytest.fixture(scope='module')
def magnitude(frames):
    hann = librosa.filters.get_window('hann', frame_length)
    return np.abs(np.fft.rfft(frames[0]*hann[:, None], frame_fft, axis=0))*np.sqrt(2/frame_fft/(hann**2).sum())

def test_there_are_26_with_names_of_their_own(): assert len(handbuilt_names) == len(set(handbuilt_names)) == 26

def test_loudness_and_crossings_are_librosas(frames):
    ours, kwargs = frames[1], dict(y=frames[0].T.reshape(-1), frame_length=frame_length, hop_length=frame_length, center=False)
    assert ours['rms'] == pytest.approx(librosa.feature.rms(**kwargs).mean(), rel=1e-4)
    rate = librosa.feature.zero_crossing_rate(**kwargs).mean()*sample_rate*640/639 # librosa divides by samples, not by pairs
    assert ours['zero crossings'] == pytest.approx(rate, rel=1e-5)

def test_centroid_and_rolloff_are_librosas(frames, magnitude):
    ours, kwargs = frames[1], dict(S=magnitude, sr=sample_rate, n_fft=frame_fft)
    assert ours['centroid'] == pytest.approx(librosa.feature.spectral_centroid(**kwargs).mean(), rel=1e-3)
    for share in shares:
        theirs = librosa.feature.spectral_rolloff(**kwargs, roll_percent=share).mean()
        assert ours[f'roll-off {share:.0%}'] == pytest.approx(theirs, abs=sample_rate/frame_fft/2)

def test_mel_filters_and_mfcc_are_librosas(frames, magnitude):
    filters = librosa.filters.mel(sr=sample_rate, n_fft=frame_fft, n_mels=40, htk=True, norm=None)
    assert np.allclose(_spectral_kernels(torch.device('cpu'))[2].to_dense()[:40], filters, atol=1e-5)
    levels = librosa.power_to_db(filters @ magnitude**2, amin=1e-10, top_db=None)
    theirs = librosa.feature.mfcc(S=levels, n_mfcc=13).mean(1)
    assert np.allclose([frames[1][f'mfcc {i}'] for i in range(13)], theirs, atol=0.02)

@pytest.mark.parametrize('band', bands)
def test_the_level_of_a_tone_is_in_its_band(band):
    low, high = band
    ours = measured(tone((low + high)/2, 2*chunk, 0.1), 4096)
    levels = {other: ours[f'band {other[0]}-{other[1]} Hz'] for other in bands}
    assert max(levels, key=levels.get) == band and levels[band] == pytest.approx(10*np.log10(0.1**2/2), abs=0.1)
    assert ours['rms'] == pytest.approx(0.1/np.sqrt(2), rel=0.01)
    assert ours['centroid'] == pytest.approx((low + high)/2, rel=0.1)
    assert ours['zero crossings'] == pytest.approx(low + high, rel=0.01)

@pytest.mark.parametrize('f0', [55, 70, 100, 137.3, 180, 256, 333, 470])
def test_pitch_of_a_buzz(f0):
    y = pulse_train(f0, 3*chunk)
    assert measured(y, chunk)['pitch'] == pytest.approx(f0, rel=0.005)
    noisy = y + 0.02*np.random.default_rng(0).standard_normal(len(y)).astype('f4')
    assert measured(noisy, chunk)['pitch'] == pytest.approx(f0, rel=0.02)

def test_pitch_of_a_glide_is_that_of_the_middle_of_the_chunk():
    y = pulse_train(np.linspace(120, 240, 3*chunk), 3*chunk)
    assert measured(y, chunk)['pitch'] == pytest.approx(180, rel=0.02)

def test_noise_and_silence_have_no_pitch_and_a_chunk_half_silent_has_that_of_its_voice():
    noise = 0.1*np.random.default_rng(0).standard_normal(chunk).astype('f4')
    assert measured(noise)['pitch'] == measured(np.zeros(chunk, 'f4'))['pitch'] == 0
    y = np.concatenate([pulse_train(150, chunk//2), np.zeros(chunk//2, 'f4')])
    hum = y + tone(50, amplitude=1e-3)
    assert measured(y)['pitch'] == pytest.approx(150, rel=0.01) and measured(hum)['pitch'] == pytest.approx(150, rel=0.01)

@settings(max_examples=20, deadline=None)
@given(st.floats(15, 2000), st.floats(0, 0.1), st.integers(0, 1000))
def test_pitch_lies_in_its_range_or_is_0(f, noise, seed):
    y = tone(f, amplitude=0.3) + (noise*np.random.default_rng(seed).standard_normal(chunk)).astype('f4')
    pitch = measured(y)['pitch']
    assert pitch == 0 or 49 < pitch < 516
    if f < 20 and noise < 0.001: assert pitch == 0 # slower than any voice

@pytest.mark.parametrize('y', [np.zeros(chunk), np.full(chunk, 0.5), np.full(chunk, 1e-30), np.eye(1, chunk, 4000)[0],
                               tone(60, amplitude=1e-9), tone(500, amplitude=100), np.sign(tone(60))*100])
def test_every_value_is_finite(y):
    y = y.astype('f4')
    assert torch.isfinite(handbuilt(y, [0])).all() and torch.isfinite(chunk_spectrograms(y, [0])).all()

@settings(max_examples=10, deadline=None)
@given(st.floats(0.02, 1), st.integers(0, 1000))
def test_loudness_changes_only_what_measures_loudness(factor, seed):
    noise = np.random.default_rng(seed).standard_normal(chunk).astype('f4')
    y = pulse_train(150, chunk) + 0.01*noise # so that no level is near its lower limit
    a, b = measured(y), measured((factor*y).astype('f4'))
    assert b['rms'] == pytest.approx(factor*a['rms'], rel=1e-4)
    for name in ('zero crossings', 'centroid', 'roll-off 50%', 'mfcc 3', 'pitch'):
        assert b[name] == pytest.approx(a[name], rel=1e-2, abs=0.1)
    assert b['band 200-800 Hz'] == pytest.approx(a['band 200-800 Hz'] + 20*np.log10(factor), abs=0.01)

def test_rows_of_many_chunks_are_those_of_each_alone_and_of_any_block():
    y, starts = speechlike(50*chunk), [49*chunk, 0, 256, 4096, 20*chunk]
    together = handbuilt(y, starts)
    assert torch.allclose(together, torch.cat([handbuilt(y, [start]) for start in starts]), rtol=1e-3, atol=1e-2)
