"Streams in pieces, recognizer files that are wrong, and recordings of every kind."
import csv, dataclasses, io, json, os, sys, types
from pathlib import Path

import av, numpy as np, pandas as pd, pytest, soundfile as sf, torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import save_file

import emonb.recognizer
from emonb.audio import read_audio
from emonb.chunks import Chunks
from emonb.cnns import build, specs
from emonb.core import EmonbError
from emonb.demo import open_corpora
from emonb.evaluation import probability_columns
from emonb.features import chunk, chunk_spectrograms, log_spectrogram
from emonb.lstm import ClipLSTM
from emonb.paper import emotions
from emonb.predict import _spectrogram, files_in, listen_command, predict_command, recognise, record, show
from emonb.recognizer import (Chunkwise, Clipwise, Context, Recognizer, _answered, _learnt, _statistics, _trusted, advance, calibration_error,
                              calibration_interval, find_recognizer, fit_temperature, fit_threshold, hop, load_recognizer, posterior, standalone, train_command, train_recognizer, with_lstm)
from emonb.protocols import split
from emonb.streaming import Stream, enough, listen, microphone
from emonb.synthetic import make_voice, synthesize
from emonb.training import Settings, read_checkpoint, standardised, write_checkpoint


@pytest.fixture(scope='module', params=[Chunkwise, Clipwise])
def recognizer(request):
    torch.manual_seed(0); torch.set_num_threads(1)
    network = request.param(32, 64).eval()
    network.mean.fill_(-6); network.deviation.fill_(2)
    return Recognizer(network, .3, .2, dict(network='untrained', corpora={}))

def talk(rate):
    said = synthesize('test/a01', make_voice('test/1', 'f'), 'anger', sample_rate=rate).sound
    return np.concatenate([said, np.zeros(int(1.7*rate)), said[::-1]]).astype(np.float32)

def run(recognizer, sound, rate, cuts):
    stream = Stream(recognizer, rate)
    moments = [m for piece in np.split(sound, sorted(cuts)) for m in stream.push(piece)] + stream.finish()
    return moments, stream.answer


# streaming

sounds = {rate: talk(rate) for rate in (8000, 16000, 22050, 44100, 48000)}

@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(sounds)), st.data())
def test_pieces_of_any_size_give_the_same(recognizer, rate, data):
    sound = sounds[rate]
    cuts = data.draw(st.lists(st.integers(0, len(sound)), max_size=60))
    whole, answer = run(recognizer, sound, rate, [])
    pieces, other = run(recognizer, sound, rate, cuts)
    assert [(m.start, m.end, m.emotion, m.trusted) for m in whole] == [(m.start, m.end, m.emotion, m.trusted) for m in pieces]
    for a, b in zip((*whole, answer), (*pieces, other)):
        if a.posterior is not None: np.testing.assert_allclose(a.posterior, b.posterior, atol=1e-5)

def test_one_sample_at_a_time(recognizer):
    sound = sounds[16000][:chunk + 2*hop + 7]
    whole, pieces = run(recognizer, sound, 16000, []), run(recognizer, sound, 16000, range(1, len(sound)))
    assert len(whole[0]) == len(pieces[0]) == 3
    np.testing.assert_allclose(whole[1].posterior, pieces[1].posterior, atol=1e-5)

def test_a_stream_is_what_the_features_and_the_network_make_of_the_file(recognizer, tmp_path):
    sf.write(tmp_path/'a.wav', sounds[44100][:90_000], 44100, subtype='FLOAT')
    sound = read_audio(tmp_path/'a.wav')
    logs, _ = recognizer.step(recognizer.units(chunk_spectrograms(sound, np.arange(0, len(sound) - chunk + 1, hop))))
    expected = posterior(logs.mean(axis=0), recognizer.temperature)
    np.testing.assert_allclose(recognise(recognizer, tmp_path/'a.wav').answer.posterior, expected, atol=1e-5)

@pytest.mark.parametrize('n, moments', [(0, 0), (chunk - 1, 0), (chunk, 1), (chunk + hop - 1, 1), (chunk + hop, 2)])
def test_lengths_at_the_edge(recognizer, n, moments):
    found, answer = run(recognizer, sounds[16000][3000:3000 + n], 16000, [])
    assert len(found) == moments and bool(answer.doubt) and (answer.posterior is None) == (moments == 0)

