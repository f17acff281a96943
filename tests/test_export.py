"A recognizer as an ONNX graph says what torch and the stream say, of any recording; what is no single graph is refused."
import json

import numpy as np, pytest, soundfile as sf, torch

from emonb.audio import read_audio, resample
from emonb.core import EmonbError
from emonb.export import Waveform, export_onnx
from emonb.features import chunk
from emonb.paper import emotions
from emonb.predict import recognise
from emonb.recognizer import Chunkwise, Clipwise, Recognizer, hop, posterior
from emonb.reproduce import main
from emonb.streaming import Stream, enough
from emonb.synthetic import make_voice, synthesize

onnxruntime = pytest.importorskip('onnxruntime')


def untrained(kind=Chunkwise):
    torch.manual_seed(3)
    network = kind(32, 64).eval()
    network.mean.normal_(-6, 1); network.deviation.fill_(2)
    return Recognizer(network, .4, .25, dict(network='untrained', corpora={'x': 1}))

@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    recognizer = untrained()
    file = export_onnx(recognizer, tmp_path_factory.mktemp('onnx')/'in a new folder'/'r.onnx')
    return recognizer, onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])

def talk(rate, seconds):
    said = [synthesize(f'export/a0{i}', make_voice(f'export/{i}', 'fm'[i % 2]), emotion, sample_rate=rate).sound for i, emotion in ((1, 'anger'), (2, 'sadness'))]
    sound = np.concatenate([said[0], np.zeros(int(.8*rate)), said[1]])
    return (sound + 1e-4*np.random.default_rng(0).standard_normal(len(sound)))[:int(seconds*rate)].astype(np.float32)

@pytest.mark.parametrize('rate', [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize('seconds', [.52, 1.3, 2.777, 5])
def test_onnxruntime_says_what_torch_says(exported, rate, seconds):
    recognizer, session = exported
    sound = resample(talk(rate, seconds), rate, 16000)
    with torch.inference_mode(): expected = [each.numpy() for each in Waveform(recognizer).eval()(torch.from_numpy(sound))]
    found = session.run(None, dict(sound=sound))
    assert [each.shape for each in found] == [((len(sound) - chunk)//hop + 1, 7), (7,), ((len(sound) - chunk)//hop + 1,)]
    for a, b in zip(found, expected): np.testing.assert_allclose(a, b, atol=1e-4)
    stream = Stream(recognizer, rate)
    stream.push(talk(rate, seconds)); stream.finish()
    np.testing.assert_allclose(found[1], stream.answer.posterior, atol=1e-4)
    assert np.ptp(found[0], axis=0).max() > .01 or len(found[0]) < 3 # chunks differ: it listens

@pytest.mark.parametrize('level', [1., .03, .001])
def test_loud_and_soft(exported, level):
    recognizer, session = exported
    sound = level*talk(16000, 3)
    chunks, recording, heard = session.run(None, dict(sound=sound))
    with torch.inference_mode(): expected = Waveform(recognizer).eval()(torch.from_numpy(sound))
    for a, b in zip((chunks, recording, heard), expected): np.testing.assert_allclose(a, b.numpy(), atol=1e-4)
    stream = Stream(recognizer)
    moments = stream.push(sound) + stream.finish()
    assert heard.tolist() == [float(m.posterior is not None) for m in moments]

def test_silence(exported):
    chunks, recording, heard = exported[1].run(None, dict(sound=np.zeros(20_000, np.float32)))
    assert not heard.any() and np.isfinite(chunks).all() and np.isfinite(recording).all()

def test_a_file_and_the_command(exported, tmp_path):
    recognizer, session = exported
    sf.write(tmp_path/'a.flac', talk(44100, 3), 44100)
    recognizer.save(tmp_path/'r.safetensors')
    assert main(['export', str(tmp_path/'r.safetensors'), str(tmp_path/'r.onnx')]) == 0
    again = onnxruntime.InferenceSession(tmp_path/'r.onnx', providers=['CPUExecutionProvider'])
    notes = json.loads(again.get_modelmeta().custom_metadata_map['emonb'])
    assert notes['about'] == recognizer.about and notes['emotions'] == list(emotions) and notes['sample_rate'] == 16000
    assert notes['trusted'] == dict(probability=recognizer.threshold, heard=enough)
    found = again.run(None, dict(sound=read_audio(tmp_path/'a.flac')))
    np.testing.assert_allclose(found[1], recognise(recognizer, tmp_path/'a.flac').answer.posterior, atol=1e-4)

def test_the_recording_is_the_mean_of_what_is_heard(exported):
    recognizer, session = exported
    chunks, recording, heard = session.run(None, dict(sound=talk(16000, 5)))
    logs = recognizer.temperature*np.log(chunks[heard > 0]) # up to a constant a chunk
    np.testing.assert_allclose(recording, posterior(logs.mean(axis=0), recognizer.temperature), atol=1e-4)

def test_an_lstm_is_refused(tmp_path):
    with pytest.raises(EmonbError, match='LSTM'): export_onnx(untrained(Clipwise), tmp_path/'r.onnx')
    assert not list(tmp_path.iterdir())
