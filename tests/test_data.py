"What may lie in a folder of corpora: every irregularity and every kind of bad file, each kept or told, none a traceback."
import errno, os, random, shutil, subprocess, sys, textwrap
from fractions import Fraction
from itertools import islice, product
from pathlib import Path, PurePosixPath

import numpy as np, pandas as pd, pytest, soundfile as sf
from hypothesis import given, strategies as st

import emonb.data
from emonb.audio import AudioError, media_suffixes, read_audio, read_native, resample
from emonb.core import EmonbError
from emonb.data import Player, describe, load_clips, paper_clips, report
from emonb.integrity import check, check_text, differences, duplicates, official_count, official_names
from emonb.readers import is_foreign, read_list, read_name, readers


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'cache'))
    return tmp_path/'cache'

@pytest.fixture
def folder(tmp_path):
    (tmp_path/'corpora').mkdir()
    return tmp_path/'corpora'

def noise(seed=0, seconds=.6, rate=16000, channels=1):
    y = .1*np.random.default_rng(seed).standard_normal((int(seconds*rate), channels))
    return y[:, 0] if channels == 1 else y

def put(path, seed=0, seconds=.6, rate=16000, **kinds):
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, noise(seed, seconds, rate), rate, **kinds)
    return path

def film(path, seed=0, seconds=.6, rate=16000, codec='pcm_s16le', sound=True):
    "A small video, with sound or without."
    import av
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        pictures = container.add_stream('mpeg4' if path.suffix != '.flv' else 'flv', rate=25)
        pictures.width = pictures.height = 32; pictures.pix_fmt = 'yuv420p'
        if sound: track = container.add_stream(codec, rate=rate, layout='mono')
        if sound: fit = av.AudioResampler(format=track.codec_context.format.name, layout='mono', rate=rate, frame_size=track.codec_context.frame_size)
        samples, step = (32767*noise(seed, seconds, rate)).astype(np.int16), rate//25
        for i in range(int(25*seconds)):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), i, np.uint8), format='rgb24')))
            if not sound: continue
            frame = av.AudioFrame.from_ndarray(samples[None, i*step:(i + 1)*step], format='s16', layout='mono')
            frame.sample_rate, frame.pts, frame.time_base = rate, i*step, Fraction(1, rate)
            for part in fit.resample(frame): container.mux(track.encode(part))
        container.mux(pictures.encode())
        if sound:
            for part in [*fit.resample(None), None]: container.mux(track.encode(part))
    return path

def told(clips):
    "Problem of each reported file."
    return report(clips).set_index('file').problem.to_dict()


# ---- single files

@pytest.mark.parametrize('kind', ['PCM_U8', 'PCM_16', 'PCM_24', 'PCM_32', 'FLOAT', 'DOUBLE', 'ULAW', 'IMA_ADPCM'])
@pytest.mark.parametrize('rate', [8000, 22050, 96000])
def test_every_kind_of_wav(tmp_path, kind, rate):
    y = read_audio(put(tmp_path/'a.wav', rate=rate, subtype=kind))
    assert y.dtype == np.float32 and y.ndim == 1 and abs(len(y) - .6*16000) <= 900 # ADPCM fills its last block
    assert np.isfinite(y).all()

@pytest.mark.parametrize('name', ['a.flac', 'a.ogg', 'a.mp3', 'a.aiff', 'a.au', 'a.caf', 'A.WAV'])
def test_every_sound_format(tmp_path, name):
    assert abs(len(read_audio(put(tmp_path/name, rate=44100))) - 9600) < 100

@pytest.mark.parametrize('name,codec', [('a.avi', 'pcm_s16le'), ('a.avi', 'mp3'), ('a.mp4', 'aac'), ('a.mov', 'pcm_s16le'),
                                        ('a.mkv', 'pcm_s16le'), ('a.flv', 'mp3')])
def test_every_container(tmp_path, name, codec):
    y = read_audio(film(tmp_path/name, seconds=1, rate=44100, codec=codec))
    assert abs(len(y) - 16000) < 1300 # lossy codecs fill their last frame
    if codec == 'pcm_s16le': assert np.abs(y - read_audio(put(tmp_path/'same.wav', seconds=1, rate=44100))).max() < 1e-4

def test_channels_are_averaged(tmp_path):
    for channels in (2, 6):
        y = noise(channels=channels)
        sf.write(tmp_path/'a.wav', y, 16000, subtype='FLOAT')
        assert np.allclose(read_native(tmp_path/'a.wav').samples, y.mean(1), atol=1e-7)