def test_silence_is_silence(recognizer):
    found, answer = run(recognizer, np.zeros(40_000, np.float32), 16000, [])
    assert {m.emotion for m in found} == {'silence'} and answer.doubt == 'silence' and answer.emotion == 'silence'
    assert not any(m.trusted for m in found)

@pytest.mark.parametrize('threshold', [1e-3, .22, 1.])
def test_trust_is_the_bound_and_a_second_of_speech(recognizer, threshold):
    found, answer = run(dataclasses.replace(recognizer, threshold=threshold), sounds[16000], 16000, [])
    utterance = 0
    for m in found:
        utterance = 0 if m.posterior is None else utterance + 1 # the pause in `talk` ends the first one
        assert m.trusted == (utterance >= enough and m.confidence >= threshold)
    assert answer.doubt == ('' if answer.confidence >= threshold else 'not sure')
    short = run(dataclasses.replace(recognizer, threshold=1e-3), sounds[16000][4000:4000 + chunk + (enough - 2)*hop], 16000, [])[1]
    assert short.heard == enough - 1 and short.doubt == 'less than a second was heard'

def test_a_pause_ends_an_utterance(recognizer):
    found, _ = run(recognizer, sounds[16000], 16000, [])
    first = [i for i in range(1, len(found)) if found[i].posterior is not None and found[i - 1].posterior is None][-1]
    spectrograms = chunk_spectrograms(sounds[16000], [round(m.start*16000) for m in found[first:]])
    alone, _ = recognizer.step(recognizer.units(spectrograms)) # as if nothing had been before
    np.testing.assert_allclose(found[-1].posterior, posterior(alone.mean(axis=0), recognizer.temperature), atol=1e-5)
    assert not found[first].trusted and not found[first + 1].trusted # context begins anew
    context = advance(advance(Context(), np.log(np.full(7, 1/7))), None)
    assert context.count == 1 and advance(advance(advance(context, None), None), None).count == 0

def test_channels_and_integers(recognizer):
    sound = sounds[16000][:20_000]
    whole = run(recognizer, sound, 16000, [])[1].posterior
    stream = Stream(recognizer); stream.push(np.stack([sound, sound], 1)); stream.finish()
    np.testing.assert_allclose(stream.answer.posterior, whole, atol=1e-5)
    stream = Stream(recognizer); stream.push((sound*32768).round().astype(np.int16)); stream.finish()
    np.testing.assert_allclose(stream.answer.posterior, whole, atol=.05)

@pytest.mark.parametrize('bad', [np.array([np.nan]*9), np.full(9, np.inf), np.full(9, 1e9), np.zeros((3, 3, 3)), np.array(['a'])])
def test_what_is_no_sound_leaves_the_stream_as_it_was(recognizer, bad):
    stream, sound = Stream(recognizer, 48000), sounds[48000]
    moments = stream.push(sound[:70_000])
    with pytest.raises(EmonbError): stream.push(bad)
    moments += stream.push(sound[70_000:]) + stream.finish()
    np.testing.assert_array_equal(stream.answer.posterior, run(recognizer, sound, 48000, [70_000])[1].posterior)

def test_rates(recognizer):
    for rate in (0, -1, 100, 10**6):
        with pytest.raises(EmonbError): Stream(recognizer, rate)

def test_memory_stays(recognizer):
    stream = Stream(recognizer)
    for _ in range(200): stream.push(sounds[16000][:chunk])
    assert len(stream._sound) < chunk + hop + 2*320

class Loudspeaker: # of a sounddevice that hears `sounds`
    def __init__(self, rate, size, device, channels, dtype, callback): self.rate, self.size, self.callback = rate, size, callback
    def __enter__(self): [self.callback(sounds[16000][at:at + self.size, None]) for at in range(0, 40*self.size, self.size)]
    def __exit__(self, *_): pass

@pytest.fixture
def sounddevice(monkeypatch):
    fake = types.SimpleNamespace(InputStream=Loudspeaker, PortAudioError=type('PortAudioError', (Exception,), {}))
    monkeypatch.setitem(sys.modules, 'sounddevice', fake)
    return fake

