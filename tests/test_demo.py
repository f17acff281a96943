"The demo corpora on disk, and which corpora are opened when."
import json, os, re, subprocess, sys
import av, joblib, numpy as np, pandas as pd, pytest, soundfile as sf
from emonb import demo
from emonb.audio import read_native
from emonb.core import EmonbError, get_profile, root
from emonb.demo import demo_corpora, open_corpora, pcm, plan, sample_clips, speak, write_clip
from emonb.faces import film, make_head, movements
from emonb.protocols import splits
from emonb.synthetic import prosody

few = 'import emonb.demo as d; whole = d.plan(); d.plan = lambda: whole.iloc[::20].reset_index(drop=True)\n' # 29 files

@pytest.fixture
def small(tmp_path, monkeypatch):
    "A cache of its own, and a twentieth of the demo corpora."
    whole = plan()
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'cache'))
    monkeypatch.delenv('EMONB_DATA', raising=False)
    monkeypatch.setattr(demo, 'plan', lambda: whole.iloc[::20].reset_index(drop=True))
    return tmp_path

def row(name): return next(r for r in plan().to_dict('records') if r['path'].endswith(name))

def test_the_layouts_are_the_originals():
    paths = plan().path
    assert paths.is_unique and not paths.str.contains(r'\\').any()
    emotions = 'anger|disgust|fear|happiness|sadness|surprise'
    layouts = (r'emodb/wav/(03|08|09|1[0-6])[ab]\d\d[WLEAFTN][a-f]\.wav',
               r'savee/AudioData/(DC|JE|JK|KL)/(a|d|f|h|n|sa|su)\d\d\.wav',
               rf'enterface/enterface database/subject \d+/({emotions})/(sentence [1-5]/)?[^/]+\.avi')
    assert paths.str.fullmatch('|'.join(layouts)).all()
    assert set(plan().corpus) == {'emodb', 'savee', 'enterface'} and 550 < len(plan()) < 650

def test_every_oddity_of_enterface_is_there():
    paths = plan().path[plan().corpus == 'enterface'].str.removeprefix('enterface/enterface database/')
    of = lambda subject: paths[paths.str.startswith(f'subject {subject}/')]
    assert len(of(11)) == 30 and of(11).str.contains('/s12_').all() and of(12).str.contains('/s12_').all()
    assert of(3).str.contains(r'/s_3_').sum() == 16 and len(of(3)) == 30
    assert 'subject 16/surprise/sentence 3/s16_su_3avi.avi' in set(of(16))
    assert {'subject 2/anger/sentence 1/s2_an_2.avi', 'subject 2/anger/sentence 2/s2_an_1.avi'} < set(of(2))
    assert len(of(6)) == 6 and not of(6).str.contains('sentence').any()
    assert len(of(23)) == 27 and not of(23).str.contains('happiness/sentence [123]').any()
    regular = paths.map(lambda p: bool(re.fullmatch(r'subject (\d+)/(..)[a-z]+/sentence (\d)/s\1_\2_\3\.avi', p)))
    assert (~regular).sum() == 30 + 16 + 1 + 2 + 6

def test_repetitions_are_those_of_the_originals():
    p = plan().assign(sentence=plan().sentences.str[0])
    assert p[p.speaker == 'emodb/08'].emotion.nunique() == 6 and set(p[p.corpus == 'emodb']['take']) == {'a', 'b', 'c'}
    savee = p[p.speaker == 'savee/JK'].assign(code=lambda t: t.path.str.extract(r'/(\w+)\.wav')[0])
    spoken = savee.set_index('code').sentence
    assert spoken['n16'] == spoken['n01'] == spoken['a01'] == spoken['su01']
    assert spoken['n19'] == spoken['a04'] != spoken['d04']
    assert savee[savee.code.isin(['n01', 'n16'])]['take'].nunique() == 2 # the same words, another recording
    enterface = p[(p.corpus == 'enterface') & (p.sentences.str.len() == 1)]
    assert (enterface.groupby('sentence').emotion.nunique() == 1).all() # the words give the emotion away