@given(n=st.integers(1, 5000), rate=st.sampled_from([4000, 8000, 11025, 22050, 24414, 44100, 48000, 96000]))
def test_length_after_resampling(n, rate):
    assert len(resample(np.zeros(n, np.float32), rate, 16000)) == -(-n*16000//rate)

bad = dict(
    missing=lambda p: None,
    empty=lambda p: p.touch(),
    truncated=lambda p: p.write_bytes(put(p).read_bytes()[:9000]),
    text=lambda p: p.write_text('a text that was renamed'),
    pointer=lambda p: p.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'),
    silent=lambda p: sf.write(p, np.zeros(16000), 16000),
    constant=lambda p: sf.write(p, np.full(16000, .25), 16000),
    nan=lambda p: sf.write(p, np.where(np.arange(9600) == 5, np.nan, noise()), 16000, subtype='FLOAT'),
    infinite=lambda p: sf.write(p, np.where(np.arange(9600) == 5, np.inf, noise()), 16000, subtype='FLOAT'),
    huge=lambda p: sf.write(p, 1e30*noise(), 16000, subtype='FLOAT'),
    overflow=lambda p: sf.write(p, 1e300*noise(), 16000, subtype='DOUBLE'),
    headless=lambda p: p.write_bytes(put(p).read_bytes()[44:]),
    no_samples=lambda p: sf.write(p, np.zeros(0), 16000),
    slow_rate=lambda p: sf.write(p, noise(), 100),
    many_channels=lambda p: sf.write(p, noise(channels=40), 16000),
    a_folder=lambda p: p.mkdir())

@pytest.mark.parametrize('kind', bad)
def test_bad_file_is_one_line_that_names_it(tmp_path, kind):
    path = tmp_path/'emodb'/'03a01Fa.wav'
    path.parent.mkdir()
    bad[kind](path)
    with pytest.raises(EmonbError) as caught: read_audio(path)
    text = str(caught.value)
    assert text.startswith('emodb/03a01Fa.wav: ') and '\n' not in text and '; ' in text and str(tmp_path) not in text

@pytest.mark.parametrize('name,codec', [('a.flac', None), ('a.avi', 'pcm_s16le'), ('a.avi', 'mp3'), ('a.mp4', 'aac'), ('a.mkv', 'pcm_s16le'),
                                        ('a.flv', 'mp3')])
@pytest.mark.parametrize('part', [.8, .4, .02])
def test_truncated_in_other_formats(tmp_path, name, codec, part):
    whole = film(tmp_path/name, seconds=3, rate=44100, codec=codec) if codec else put(tmp_path/name, seconds=3)
    read_audio(whole)
    whole.write_bytes(whole.read_bytes()[:int(part*whole.stat().st_size)])
    with pytest.raises(AudioError, match='cut off|cannot be decoded|without samples|no sound track'): read_audio(whole)

def test_a_stream_whose_length_was_never_written_is_read(tmp_path):
    content = bytearray(put(tmp_path/'a.wav').read_bytes())
    content[4:8] = content[40:44] = b'\xff'*4
    (tmp_path/'a.wav').write_bytes(content)
    assert len(read_audio(tmp_path/'a.wav')) == 9600

def test_video_without_sound(tmp_path):
    with pytest.raises(AudioError, match='has no sound track'): read_audio(film(tmp_path/'a.avi', sound=False))

def test_audio_errors_survive_pickling():
    import pickle
    assert str(pickle.loads(pickle.dumps(AudioError('a/b.wav', 'is empty', 'copy it')))) == 'a/b.wav: is empty; copy it'


# ---- names

@given(st.text())
def test_readers_answer_to_any_name(name):
    for path in (name, f'DC/{name}.wav', f'subject 1/anger/{name}', f'wav/{name}.wav'): read_name(path)

@pytest.mark.parametrize('corpus', ['savee', 'enterface', 'ravdess'])
def test_official_names_and_readers_agree(corpus):
    for clip in official_names(corpus):
        name = clip.split('/')[1]
        if corpus == 'savee': paths = [f'AudioData/{name.replace("_", "/")}.wav', f'ALL/{name}.wav']
        elif corpus == 'ravdess': paths = [f'Actor_{name[-2:]}/03-{name}.wav', f'x/01-{name}.mp4']
        else: paths = [f'{name}.avi'] if not name.startswith('s2_an') else []
        for path in paths: assert read_name(path)[1]['clip'] == clip

def test_speakers_and_sexes():
    sexes = {s: readers['emodb'](PurePosixPath(f'wav/{s}a01Fa.wav'))['sex'] for s in '03 08 09 10 11 12 13 14 15 16'.split()}
    assert ''.join(sexes.values()) == 'mffmmmffmf'
    actors = [readers['cremad'](PurePosixPath(f'{n}_DFA_ANG_XX.wav'))['sex'] for n in range(1001, 1092)]
    assert len(actors) == 91 and actors.count('f') == 43
    assert [readers['ravdess'](PurePosixPath(f'03-01-01-01-01-01-{n:02}.wav'))['sex'] for n in (1, 2)] == ['m', 'f']

def test_names_of_no_corpus():
    for name in ('1092_DFA_ANG_XX.wav', '1001_XXX_ANG_XX.wav', '03-01-09-01-01-01-01.wav', '03-01-01-01-01-01-25.wav', 'DC/su16.wav',
                 'DC_a00.wav', '03a01Fg.wav', 'xx03a01Fa.wav', 's45_an_1.avi', 's1_an_6.avi', 'OAF_back.wav', 'MAF_back_angry.wav'):
        assert read_name(name) is None, name


# ---- folders

def test_layouts_nested_flat_and_doubled(folder):
    put(folder/'a zip'/'deeper'/'emodb'/'wav'/'03a01Fa.wav', 1)
    put(folder/'AudioData'/'AudioData'/'DC'/'a01.wav', 2); put(folder/'AudioData'/'DC'/'a01.wav', 2)
    put(folder/'ALL'/'KL_sa02.wav', 3)
    put(folder/'TESS'/'OAF_Fear'/'OAF_back_fear.wav', 4); put(folder/'TESS'/'OAF_neutral'/'OA_bite_neutral.wav', 5)
    clips = load_clips(folder)
    assert list(clips['clip']) == ['emodb/03a01Fa', 'savee/DC_a01', 'savee/KL_sa02', 'tess/OAF_back_fear', 'tess/OAF_bite_neutral']
    assert told(clips) == {'AudioData/DC/a01.wav': 'holds the same sound as AudioData/AudioData/DC/a01.wav'}
    assert clips.path.map(os.path.exists).all() and (clips.video == '').all()

def test_enterface_in_its_own_layout(folder):
    top = folder/'enterface database'
    for i, name in enumerate(['subject 11/anger/sentence 1/s12_an_1.avi', 'subject 12/anger/sentence 1/s12_an_1.avi',
                              'subject 3/fear/sentence 2/s_3_fe_2.avi', 'subject 16/surprise/sentence 3/s16_su_3avi.avi',
                              'subject 2/anger/sentence 1/s2_an_2.avi', 'subject 2/anger/sentence 2/s2_an_1.avi',
                              'subject 6/happiness/s6_ha.avi']): film(top/name, i)
    clips = load_clips(folder)
    assert list(clips['clip'].str[10:]) == ['s11_an_1', 's12_an_1', 's16_su_3', 's2_an_1', 's2_an_2', 's3_fe_2']
    assert clips.set_index('clip').path['enterface/s2_an_1'].endswith('sentence 1/s2_an_2.avi')
    assert (clips.video == clips.path).all() and (clips.sex == '').all()
    assert told(clips) == {'enterface database/subject 6/happiness/s6_ha.avi': 'holds several sentences in one recording'}

def test_flattened_enterface_tells_of_the_collision(folder):
    film(folder/'all'/'s12_an_1.avi', 1); film(folder/'all'/'s13_an_1.avi', 2)
    told_ = report(load_clips(folder))
    assert list(told_.file) == ['all/s12_an_1.avi'] and told_.kept.all() and "subject 11's" in told_.problem[0]

def test_sound_and_video_of_one_clip_are_one_row(folder):
    put(folder/'AudioData'/'DC'/'a01.wav', 1); film(folder/'AudioVisualClip'/'DC'/'a1.avi', 2)
    put(folder/'Actor_01'/'03-01-05-01-01-01-01.wav', 3); film(folder/'Actor_01'/'01-01-05-01-01-01-01.mp4', 4, codec='aac')
    film(folder/'Actor_01'/'02-01-05-01-01-01-01.mp4', 4, sound=False); put(folder/'Actor_01'/'03-02-05-01-01-01-01.wav', 5)
    put(folder/'AudioWAV'/'1001_DFA_ANG_XX.wav', 6); film(folder/'VideoFlash'/'1001_DFA_ANG_XX.flv', 7, codec='mp3', rate=44100)
    clips = load_clips(folder)
    assert list(clips.path.map(lambda p: Path(p).suffix)) == ['.wav']*3
    assert [Path(v).name for v in clips.video] == ['1001_DFA_ANG_XX.flv', '01-01-05-01-01-01-01.mp4', 'a1.avi']
    assert set(told(clips).values()) == {'holds pictures without sound; the same clip with sound begins with 01', 'is sung, not spoken'}

def test_video_stands_in_for_a_broken_sound_file(folder):
    (folder/'AudioWAV').mkdir(); (folder/'AudioWAV'/'1001_DFA_ANG_XX.wav').touch()
    film(folder/'VideoFlash'/'1001_DFA_ANG_XX.flv', codec='mp3', rate=44100)
    clips = load_clips(folder)
    assert clips.path[0] == clips.video[0] and clips.path[0].endswith('.flv') and told(clips) == {'AudioWAV/1001_DFA_ANG_XX.wav': 'is empty'}

def test_other_sound_under_the_same_name_is_told(folder):
    put(folder/'a'/'03a01Fa.wav', 1); put(folder/'b'/'03a01Fa.wav', 2)
    clips = load_clips(folder)
    assert clips.path[0].endswith('a/03a01Fa.wav') and told(clips) == {'b/03a01Fa.wav': 'holds another sound than a/03a01Fa.wav, under the same name'}

def test_emodb_2_keeps_its_gold_standard(folder):
    top = folder/'emodb_2.0'
    for i, name in enumerate(['03a01Fa', '03a01Fb', '08a01Na']): put(top/'wav'/f'{name}.wav', i); put(top/'laryngo'/f'{name}.wav', i + 9)
    (top/'db.emotion.csv').write_text('file,emotion\nwav/03a01Fa.wav,happiness\n')
    assert len(load_clips(folder)) == 3
    for split, name in (('train', '03a01Fa'), ('test', '08a01Na')):
        (top/f'db.emotion.categories.{split}.gold_standard.csv').write_text(f'file,emotion\nwav/{name}.wav,x\n')
    clips = load_clips(folder)
    assert list(clips['clip']) == ['emodb/03a01Fa', 'emodb/08a01Na']
    assert told(clips)['emodb_2.0/wav/03a01Fb.wav'].startswith('is one of the ambiguous clips')
    assert sum('laryngograph' in problem for problem in told(clips).values()) == 3
    (top/'db.emotion.categories.test.gold_standard.csv').write_text('')
    with pytest.raises(EmonbError, match='gold_standard.csv: is no table of EMO-DB 2.0; unpack it again'): load_clips(folder)

def test_more_than_535_clips_of_emodb_are_told(folder):
    content = put(folder/'seed.wav').read_bytes()
    (folder/'seed.wav').unlink()
    for s, t, e, v in islice(product('03 08 09 10 11 12 13 14 15 16'.split(), ('a01', 'b10'), 'WLEAFTN', 'abcdef'), 536):
        (folder/f'{s}{t}{e}{v}.wav').write_bytes(content)
    assert told(load_clips(folder))['EMO-DB'].startswith('has 536 clips, not 535')

def test_odd_clips_are_kept_and_told(folder):
    put(folder/'emodb'/'03a01Fa.wav', seconds=600, rate=8000, subtype='PCM_U8')
    sf.write(folder/'emodb'/'03a01Fb.wav', np.clip(20*noise(), -1, 1), 16000)
    put(folder/'emodb'/'03a01Fc.wav', seconds=.3); put(folder/'emodb'/'holiday.wav'); put(folder/'emodb'/'._03a01Fd.wav')
    clips = load_clips(folder)
    assert list(clips.duration) == [600, .6]
    assert told(clips) == {'emodb/03a01Fa.wav': 'lasts 600 s', 'emodb/03a01Fc.wav': 'lasts 0.30 s, less than one chunk of 0.512 s',
        'emodb/03a01Fb.wav': told(clips)['emodb/03a01Fb.wav'], 'emodb/holiday.wav': 'has a name that no corpus uses'}
    assert 'is clipped' in told(clips)['emodb/03a01Fb.wav'] and report(clips).set_index('file').kept.to_dict()['emodb/03a01Fb.wav']

@pytest.mark.parametrize('kind', [kind for kind in bad if kind not in ('missing', 'a_folder')])
def test_bad_file_in_a_folder_is_told(folder, kind):
    put(folder/'emodb'/'03a01Wa.wav'); bad[kind](folder/'emodb'/'03a01Fa.wav')
    clips = load_clips(folder)
    assert list(clips['clip']) == ['emodb/03a01Wa'] and list(told(clips)) == ['emodb/03a01Fa.wav']
    (folder/'emodb'/'03a01Wa.wav').unlink()
    with pytest.raises(EmonbError, match='no file is usable; emodb/03a01Fa.wav '): load_clips(folder)

def test_links(folder):
    put(folder/'emodb'/'03a01Fa.wav'); (folder/'emodb'/'03a01Wa.wav').symlink_to('nowhere.wav')
    (folder/'emodb'/'loop').symlink_to('..'); (folder.parent/'elsewhere').mkdir(); put(folder.parent/'elsewhere'/'KL_a01.wav', 2)
    (folder/'linked').symlink_to('../elsewhere')
    clips = load_clips(folder)
    assert list(clips['clip']) == ['emodb/03a01Fa', 'savee/KL_a01'] and told(clips) == {'emodb/03a01Wa.wav': 'there is no such file'}

@pytest.mark.skipif(sys.platform != 'linux', reason='names are bytes only there')
def test_names_that_are_no_text(folder):
    put(folder/'emodb'/'03a01Fa.wav')
    shutil.copytree(folder/'emodb', os.fsdecode(os.fsencode(folder) + b'/\xff\xfe'))
    (folder/'x\ny').mkdir(); put(folder/'x\ny'/'03a01Wa.wav')
    clips = load_clips(folder)
    assert list(clips['clip']) == ['emodb/03a01Fa'] and set(told(clips).values()) == {'has an unprintable path'}

def test_folders_without_clips(folder):
    with pytest.raises(EmonbError, match='there is no such folder; set EMONB_DATA .* `emonb data get emodb`'): load_clips(folder/'nowhere')
    with pytest.raises(EmonbError, match='there is no such folder'): load_clips(put(folder/'a.wav'))
    with pytest.raises(EmonbError, match='holds no clip of EMO-DB, SAVEE.*, and a.wav has a name that no corpus uses'): load_clips(folder)
    (folder/'a.wav').unlink()
    with pytest.raises(EmonbError, match='holds no clip of EMO-DB.*; set EMONB_DATA'): load_clips(folder)

def test_corpora_can_be_chosen(folder):
    put(folder/'03a01Fa.wav', 1); put(folder/'KL_a01.wav', 2)
    assert list(load_clips(folder, 'savee').corpus) == ['savee'] and len(load_clips(folder, ['savee', 'emodb'])) == 2
    with pytest.raises(EmonbError, match='no clip of tess, only of emodb, savee'): load_clips(folder, ['emodb', 'tess'])


# ---- lists

def test_a_list_of_own_recordings(folder):
    put(folder/'mine'/'calls'/'one.wav', 1); put(folder/'mine'/'two.flac', 2); put(folder/'emodb'/'03a01Fa.wav', 3)
    (folder/'mine'/'calls.csv').write_text('\ufeffPath, Emotion ,speaker,sentence,sex\ncalls\\one.wav,Happy,anna,hello,female\n'
        'two.flac,sadness,bert,,\ntwo.flac,anger,bert,,\nthree.wav,fear,anna,,\nx.wav,furious,anna,,\ny.wav,fear,,,\nz.txt,fear,anna,,\n')
    clips = load_clips(folder)
    mine = clips[clips.corpus == 'calls'].iloc[0]
    assert list(clips['clip']) == ['calls/mine/calls/one', 'calls/mine/two', 'emodb/03a01Fa']
    assert (mine.speaker, mine.sentence, mine.sex, mine.emotion) == ('calls/anna', 'calls/hello', 'f', 'happiness')
    assert told(clips) == {'mine/two.flac': 'is listed twice', 'mine/three.wav': 'there is no such file',
        'mine/calls.csv, line 6': "has an unknown emotion 'furious'; known are anger, disgust, fear, happiness, neutral, sadness, surprise, boredom, calm",
        'mine/calls.csv, line 7': 'lacks its path or speaker', 'mine/calls.csv, line 8': "names 'z.txt', no sound or video file"}
    assert describe(clips) == 'EMO-DB 1, calls 2 clips' and list(check(clips).verdict) == ['a part: 1 of 535', 'a list of your own']

def test_a_list_outranks_names_and_cannot_pass_for_a_corpus(folder):
    put(folder/'03a01Fa.wav')
    (folder/'emodb.csv').write_text('path,emotion,speaker\n03a01Fa.wav,calm,NA\n')
    clips = load_clips(folder)
    assert list(clips['clip']) == ['emodb-csv/03a01Fa'] and clips.speaker[0] == 'emodb-csv/NA' and clips.emotion[0] == 'calm'

def test_a_list_keeps_its_rows_beside_another_one(folder):
    put(folder/'one.wav', 1); put(folder/'two.wav', 2); put(folder/'stray.wav', 3)
    (folder/'all.csv').write_text('path,emotion,speaker\none.wav,fear,anna\ntwo.wav,anger,bert\n')
    (folder/'mine.csv').write_text('path,emotion,speaker\ntwo.wav,sad,bert\none.wav,fear,anna\ntwo.wav,anger,bert\n')
    for clips in (load_clips(folder/'mine.csv'), load_clips(folder, 'mine')):
        assert list(clips['clip']) == ['mine/one', 'mine/two'] and list(clips.emotion) == ['fear', 'sadness'] and told(clips)['two.wav'] == 'is listed twice'
    assert list(told(load_clips(folder/'mine.csv'))) == ['two.wav'] # what else lies in the folder is not looked at
    assert describe(load_clips(folder)) == 'all 2 clips' and list(report(load_clips(folder)).file) == ['stray.wav', 'one.wav', 'two.wav', 'two.wav']

def test_a_list_alone(folder):
    put(folder/'sounds'/'a.wav', 1); put(folder/'other'/'b.wav', 2); (folder/'other'/'demo.json').write_text('{}')
    (folder/'emodb.csv').write_text(f'path,emotion,speaker\nsounds/a.wav,fear,anna\n{folder/"other"/"b.wav"},fear,bert\n')
    clips = load_clips(folder/'emodb.csv')
    assert list(clips['clip']) == ['demo-emodb-csv/other/b', 'emodb-csv/sounds/a'] and report(clips).empty
    assert set(clips.path) == {str(folder/'sounds'/'a.wav'), str(folder/'other'/'b.wav')}
    for content, said in (('path,emotion,speaker\n', 'names no recording; add a row for each'), ('item,price\nbread,3\n', 'has no column path, emotion, speaker; '),
                          ('path,emotion,speaker\na.wav,furious,x\n', 'line 2: has an unknown emotion'), ('path;emotion;speaker\na.wav;fear;x\n', 'semicolons')):
        (folder/'bad.csv').write_text(content)
        with pytest.raises(EmonbError, match=f'bad.csv.*{said}'): load_clips(folder/'bad.csv')
    with pytest.raises(EmonbError, match='none.csv: there is no such file; give a folder or a CSV file'): load_clips(folder/'none.csv')

def test_semicolons_are_named(folder):
    (folder/'my.csv').write_text('\ufeffPath;Emotion;Speaker\na.wav;fear;x\n', encoding='utf-8')
    found, ((_, _, problem, advice, _),) = read_list(folder, 'my.csv')
    assert not found and problem == 'has no column path, emotion, speaker' and 'instead of semicolons' in advice
    (folder/'my.csv').write_text('item,price\nbread;butter,3\n')
    assert 'semicolon' not in read_list(folder, 'my.csv')[1][0][3]

@pytest.mark.parametrize('content,problem', [
    (b'item,price\nbread,3\n', 'has no column path, emotion, speaker'), (b'path,emotion\na.wav,fear\n', 'has no column speaker'),
    (b'', 'has no column'), (b'\xff\xfep\x00a\x00', 'cannot be read as a CSV file'), (b'path,emotion,speaker\n"', None),
    (b'path,emotion,speaker\na.wav\n', 'lacks its path or speaker'), (b'path;emotion;speaker\na.wav;fear;x\n', 'has no column'),
    (b'\x00\x01\x02\n\x00,\x00', 'has no column'), (b'path,emotion,speaker\na.wav,fear,x,,,\n', None)])
def test_bad_lists_are_told(folder, content, problem):
    put(folder/'03a01Fa.wav'); (folder/'my.csv').write_bytes(content)
    clips = load_clips(folder)
    assert len(clips) == 1 and (problem is None or any(problem in p for p in told(clips).values()))

def test_tables_of_the_corpora_are_no_lists(folder):
    put(folder/'03a01Fa.wav')
    for name in ('VideoDemographics.csv', 'SentenceFilenames.csv', 'db.files.csv'): (folder/name).write_text('a,b\n1,2\n')
    assert report(load_clips(folder)).empty and not is_foreign('mine.csv')


# ---- demo corpora, selections, the report

def test_demo_clips_name_themselves(folder):
    put(folder/'demo'/'emodb'/'03a01Fa.wav', 1); (folder/'demo'/'demo.json').write_text('{}'); put(folder/'real'/'03a01Fa.wav', 2)
    (folder/'demo'/'emodb'/'03a01Wa.wav').touch()
    both = load_clips(folder)
    assert list(both['clip']) == ['demo-emodb/03a01Fa', 'emodb/03a01Fa']
    assert list(both.iloc[0][['corpus', 'speaker', 'sentence']]) == ['demo-emodb', 'demo-emodb/03', 'demo-emodb/a01']
    assert describe(both) == 'EMO-DB 1, demo EMO-DB 1 clips' and report(both).corpus[0] == 'demo-emodb'
    assert describe(paper_clips(both)) == 'EMO-DB 1 clips' # never mixed
    for below in (folder/'demo', folder/'demo'/'emodb'): assert describe(load_clips(below)) == 'demo EMO-DB 1 clips'
    assert list(load_clips(folder, 'demo-emodb').corpus) == ['demo-emodb'] and len(load_clips(folder, 'emodb')) == 2

def test_selection_of_the_paper(folder):
    for i, name in enumerate(['03a01Fa', '03a01La', 'DC_a01', '03-01-02-01-01-01-01', '03-01-05-01-01-01-01', '1001_DFA_ANG_XX']):
        put(folder/f'{name}.wav', i)
    assert describe(paper_clips(load_clips(folder))) == 'EMO-DB 1, SAVEE 1, RAVDESS 1 clips'
    film(folder/'s1_an_1.avi', 9); (folder/'broken.wav').touch()
    clips = load_clips(folder)
    assert describe(paper_clips(clips)) == "EMO-DB 1, SAVEE 1, eNTERFACE'05 1 clips"
    assert list(paper_clips(clips).index) == [0, 1, 2] and report(paper_clips(clips)).equals(report(clips)) and len(report(clips)) == 1
    assert describe(paper_clips(clips[clips.corpus == 'cremad'])) == 'CREMA-D 1 clips' # where there is no other
    with pytest.raises(EmonbError, match='hold none of the seven emotions'): paper_clips(clips[clips.emotion == 'boredom'])

def test_report_survives_storing_and_its_loss_is_told(folder, tmp_path):
    put(folder/'03a01Fa.wav'); (folder/'broken.wav').touch()
    clips = load_clips(folder)
    clips.to_parquet(tmp_path/'clips.parquet')
    back = pd.read_parquet(tmp_path/'clips.parquet')
    pd.testing.assert_frame_equal(back, clips); pd.testing.assert_frame_equal(report(back), report(clips))
    back.attrs = {}
    with pytest.raises(EmonbError, match='lost its report'): report(back)

def test_recordings_are_never_embedded(folder):
    put(folder/'03a01Fa.wav'); put(folder/'demo'/'KL_a01.wav'); (folder/'demo'/'demo.json').touch()
    demo, real = (Player(row) for _, row in load_clips(folder).iterrows())
    assert '<audio' in demo._repr_html_() and len(demo._repr_html_()) < 50_000
    assert '<audio' not in real._repr_html_() and 'base64' not in real._repr_html_() and 'emodb/03a01Fa' in repr(real)


# ---- cache

def test_second_call_decodes_nothing_and_a_change_is_seen(folder, monkeypatch):
    put(folder/'03a01Fa.wav', 1); put(folder/'KL_a01.wav', 2)
    first = load_clips(folder)
    with monkeypatch.context() as patch:
        patch.setattr(emonb.data, 'read_native', None)
        pd.testing.assert_frame_equal(load_clips(folder), first)
    moved = folder.with_name('moved')
    shutil.copytree(folder, moved)
    assert list(load_clips(moved)['digest']) == list(first.digest) and load_clips(moved).path[0].startswith(str(moved))
    put(folder/'03a01Fa.wav', 3); os.utime(folder/'03a01Fa.wav', ns=(1, 1))
    assert (load_clips(folder).digest == first.digest).tolist() == [False, True]

def test_sounds_that_change_places_are_heard_again(folder): # of one size and one date, as from an archive without dates
    clips = [folder/'03a01Fa.wav', folder/'KL_a01.wav']
    for number, file in enumerate(clips): put(file, number); os.utime(file, ns=(4*10**17, 4*10**17))
    first = load_clips(folder)
    aside = clips[0].rename(folder/'aside'); clips[1].rename(clips[0]); aside.rename(clips[1])
    assert list(load_clips(folder).digest) == list(first.digest)[::-1] and first.digest.nunique() == 2

def test_cache_that_cannot_be_written(folder, cache, monkeypatch):
    put(folder/'03a01Fa.wav')
    cache.write_text('a file in its place')
    with pytest.raises(EmonbError, match='set EMONB_CACHE'): load_clips(folder)
    cache.unlink()
    for code, reason in ((errno.ENOSPC, 'no space is left'), (errno.EROFS, 'read-only'), (errno.EACCES, 'not permitted')):
        def full(*_, **__): raise OSError(code, os.strerror(code))
        with monkeypatch.context() as patch:
            patch.setattr(pd.DataFrame, 'to_parquet', full)
            with pytest.raises(EmonbError, match=reason): load_clips(folder)
    assert len(load_clips(folder)) == 1 # nothing half-written was left behind


# ---- integrity

def test_integrity_of_a_thinned_corpus(folder):
    names = sorted(official_names('savee'))
    for i, name in enumerate(names[2:]): put(folder/f'{name[6:]}.wav', i, seconds=.55)
    shutil.copy(folder/'KL_a01.wav', folder/'KL_h01.wav')
    clips = load_clips(folder)
    assert list(check(clips).iloc[0]) == ['savee', 478, 480, 2, 0, 'incomplete: 2 missing']
    assert set(differences(clips).value) == {'anger', 'DC'} and list(duplicates(clips).clips) == ['savee/KL_a01, savee/KL_h01']
    text = check_text(folder)
    assert 'missing: savee/DC_a01, savee/DC_a02' in text and 'same sound, not known of the release: savee/KL_a01' in text
    for i, name in enumerate(names[:2]): put(folder/f'{name[6:]}.wav', 900 + i, seconds=.55)
    assert list(check(load_clips(folder)).verdict) == ['complete, but cut or padded: 264 of 1843 s']

def test_verdicts_of_counts(folder):
    put(folder/'1001_DFA_ANG_XX.wav', 1); put(folder/'1001_DFA_DIS_XX.wav', 2)
    clips = load_clips(folder)
    assert check(clips).verdict[0] == 'a part: 2 of 7442' and official_count('enterface') == 1287
    grow = lambda n: clips.iloc[[0]*n].assign(emotion=np.repeat(['anger', 'neutral'], [n - 1087, 1087]))
    silent = pd.DataFrame([dict(file='1076_MTI_SAD_XX.wav', problem='is silent', advice='', kept=False, corpus='cremad')])
    nothing = silent[:0].astype({'file': str})
    assert check(grow(7441), silent).verdict[0] == 'complete, but for 1076_MTI_SAD_XX, silent in the release'
    assert check(grow(7441), nothing).verdict[0] == 'incomplete: 1 missing'
    assert check(grow(7442), nothing).verdict[0] == 'the right number, but not the published labels'
    assert check(grow(7443), nothing).verdict[0] == '1 more than the release holds'


# ---- damaged files

_child = '''
    import faulthandler, sys; faulthandler.enable()
    from emonb.data import load_clips, read_audio, report
    clips = load_clips(sys.argv[1])
    told = report(clips)
    assert len(told[~told.kept]) + len(clips) == int(sys.argv[2]), (len(told), len(clips))
    assert (clips.duration >= .512).all() and clips.digest.str.len().eq(32).all()
    for path, samples, rate in zip(clips.path, clips.samples, clips.sample_rate):
        assert len(read_audio(path)) == -(-samples*16000//rate)
    assert told.problem.str.len().gt(0).all() and not told.problem.str.contains('\\\\n').any()
    print(len(clips), len(told))
'''

def mutated(content, rng):
    "`content` with some bytes flipped, cut or inserted, half of the time in the header."
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        i = rng.randrange(min(len(content), rng.choice([200, len(content)]))) if content else 0
        how = rng.random()
        if how < .5: content[i:i+1] = bytes([rng.choice([0, 255, 127, 128, rng.randrange(256)])])
        elif how < .65: content[i:i+4] = rng.choice([b'\xff'*4, b'\0'*4, b'\x7f\xff\xff\xff', b'\xff\xff\xff\x7f'])
        elif how < .8: del content[i:i+rng.choice([1, 4, 100, 5000])]
        elif how < .9: content[i:i] = rng.randbytes(rng.choice([1, 4, 100]))
        else: del content[i:]
    return bytes(content)

@pytest.mark.fault('a recording with random bytes in it', 1500)
def test_mutated_files_are_kept_or_told(folder):
    "In a process of its own: a decoder that crashes must fail this test, not end it."
    seeds = [put(folder/f'seed{suffix}').read_bytes() for suffix in ('.wav', '.flac', '.mp3', '.ogg', '.aiff')]
    seeds += [film(folder/name, codec=codec, rate=44100).read_bytes() for name, codec in
              (('seed.avi', 'pcm_s16le'), ('seed2.avi', 'mp3'), ('seed.mp4', 'aac'), ('seed.mkv', 'pcm_s16le'), ('seed.flv', 'mp3'))]
    suffixes = ['.wav', '.flac', '.mp3', '.ogg', '.aiff', '.avi', '.avi', '.mp4', '.mkv', '.flv']
    for path in folder.iterdir(): path.unlink()
    rng, count = random.Random(5), 1500
    names = (f'{a}_{s}_{e}_XX' for a, s, e in product(range(1001, 1092), ('DFA', 'IEO', 'TIE'), ('ANG', 'DIS', 'FEA', 'HAP', 'NEU', 'SAD')))
    for i, name in zip(range(count), names): (folder/f'{name}{suffixes[i % 10]}').write_bytes(mutated(seeds[i % 10], rng))
    child = subprocess.run([sys.executable, '-c', textwrap.dedent(_child), str(folder), str(count)], capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, f'exit status {child.returncode}: {child.stderr[-2000:]}'
    kept, told_ = map(int, child.stdout.split())
    assert 100 < kept < count - 100