def test_a_microphone_is_heard_and_recorded(recognizer, sounddevice, tmp_path, monkeypatch):
    monkeypatch.setattr('emonb.streaming.time.monotonic', iter(np.arange(0, 99, .064)).__next__)
    heard = np.concatenate(list(microphone(seconds=1.)))
    assert np.array_equal(heard, sounds[16000][:len(heard)]) and .9 < len(heard)/16000 < 1.1
    file = record(tmp_path/'me.wav', 2)
    np.testing.assert_allclose(recognise(recognizer, file).answer.posterior, run(recognizer, sounds[16000][:32768], 16000, [])[1].posterior, atol=.02)

def test_listen_command(recognizer, sounddevice, tmp_path, monkeypatch, capsys):
    recognizer.save(tmp_path/'r.safetensors')
    monkeypatch.setattr('emonb.streaming.time.monotonic', iter(np.arange(0, 99, .064)).__next__)
    assert listen_command(tmp_path/'r.safetensors', seconds=2) == 0
    assert ' in 2.' in capsys.readouterr().out.splitlines()[-1]

def test_no_microphone_is_one_line(sounddevice, monkeypatch):
    def none(*_, **__): raise sounddevice.PortAudioError('no device')
    sounddevice.InputStream = none
    with pytest.raises(EmonbError, match='no device; plug one in'): next(microphone())
    monkeypatch.setitem(sys.modules, 'sounddevice', None) # as where it is not installed
    with pytest.raises(EmonbError, match=r'emonb\[live\]'): next(microphone())

def test_the_live_view(recognizer):
    class Terminal(io.StringIO):
        def isatty(self): return True
    listen(recognizer, np.array_split(sounds[16000], 99), 16000, plain := io.StringIO())
    listen(recognizer, np.array_split(sounds[16000], 99), 16000, terminal := Terminal())
    assert 'silence\n' in plain.getvalue() and '\x1b' not in plain.getvalue() and plain.getvalue().count('\n') > 9
    assert terminal.getvalue().count('\r') == plain.getvalue().count('\n') and terminal.getvalue().count('\n') == 1


# recognizer files

def test_a_file_holds_it_all(recognizer, tmp_path):
    recognizer.save(tmp_path/'r.safetensors')
    again, x = load_recognizer(tmp_path/'r.safetensors'), torch.randn(3, 2, 64, 64)
    assert torch.equal(again.network(x), recognizer.network(x))
    assert (again.temperature, again.threshold, again.about) == (recognizer.temperature, recognizer.threshold, recognizer.about)

def refused(path):
    with pytest.raises(EmonbError) as error: load_recognizer(path)
    assert '\n' not in str(error.value) and path.name in str(error.value)

@pytest.mark.fault('a recognizer file with a flipped bit, or cut off', 30)
@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7), st.booleans())
def test_one_bit_or_a_cut(recognizer, tmp_path_factory, where, bit, cut):
    path = tmp_path_factory.mktemp('r')/'r.safetensors'
    recognizer.save(path)
    content = bytearray(path.read_bytes())
    at = int(where*min(len(content), 4000 if bit % 2 else len(content))) # the header is short: aim at it half the time
    if cut: del content[at:]
    else: content[at] ^= 1 << bit
    path.write_bytes(content)
    refused(path)

@pytest.mark.fault('a recognizer file that holds something else')
@pytest.mark.parametrize('change', [dict(kind='x'), dict(emotions=emotions[:6]), dict(temperature=0.), dict(temperature='1'), dict(threshold=float('nan')),
                                    dict(about=3), dict(hop=1)])
def test_a_whole_file_with_wrong_notes(recognizer, tmp_path, change):
    recognizer.save(path := tmp_path/'r.safetensors')
    tensors, notes = read_checkpoint(path)
    write_checkpoint(path, tensors, {**notes, **change})
    refused(path)

@pytest.mark.fault('a recognizer file that holds something else')
@pytest.mark.parametrize('change', [dict(mean=torch.zeros(3)), {'filters.weight': torch.zeros(10**6, 0, 5)}, {'hidden.weight': torch.zeros(2, 2)},
                                    {'filters.bias': torch.full((32,), torch.nan)}, {'deviation': torch.ones((), dtype=torch.float64)}, {'more': torch.ones(1)},
                                    {'lstm.weight_ih_l0': torch.zeros(256, 0)}, {'lstm.weight_hh_l0': torch.zeros(3, 3)}, {'hidden.weight': torch.zeros(10**7, 0)}])
def test_a_whole_file_with_wrong_tensors(recognizer, tmp_path, change):
    recognizer.save(path := tmp_path/'r.safetensors')
    tensors, notes = read_checkpoint(path)
    write_checkpoint(path, {**tensors, **change}, notes)
    refused(path)