def test_an_avi_has_sound_and_pictures(tmp_path):
    r = row('s16_su_3avi.avi')
    write_clip(tmp_path, r)
    with av.open(str(tmp_path/r['path'])) as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ('mpeg4', 'pcm_s16le')
        assert (video.width, video.height, video.average_rate, audio.rate, audio.channels) == (160, 128, 25, 48000, 2)
        parts, pictures = [], []
        for frame in file.decode(video, audio): (parts if isinstance(frame, av.AudioFrame) else pictures).append(frame)
    stereo = np.concatenate([part.to_ndarray().reshape(-1, 2) for part in parts])
    sound = speak(r)
    assert np.array_equal(stereo, pcm(np.c_[sound, 0.8*sound])) and len(pictures) == -(-len(sound)//1920)
    drawn = film(sound, 48000, r['speaker'], r['emotion'], *r['sentences'])
    seen = np.stack([picture.to_ndarray(format='rgb24') for picture in pictures])
    assert np.abs(seen.astype(int) - drawn).mean() < 6 # MPEG-4 loses a little
    with av.open(str(tmp_path/r['path'])) as file:
        times = [packet.dts*packet.time_base for packet in file.demux(video=0) if packet.dts is not None]
    assert np.allclose(np.diff(np.array(times, float)), 1/25)

def test_uncut_recordings_are_several_sentences(tmp_path):
    r = row('subject 6/anger/s6_an.avi')
    assert write_clip(tmp_path, r) > 8
    assert len(speak(r)) == sum(len(speak(dict(r, sentences=(s,)))) for s in r['sentences'])

def test_wav_headers_and_samples(tmp_path):
    for name, rate in (('Fa.wav', 16000), ('DC/n16.wav', 44100)):
        r = row(name)
        write_clip(tmp_path, r)
        info = sf.info(tmp_path/r['path'])
        assert (info.samplerate, info.channels, info.subtype, info.format) == (rate, 1, 'PCM_16', 'WAV')
        assert np.array_equal(sf.read(tmp_path/r['path'], dtype='int16')[0], pcm(speak(r)))

def test_workers_write_the_same_bytes(tmp_path):
    rows = plan().iloc[[3, 40, 250, 400, 579]].to_dict('records')
    for r in rows: write_clip(tmp_path/'one', r)
    joblib.Parallel(n_jobs=2)(joblib.delayed(write_clip)(tmp_path/'two', r) for r in reversed(rows))
    for r in rows: assert (tmp_path/'one'/r['path']).read_bytes() == (tmp_path/'two'/r['path']).read_bytes(), r['path']

def test_two_processes_at_once(tmp_path):
    env = dict(os.environ, EMONB_CACHE=str(tmp_path), PYTHONPATH=str(root()))
    code = few + 'print(d.demo_corpora())'
    start = lambda: subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, env=env)
    both = [start(), start()]
    folders = [process.communicate(timeout=120)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0] and folders[0] == folders[1]
    made = [p for p in tmp_path.glob('demo/*') if p.is_dir()]
    assert [str(p) for p in made] == folders[:1] # one folder, and nothing half-made
    media = [p for p in made[0].rglob('*') if p.suffix in ('.wav', '.avi')]
    assert json.loads((made[0]/'demo.json').read_text())['files'] == len(media) == 29

def test_auto_without_corpora_says_that_it_uses_the_demo(small, monkeypatch, capsys):
    monkeypatch.setattr(demo, 'data_dir', lambda: small/'data')
    clips = open_corpora('auto', 'quick')
    assert 'no number below is about real speech' in capsys.readouterr().out
    assert clips.corpus.str.startswith('demo-').all() and clips.speaker.str.startswith('demo-').all()
    assert clips.equals(open_corpora('demo', 'quick')) and clips.equals(open_corpora(demo_corpora(), 'quick'))
    assert capsys.readouterr().out == ''

