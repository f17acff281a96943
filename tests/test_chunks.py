"Chunks and the feature store: grids, faults, and the counts on the real recordings."
import os

import numpy as np, pandas as pd, pytest, soundfile as sf

import emonb.cache
from emonb import core
from emonb.chunks import chunk_audit, chunk_features, chunk_table, clean
from emonb.core import EmonbError
from emonb.data import load_clips, paper_clips
from emonb.features import chunk_spectrograms, handbuilt


def clip(name, samples, rate=16000):
    return dict(clip=name, corpus='x', path=f'{name}.wav', emotion='anger', samples=samples, sample_rate=rate, digest=name)

@pytest.mark.parametrize('samples, rate, hop, starts', [
    (8191, 16000, .512, []), (8192, 16000, .512, [0]), (16383, 16000, .512, [0]), (16384, 16000, .512, [0, .512]),
    (12288, 16000, .256, [0, .256]), (16384, 16000, .256, [0, .256, .512]),
    (24576, 48000, .512, [0]), (24573, 48000, .512, []), (22580, 44100, .512, [0])]) # 22580 samples at 44.1 kHz become 8193
def test_every_whole_chunk_and_no_other(samples, rate, hop, starts):
    chunks = chunk_table(pd.DataFrame([clip('a', samples, rate), clip('b', 8192)]), hop)
    assert np.allclose(chunks.start[chunks['clip'] == 'a'], starts) and (chunks['clip'] == 'b').sum() == 1

@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'cache'))
    monkeypatch.setenv('EMONB_DATA', str(tmp_path/'data'))
    emonb.cache._verified.clear()
    (tmp_path/'data').mkdir()
    rng = np.random.default_rng(0)
    for i, name in enumerate(('03a01Fa', '03a01Nc', '08a02Wb')):
        sf.write(tmp_path/'data'/f'{name}.wav', 0.1*rng.normal(size=9000 + 7000*i), 16000)
    return tmp_path/'data'

@pytest.mark.parametrize('hop', [.256, .512])
def test_rows_are_those_of_the_clips(corpus, hop):
    clips = load_clips(corpus)
    chunks = chunk_features(clips, hop)
    for name, rows in chunks.table.groupby('clip').indices.items():
        sound = sf.read(clips.set_index('clip').path[name], dtype='float32')[0]
        starts = np.round(chunks.table.start[rows]*16000).astype(int).tolist()
        assert np.allclose(chunks.spectrograms[rows], chunk_spectrograms(sound, starts), atol=1e-4)
        assert np.allclose(chunks.handbuilt[rows], handbuilt(sound, starts), atol=1e-3)

def test_content_and_not_names_decides_what_is_computed_again(corpus):
    clips = load_clips(corpus)
    first = chunk_features(clips)
    assert chunk_features(clips).spectrograms.filename == first.spectrograms.filename
    assert chunk_features(clips, .256).spectrograms.filename != first.spectrograms.filename
    sf.write(corpus/'03a01Fa.wav', 0.2*np.random.default_rng(1).normal(size=9000), 16000)
    assert chunk_features(load_clips(corpus)).spectrograms.filename != first.spectrograms.filename

def test_a_corrected_label_holds_at_once(corpus):
    clips = load_clips(corpus)
    first = chunk_features(clips)
    again = chunk_features(clips.assign(emotion='sadness'))
    assert set(again.table.emotion) == {'sadness'} and again.spectrograms.filename == first.spectrograms.filename

def test_a_file_that_changed_since_it_was_listed_is_named(corpus):
    clips = load_clips(corpus)
    sf.write(corpus/'03a01Nc.wav', np.random.default_rng(1).normal(size=16000)*.1, 16000) # of the same length
    with pytest.raises(EmonbError, match='03a01Nc.wav: has changed'): chunk_features(clips)
    assert not list((core.cache_dir()/'features').glob('*/handbuilt.npy'))

def test_cleaning_replaces_only_what_is_far_out_and_only_by_training_values():
    rng = np.random.default_rng(0)
    training, values = rng.normal(size=(500, 4)), rng.normal(size=(50, 4))
    training[:, 3] = 1 # no spread: nothing can be called far out
    values[3, 0], values[4, 1], values[5, 3] = 50, -50, 7
    cleaned, replaced = clean(values, training)
    assert np.argwhere(replaced).tolist() == [[3, 0], [4, 1]]
    assert abs(cleaned[3, 0]) < .3 and abs(cleaned[4, 1]) < .3 and np.array_equal(cleaned[~replaced], values[~replaced])


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get('EMONB_DATA'), reason='EMONB_DATA is not set')
def test_counts_of_the_real_corpora():
    clips = load_clips(os.environ['EMONB_DATA'])
    audit = chunk_audit(clips).set_index('corpus')
    assert audit.loc['emodb', ['hop 512 ms', 'hop 256 ms']].tolist() == [2241, 4252]
    assert audit.loc['savee', ['hop 512 ms', 'hop 256 ms']].tolist() == [3361, 6485]
    assert audit.loc['sum', 'hop 256 ms'] == 22596
    assert len(chunk_table(paper_clips(clips))) == 2241 + 3361 + 8372