@pytest.mark.fault('a recognizer file that holds something else', 7)
def test_other_files(tmp_path):
    for name, content in dict(empty=b'', pickle=b'\x80\x04\x95cos\nsystem\n', huge=(2**62).to_bytes(8, 'little') + b'{}', text=b'hello').items():
        (tmp_path/name).write_bytes(content)
        refused(tmp_path/name)
    save_file(dict(a=torch.ones(1)), tmp_path/'plain')
    refused(tmp_path/'plain'); refused(tmp_path); refused(tmp_path/'none')

def test_no_recognizer_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.setenv('EMONB_RUNS', str(tmp_path))
    with pytest.raises(EmonbError, match='emonb train'): find_recognizer()
    (tmp_path/'smoke-demo').mkdir(); (tmp_path/'smoke-demo'/'recognizer.safetensors').touch()
    with pytest.raises(EmonbError, match='no recognizer in runs but runs/smoke-demo/recognizer.safetensors, which has only heard made-up voices; make one'): find_recognizer()


# recordings

def write(path, sound, rate, codec):
    with av.open(str(path), 'w') as container:
        track = container.add_stream(codec, rate=rate, layout='stereo')
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(np.stack([sound, sound])), format='fltp', layout='stereo')
        frame.sample_rate = rate
        wanted = av.AudioResampler(format=track.codec_context.format or 'fltp', layout='stereo', rate=rate)
        for part in (*wanted.resample(frame), *wanted.resample(None)): container.mux(track.encode(part))
        container.mux(track.encode(None))

@pytest.fixture(scope='module')
def folder(tmp_path_factory, recognizer):
    place = tmp_path_factory.mktemp('recordings')
    sound = synthesize('test/a01', make_voice('test/1', 'f'), 'anger', sample_rate=44100).sound.astype(np.float32)
    for name in ('a.wav', 'b.flac', 'c.mp3'): sf.write(place/name, np.stack([sound, sound], 1), 44100)
    for name, codec in {'d.avi': 'pcm_s16le', 'e.flv': 'aac', 'sub/f.mp4': 'aac'}.items():
        (place/name).parent.mkdir(exist_ok=True)
        write(place/name, sound, 44100, codec)
    (place/'broken.wav').write_bytes(b'RIFF')
    recognizer.save(place/'r.safetensors')
    return place

def test_six_kinds_of_file(recognizer, folder):
    exact = recognise(recognizer, folder/'a.wav').answer.posterior
    for name, apart in {'b.flac': 1e-3, 'd.avi': 1e-3, 'c.mp3': .1, 'e.flv': .15, 'sub/f.mp4': .15}.items():
        assert np.abs(recognise(recognizer, folder/name).answer.posterior - exact).max() < apart, name

@pytest.mark.parametrize('name', ['a.wav', 'b.flac', 'c.mp3', 'd.avi', 'e.flv', 'sub/f.mp4'])
def test_the_command_takes_each_kind(folder, tmp_path, capsys, name):
    out = dict(csv=tmp_path/'x.csv', json=tmp_path/'x.json', picture=tmp_path/'x.png')
    assert predict_command(folder/name, folder/'r.safetensors', **out) == 0
    said, = json.loads(out['json'].read_text())
    assert Path(name).name in capsys.readouterr().out and said['emotion'] in emotions and len(pd.read_csv(out['csv'])) == len(said['moments']) > 3
    assert out['picture'].read_bytes().startswith(b'\x89PNG')

def test_predict_a_folder(folder, tmp_path, capsys):
    status = predict_command(folder, folder/'r.safetensors', csv=tmp_path/'t.csv', json=tmp_path/'t.json')
    said = capsys.readouterr()
    assert status == 1 and said.err.count('\n') == 1 and 'broken.wav' in said.err
    assert said.out.splitlines()[-1] == '6 files, 1 could not be used'
    found = json.loads((tmp_path/'t.json').read_text())
    rows = list(csv.DictReader(open(tmp_path/'t.csv')))
    assert [Path(each['file']).name for each in found] == ['a.wav', 'b.flac', 'c.mp3', 'd.avi', 'e.flv', 'f.mp4']
    assert len(rows) == sum(len(each['moments']) for each in found) and float(rows[0]['p_anger']) == found[0]['moments'][0]['posterior']['anger']
    assert all(abs(sum(each['posterior'].values()) - 1) < 1e-3 for each in found)