def test_a_named_folder_without_recordings_is_an_error(small, monkeypatch):
    for folder in (small/'empty', small/'absent'):
        monkeypatch.setenv('EMONB_DATA', str(folder))
        with pytest.raises(EmonbError, match='EMONB_DATA'): open_corpora()
        folder.with_name('empty').mkdir(exist_ok=True)
        (small/'empty'/'readme.txt').write_text('nothing')
    with pytest.raises(EmonbError): open_corpora(small/'absent', 'quick')

def test_auto_takes_what_is_in_data(small, monkeypatch, capsys):
    for name in ('03a01Wa', '03a01Ta', '08a02Na'):
        path = small/'mine'/'emodb'/'wav'/f'{name}.wav'
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, pcm(speak(row('Wa.wav'))), 16000)
    (small/'data').mkdir()
    (small/'data'/'emodb').symlink_to(small/'mine'/'emodb')
    monkeypatch.setenv('EMONB_DATA', str(small/'data'))
    assert list(open_corpora('auto', 'quick')['clip']) == ['emodb/03a01Ta', 'emodb/03a01Wa', 'emodb/08a02Na']
    assert capsys.readouterr().out == ''

def table(speakers, emotions, each, corpus='x'):
    return pd.DataFrame([dict(clip=f'{corpus}/{s}{e}{k}', corpus=corpus, speaker=f'{corpus}/{s:02}', emotion=e, sentence=f'{corpus}/{k % 2}')
                         for s in range(speakers) for e in emotions for k in range(each)])

@pytest.mark.parametrize('speakers, each, count', [(10, 3, 84), (24, 8, 84), (4, 15, 84), (4, 1, 84), (3, 5, 7)])
def test_a_sample_is_spread(speakers, each, count):
    clips = table(speakers, 'abcdefg', each)
    kept = sample_clips(clips, count)
    assert len(kept) == min(count, len(clips)) and kept['clip'].is_unique and sample_clips(clips, count).equals(kept)
    for column in ('speaker', 'emotion'):
        sizes = kept[column].value_counts().reindex(clips[column].unique(), fill_value=0)
        assert sizes.max() - sizes.min() <= (1 if column == 'speaker' else 4), column
    assert kept.equals(clips[clips['clip'].isin(kept['clip'])].reset_index(drop=True)) # in the same order
    if count > 14: assert (pd.crosstab(kept.emotion, kept.sentence) > 0).all(axis=None) # else no split by sentences

def test_a_sample_of_two_sentences_can_be_split_by_speaker_and_sentence():
    clips = table(24, 'abcdefgh', 4).assign(digest=lambda clips: clips['clip']) # RAVDESS: two sentences, each said twice
    clips['sentence'] = clips.groupby(['speaker', 'emotion']).cumcount().mod(2).map('x/{}'.format)
    kept = sample_clips(clips, 84)
    assert kept.groupby('speaker').sentence.nunique().eq(2).all()
    assert sum(len(split.test) for split in splits(kept, 'speaker+sentence')) == len(kept)

def test_each_corpus_is_sampled_by_itself(small, capsys):
    clips = pd.concat([table(4, 'ab', 5, 'x'), table(2, 'abc', 1, 'y')], ignore_index=True)
    assert sample_clips(clips, 8).corpus.value_counts().to_dict() == {'x': 8, 'y': 6}
    clips = open_corpora('demo', get_profile('smoke'))
    assert re.search(r'Profile smoke: \d+ of \d+ demo-emodb', capsys.readouterr().out) and 'report' in clips.attrs

def test_heads_and_movements():
    heads = {make_head(f'enterface/{k:02}') for k in range(1, 45)}
    assert len(heads) == 44 and set(movements.index) == set(prosody.index) - {'boredom'}
    noise = np.random.default_rng(0).normal(size=48000)
    one, other = (film(noise, 48000, 'enterface/01', 'fear', name) for name in ('a', 'b'))
    assert one.shape == (25, 128, 160, 3) and one.dtype == np.uint8 and not np.array_equal(one, other)

@pytest.mark.data
def test_real_corpora_are_never_replaced():
    if not os.environ.get('EMONB_DATA'): pytest.skip('EMONB_DATA names no folder')
    assert demo._folder('auto') == demo.data_dir()
