"The real recordings, held against what is known of them. Set EMONB_DATA to a folder that holds them."
import os, time
from pathlib import Path

import numpy as np, pytest

from emonb.audio import read_audio
from emonb.data import describe, load_clips, paper_clips, report
from emonb.integrity import check, check_text, differences, duplicates, official

folder = os.environ.get('EMONB_DATA', '')
pytestmark = [pytest.mark.data, pytest.mark.skipif(not Path(folder or 'nowhere').is_dir(), reason='EMONB_DATA names no folder')]


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('EMONB_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield

@pytest.fixture(scope='module')
def clips(cache):
    started = time.perf_counter()
    clips = load_clips(folder)
    first = time.perf_counter() - started
    assert first < 10*len(clips)/1000 # 20 s for the 2,461 clips of four corpora on two cores leave room; 4 s were measured
    return clips

def only(clips, corpus):
    part = clips[clips.corpus == corpus]
    if part.empty: pytest.skip(f'{corpus} is not there')
    return part

@pytest.mark.parametrize('corpus', ['emodb', 'savee', 'ravdess'])
def test_complete_corpora_hold_what_was_published(clips, corpus):
    part = only(clips, corpus)
    assert check(part, report(clips)).verdict[0] == 'complete' and differences(part).empty
    assert part.speaker.nunique() == len(official[corpus]['speaker'])
    if 'seconds' in official[corpus]: assert part.duration.sum() == pytest.approx(official[corpus]['seconds'], abs=.01)

def test_emodb(clips):
    part = only(clips, 'emodb')
    assert part.duration.min() == 1.2255 and part.duration.max() == pytest.approx(8.97825)
    assert (part.sample_rate == 16000).all() and part.groupby('sex').speaker.nunique().to_dict() == dict(f=5, m=5)
    assert part.sentence.nunique() == 10 and not ((part.speaker == 'emodb/08') & (part.emotion == 'disgust')).any()
    assert describe(paper_clips(part)) == 'EMO-DB 454 clips'

def test_savee(clips):
    part = only(clips, 'savee')
    assert part.duration.min() == pytest.approx(1.631, abs=.001) and part.duration.max() == pytest.approx(7.139, abs=.001)
    assert part.sentence.nunique() == 3 + 6*12 + 12 # common; 04 to 15 of six emotions; neutral's own 04 to 15
    assert part.groupby('sentence').speaker.nunique().eq(4).all()

def test_ravdess(clips):
    import soundfile
    part = only(clips, 'ravdess')
    twins = duplicates(clips)
    assert list(twins.clips[twins.known]) == ['ravdess/01-03-01-02-01-07, ravdess/01-03-01-02-02-07']
    assert sum(soundfile.info(path).channels == 2 for path in part.path) == 5
    assert part.groupby('sex').speaker.nunique().to_dict() == dict(f=12, m=12)

def test_crema_d_videos_are_read(clips):
    part = only(clips, 'cremad')
    assert part.video.ne('').any() and part.emotion.nunique() == 6
    for path in part.path[:6]: assert np.isfinite(read_audio(path)).all()

def test_nothing_is_left_out_and_the_text_says_so(clips):
    told = report(clips)
    assert told.kept.all(), told[~told.kept].to_string()
    assert 'complete' in check_text(folder) and 'left out' not in check_text(folder)

def test_a_second_call_is_quick(clips):
    started = time.perf_counter()
    again = load_clips(folder)
    assert again.equals(clips) and time.perf_counter() - started < 1.5 # 0.3 s on a quiet machine

def test_neutral_sentences_of_savee_repeat_those_of_other_emotions(clips):
    "The clearest of the four speakers: each of n20 to n30 is nearest to the clip that is said to have its words."
    librosa = pytest.importorskip('librosa')
    part = only(clips, 'savee').set_index('clip')
    codes = [c for c in part.index if c.startswith('savee/KL_') and c[9:-2] != 'n']
    def features(clip):
        y, _ = librosa.effects.trim(read_audio(part.path[clip]), top_db=30)
        mfcc = librosa.feature.mfcc(y=y, sr=16000, n_mfcc=20, hop_length=320, n_fft=512, n_mels=40)[1:]
        both = np.vstack([mfcc, 2*librosa.feature.delta(mfcc)])
        return (both - both.mean(1, keepdims=True))/both.std(1, keepdims=True)
    def distance(a, b):
        if max(a.shape[1], b.shape[1]) > 1.9*min(a.shape[1], b.shape[1]): return np.inf
        cost, path = librosa.sequence.dtw(a, b, metric='cosine', step_sizes_sigma=np.array([[1, 1], [1, 2], [2, 1]]))
        return cost[-1, -1]/len(path)
    known = {clip: features(clip) for clip in codes}
    for number in range(20, 31):
        query = features(f'savee/KL_n{number}')
        nearest = min(known, key=lambda clip: distance(query, known[clip]))
        assert part.sentence[nearest] == part.sentence[f'savee/KL_n{number}'], (number, nearest)