def test_predict_one_file_standard_input_and_an_unknown_ending(folder, tmp_path, monkeypatch, capsys):
    model = folder/'r.safetensors'
    assert predict_command(folder/'a.wav', model, csv='-') == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].startswith('file,start,end')
    (tmp_path/'x.bin').write_bytes((folder/'b.flac').read_bytes())
    assert predict_command(tmp_path/'x.bin', model) == 0
    for file in ('a.wav', 'b.flac', 'e.flv'):
        monkeypatch.setattr('sys.stdin', type('In', (), dict(buffer=open(folder/file, 'rb'))))
        assert predict_command('-', model) == 0 and 'standard input' in capsys.readouterr().out

def test_files_that_are_none(folder, tmp_path, monkeypatch, capsys):
    model = folder/'r.safetensors'
    (tmp_path/'x.bin').write_bytes(b'hello'*100)
    for path in (tmp_path/'x.bin', tmp_path/'none.wav', tmp_path/'none', folder/'broken.wav'):
        assert predict_command(path, model) == 1 and capsys.readouterr().err.count('\n') == 1
    monkeypatch.setattr('sys.stdin', type('In', (), dict(buffer=io.BytesIO(b''))))
    assert predict_command('-', model) == 1
    with pytest.raises(EmonbError, match='no sound or video'): files_in(tmp_path)

def test_pictures(folder, tmp_path):
    assert predict_command(folder/'a.wav', folder/'r.safetensors', picture=tmp_path/'a.png') == 0
    assert (tmp_path/'a.png').read_bytes().startswith(b'\x89PNG')

@pytest.mark.parametrize('sound', [np.zeros(30_000), np.zeros(40), sounds[16000][3000:3000 + chunk]], ids=['silence', 'forty samples', 'one chunk'])
def test_whatever_is_said_can_be_drawn_and_written(folder, tmp_path, sound, capsys):
    sf.write(tmp_path/'x.wav', sound, 16000)
    assert predict_command(tmp_path/'x.wav', folder/'r.safetensors', csv=tmp_path/'x.csv', json=tmp_path/'x.json', picture=tmp_path/'x.png') == 0
    said, = json.loads((tmp_path/'x.json').read_text())
    assert said['trusted'] is False and said['doubt'] in capsys.readouterr().out and (said['posterior'] is None) == (said['emotion'] == 'silence')
    assert len(pd.read_csv(tmp_path/'x.csv')) == len(said['moments']) and (tmp_path/'x.png').stat().st_size > 1000

def test_a_long_recording_is_drawn_in_pieces():
    sound = np.tile(sounds[16000], 60) # five minutes
    drawn = _spectrogram(sound)
    assert 2000 <= drawn.shape[1] <= 2100 and drawn.shape[0] == 256 and np.isfinite(drawn).all()
    np.testing.assert_allclose(_spectrogram(sounds[16000]), log_spectrogram(sounds[16000])[0, :, 4::8], atol=1e-4)

def test_a_notebook_hears_and_sees(recognizer, folder, capsys):
    assert len(show(folder/'a.wav', recognizer).axes) == 3 and len(show(folder/'e.flv', folder/'r.safetensors').axes) == 3
    said = capsys.readouterr().out
    assert said.count('Audio') == 2 and said.count(' s') >= 2

def test_what_is_wrong_with_the_sound_is_told_with_the_name_of_the_file(recognizer, tmp_path):
    sf.write(tmp_path/'loud.wav', np.full(9000, 5000.), 16000, subtype='FLOAT')
    sf.write(tmp_path/'nan.wav', np.full(9000, np.nan), 16000, subtype='FLOAT')
    sf.write(tmp_path/'slow.wav', np.ones(900), 100)
    sf.write(tmp_path/'empty.wav', np.ones(0), 16000)
    for name in ('loud', 'nan', 'slow', 'empty'):
        with pytest.raises(EmonbError, match=f'{name}.wav: '): recognise(recognizer, tmp_path/f'{name}.wav')

@pytest.mark.data
@pytest.mark.skipif(not list(Path(os.environ.get('EMONB_DATA') or 'nowhere').rglob('VideoFlash/*.flv')), reason='needs clips of CREMA-D')
def test_real_films(recognizer, tmp_path, capsys):
    recognizer.save(tmp_path/'r.safetensors')
    films = sorted(Path(os.environ['EMONB_DATA']).rglob('VideoFlash/*.flv'))[:6]
    for film in films:
        assert predict_command(film, tmp_path/'r.safetensors', csv=tmp_path/'x.csv', json=tmp_path/'x.json', picture=tmp_path/'x.png') == 0
        said, = json.loads((tmp_path/'x.json').read_text())
        heard = [m for m in said['moments'] if m['posterior']]
        assert film.name in capsys.readouterr().out and 1 < said['seconds'] < 6 and len(heard) >= 3
        assert abs(sum(said['posterior'].values()) - 1) < 1e-3 and len(pd.read_csv(tmp_path/'x.csv')) == len(said['moments'])
        (tmp_path/'same.bin').write_bytes(film.read_bytes())
        np.testing.assert_allclose(recognise(recognizer, tmp_path/'same.bin').answer.posterior, recognise(recognizer, film).answer.posterior, atol=1e-5)


# calibration and training

def test_calibration_by_hand():
    logs = np.log(np.array([[.7, .3 - 5e-6, *[1e-6]*5]]*10))
    truth = np.array([0]*9 + [1]) # right nine times in ten: .7 is too modest, so the temperature is below 1
    temperature = fit_temperature(logs, truth)
    assert temperature < 1 and abs(posterior(logs, temperature)[0, 0] - .9) < .02
    confidence, right = np.array([.9, .8, .7, .6, .5]), np.array([1, 1, 0, 0, 0], bool)
    assert fit_threshold(confidence, right) == .8 and fit_threshold(confidence, ~right) == .5 and fit_threshold(confidence, right & False) == 1.
    assert calibration_error(np.array([.95, .95, .15]), np.array([1, 0, 0], bool)) == pytest.approx((2*.45 + .15)/3)
    assert calibration_error(np.ones(4), np.ones(4, bool)) == 0

def test_calibration_knows_no_test_clip():
    rng = np.random.default_rng(0)
    p = np.repeat(rng.dirichlet(np.ones(7)/2, 100), 4, axis=0)
    truth = np.repeat([rng.choice(emotions, p=each) for each in p[::4]], 4)
    frame = pd.DataFrame(p, columns=probability_columns).assign(
        clip=[f'x/{n//4}' for n in range(400)], emotion=truth, split=np.repeat(['val', 'test'], 200), start=0.)
    scored = lambda frame: _trusted(_answered(frame))
    (one, bound), (other, same) = scored(frame), scored(frame.assign(emotion=frame.emotion.where(frame.split == 'val', 'fear')))
    assert bound == same and np.array_equal(one.confidence, other.confidence) and np.array_equal(one.trusted, other.trusted)
    assert len(one) == 50 and one['clip'].is_unique and set(one.trusted) == {True, False} and np.array_equal(one.trusted, one.confidence >= bound)
    flipped, another = scored(frame.assign(emotion=frame.emotion.where(frame.split == 'test', 'fear')))
    assert not np.array_equal(one.confidence, flipped.confidence) and bound != another

def test_the_interval_of_the_calibration_error():
    rng = np.random.default_rng(0)
    sure = rng.uniform(.3, 1, 2000)
    for right, low, high in ((rng.random(2000) < sure, 0, .05), (rng.random(2000) < sure - .2, .15, .25)):
        found, (least, most) = calibration_error(sure, right), calibration_interval(sure, right)
        assert low <= least <= found <= most <= high

@pytest.mark.parametrize('network', ['R2', 'R2+LSTM'])
def test_train_on_a_list_then_predict(tmp_path, capsys, network):
    clips = open_corpora('demo', 'smoke').query("corpus == 'demo-savee'")
    rows = clips[clips.emotion.isin(emotions)].groupby(['speaker', 'emotion']).head(1)
    rows[['path', 'emotion', 'speaker']].to_csv(tmp_path/'mine.csv', index=False)
    model = train_command(tmp_path/'mine.csv', tmp_path/'mine.safetensors', network, epochs=1)
    assert 'protocol speaker' in capsys.readouterr().out
    made = load_recognizer(model)
    assert made.about['corpora'] == {'demo-mine': len(rows)} and made.about['tested_clips'] == len(rows)
    for name in ('accuracy', 'uar', 'ece_before', 'ece', 'trusted_share'):
        value, low, high = made.about[name]
        assert low <= value <= high, name
    epochs = {'R2': 1, 'R2+LSTM': 3} # each network has its own settings
    assert {name: how['epochs'] for name, how in made.about['settings'].items()} == {name: epochs[name] for name in epochs if network.startswith(name)}
    assert type(made.network) is (Clipwise if network == 'R2+LSTM' else Chunkwise)
    assert predict_command(rows.path.iloc[0], model) == 0

def test_training_says_what_it_leaves_out(tmp_path, capsys, monkeypatch):
    for n in range(3): sf.write(tmp_path/f'{n}.wav', .1*np.random.default_rng(n).standard_normal(9600), 16000)
    header, rows = 'path,emotion,speaker\n', '0.wav,fear,a\n1.wav,bored,a\n2.wav,calm,b\n'
    (tmp_path/'all.csv').write_text(header + rows) # names the same files, and is not asked for
    (tmp_path/'mine.csv').write_text(header + rows + 'gone.wav,fear,a\nlost.wav,fear,a\n0.wav,furious,a\n')
    (tmp_path/'prices.csv').write_text('item,price\n')
    def stop(clips, *_, **__): raise EmonbError(f'{len(clips)} clips')
    monkeypatch.setattr(emonb.recognizer, 'train_recognizer', stop)
    with pytest.raises(EmonbError, match='3 clips'): train_command(tmp_path/'mine.csv')
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == 'mine 3 clips; 3 files left out' and lines.pop() == 'not trained on: boredom 1, calm 1 clips'
    assert 'left out: gone.wav there is no such file (and 1 more); check the name' in lines
    assert any("line 7 has an unknown emotion 'furious'" in line for line in lines) and len(lines) == 2
    (tmp_path/'mine.csv').write_text(header + '0.wav,fear,a\n')
    with pytest.raises(EmonbError, match='1 clips'): train_command(tmp_path/'mine.csv')
    assert capsys.readouterr().out == 'mine 1 clips\n'

def test_a_network_that_is_none():
    with pytest.raises(EmonbError, match=r'choose from R2, R2\+LSTM'): train_recognizer(open_corpora('demo', 'smoke'), 'R9')

def test_the_network_that_stands_alone_is_the_one_that_was_trained():
    trained, x = build(specs['R2']).eval(), torch.randn(40, 2, 64, 64)*3 - 5
    train = np.arange(30)
    alone = standalone(trained.state_dict(), *_statistics(x.numpy(), train))
    as_engine = standardised(x.numpy(), train, torch.device('cpu'), torch.float32)
    assert torch.allclose(alone(x), trained(as_engine).log_softmax(1), atol=1e-4)
    lstm, units = ClipLSTM(64, 64).eval(), alone.units(x).detach().numpy()
    both = with_lstm(alone, lstm.state_dict(), *_statistics(units, train))
    as_engine = standardised(units, train, torch.device('cpu'), torch.float32)
    assert torch.allclose(both(x), lstm(as_engine, [1]*40).log_softmax(1), atol=1e-4)

def small_corpus(folder, spectrograms):
    stored = np.lib.format.open_memmap(folder/'spectrograms.npy', 'w+', np.float32, spectrograms.shape)
    stored[:] = spectrograms
    table = pd.DataFrame([dict(clip=f'x/{n//3}', corpus='x', speaker=f'x/{n//12}', emotion=emotions[n//3 % 4], digest=str(n//3), sentence='', start=n % 3*.256)
                          for n in range(len(spectrograms))])
    return Chunks(table, stored, None)

def test_no_network_learns_from_test_clips(tmp_path, monkeypatch):
    made, rng = [], np.random.default_rng(0)
    spectrograms = rng.normal(-5, 2, (60, 2, 64, 64)).astype(np.float32)
    for name in ('one', 'other'):
        (tmp_path/name).mkdir()
        monkeypatch.setenv('EMONB_CACHE', str(tmp_path/name/'cache'))
        chunks = small_corpus(tmp_path/name, spectrograms)
        part = split(chunks.table, 'speaker')
        made.append(_learnt('R2+LSTM', chunks, [part], 'speaker', Settings(epochs=2, precision='float32', device='cpu'))[0][1].state_dict())
        spectrograms[part.test] += 3
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0]) and 'lstm.weight_ih_l0' in made[0]
