"Copies of clips: equal to librosa's, in their place in the feature file, and never on the wrong side of a split."
import librosa, numpy as np, pandas as pd, pytest, soundfile as sf

from emonb import augmentation
from emonb.audio import read_audio, read_native
from emonb.augmentation import analysed, augmented_features, stretched, variants, vary, window, with_copies, with_variants
from emonb.chunks import chunk_features
from emonb.core import EmonbError
from emonb.data import load_clips
from emonb.features import chunk_seconds, chunk_spectrograms, sample_rate
from emonb.protocols import LeakageError, audit, check_split, compare, split

rng = np.random.default_rng(0)

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Clips of tones and of noise, three to six tenths of a second above a chunk, in a list of our own."
    place, rows = tmp_path_factory.mktemp('corpus'), []
    for speaker in range(6):
        for emotion in ('anger', 'sadness'):
            for take in range(3):
                y = .1*rng.standard_normal(int((.55 + .4*take)*22050)) # no voiced frame
                if emotion == 'anger': y += .3*np.sin(2*np.pi*150*np.arange(len(y))/22050)
                name = f'{speaker}-{emotion}-{take}.wav'
                sf.write(place/name, y, 22050)
                rows.append(dict(path=name, emotion=emotion, speaker=f's{speaker}', sentence=f't{take}'))
    pd.DataFrame(rows).to_csv(place/'list.csv', index=False)
    return place

@pytest.fixture(scope='module')
def cache(tmp_path_factory): return tmp_path_factory.mktemp('cache')

@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache): monkeypatch.setenv('EMONB_CACHE', str(cache))

@pytest.fixture
def clips(folder): return load_clips(folder)


@pytest.mark.parametrize('how', list(variants[['shift', 'tempo']].iloc[1:].itertuples(index=False, name=None)))
@pytest.mark.parametrize('samples', [700, 8192, 30_001])
def test_versions_are_librosas(how, samples):
    y, (shift, tempo) = rng.standard_normal(samples).astype(np.float32), how
    ours, double = vary(y, shift, tempo), y.astype(float)
    theirs = (librosa.effects.pitch_shift(double, sr=sample_rate, n_steps=shift, n_fft=window) if shift
              else librosa.effects.time_stretch(double, rate=tempo, n_fft=window))
    assert ours.dtype == np.float32 and ours.shape == theirs.shape == (round(samples/tempo),)
    assert np.abs(ours - theirs).max() < 1e-4*np.abs(y).max()
    assert np.array_equal(ours, vary(y, shift, tempo, analysed(y)))

def test_a_tempo_of_one_changes_nothing():
    y = rng.standard_normal(20_000).astype(np.float32)
    assert np.abs(stretched(analysed(y), 1., len(y)) - y).max() < 1e-4

def test_features_lie_where_the_table_says(clips):
    made = augmented_features(clips)
    assert len(made.table) == len(made.spectrograms) == len(made.handbuilt)
    plain = chunk_features(clips)
    mine = np.flatnonzero(made.table.parent == '')
    assert np.allclose(made.spectrograms[mine], plain.spectrograms, atol=1e-4)
    assert np.allclose(made.handbuilt[mine], plain.handbuilt, rtol=1e-3, atol=1e-3)
    for i in rng.choice(len(made.table), 20, replace=False):
        row = made.table.iloc[i]
        y = vary(read_audio(row.path), row['shift'], row.tempo)
        assert np.allclose(made.spectrograms[i], chunk_spectrograms(y, [round(row.start*sample_rate)])[0], atol=1e-4)
        assert row.end <= len(y)/sample_rate + 1e-6 and np.isfinite(made.handbuilt[i]).all()

def test_a_corpus_that_is_there_by_itself_is_taken_over(clips, monkeypatch, tmp_path):
    mixed = clips.assign(corpus=np.where(np.arange(len(clips)) % 3 == 0, 'x', 'y'))
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'whole'))
    whole = augmented_features(mixed)
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'parts'))
    augmented_features(mixed[mixed.corpus == 'y'])
    computed = []
    monkeypatch.setattr(augmentation, 'progress', lambda jobs, name, total: computed.append(total) or jobs)
    again = augmented_features(mixed)
    assert computed == [(mixed.corpus == 'x').sum()] and again.table.equals(whole.table)
    assert np.array_equal(again.spectrograms, whole.spectrograms) and np.array_equal(again.handbuilt, whole.handbuilt)

def test_a_version_shorter_than_a_chunk_has_no_row(clips):
    named, table = with_variants(clips), augmented_features(clips).table
    short = named[named.duration < chunk_seconds]
    assert len(short) and set(short.tempo) <= {1.07, 1.23}
    assert set(named['clip']) - set(table['clip']) == set(short['clip'])

@pytest.mark.parametrize('seconds, made', [(.41, []), (.42, ['tempo 0.81']), (.5, ['tempo 0.81', 'tempo 0.93'])])
def test_a_copy_without_an_original_has_its_features_and_is_in_no_part(clips, tmp_path, seconds, made):
    file, y = tmp_path/'short.wav', (.1*rng.standard_normal(round(seconds*sample_rate))).astype(np.float32) # `load_clips` would leave it out
    sf.write(file, y, sample_rate, subtype='FLOAT')
    changed = dict(path=str(file), duration=seconds, sample_rate=sample_rate, samples=len(y), digest=read_native(file).digest)
    short, name = clips.iloc[1:].copy(), clips['clip'].iloc[1]
    short.loc[short.index[0], list(changed)] = list(changed.values())
    table, spectrograms, values = augmented_features(short)
    rows = np.flatnonzero((table['clip'] == name) | (table.parent == name))
    assert table.variant.iloc[rows].tolist() == made and np.isfinite(values[rows]).all()
    for row in rows: assert np.allclose(spectrograms[row], chunk_spectrograms(vary(y, tempo=table.tempo.iloc[row]), [0])[0], atol=1e-4)
    for protocol in ('paper', 'clip'):
        part = with_copies(split(chunk_features(clips.iloc[2:]).table, protocol), table)
        check_split(table, part)
        assert not np.isin(rows, np.concatenate(list(part.parts.values()))).any()

def test_a_changed_file_is_named_in_one_line(clips, tmp_path):
    clips = clips.head(2).assign(digest=['0'*32, '1'*32])
    with pytest.raises(EmonbError, match='has changed since it was listed') as error: augmented_features(clips)
    assert '\n' not in str(error.value)

@pytest.mark.parametrize('protocol', ['paper', 'clip', 'speaker', 'speaker+sentence'])
def test_only_training_clips_have_copies(clips, protocol):
    table, plain = augmented_features(clips).table, chunk_features(clips).table
    originals = np.flatnonzero(table.parent == '')
    for seed in (0, 1):
        part = split(plain, protocol, seed)
        made = with_copies(part, table)
        check_split(table, made)
        for name in ('val', 'test'): assert np.array_equal(made.parts[name], originals[part.parts[name]])
        assert np.array_equal(np.intersect1d(made.train, originals), originals[part.train]) and len(made.train) > 3*len(part.train)
        assert not any(found['overlapping sound'][0] for pair, found in compare(table, made.parts).items())
        assert len(np.unique(np.concatenate(list(made.parts.values())))) == sum(map(len, made.parts.values()))

def test_whole_clips_keep_all_their_copies(clips):
    table, part = augmented_features(clips).table, split(chunk_features(clips).table, 'clip')
    made = with_copies(part, table)
    trained = set(table['clip'].iloc[made.train[table.parent.iloc[made.train] == '']])
    assert np.array_equal(made.train, np.flatnonzero(table['clip'].isin(trained) | table.parent.isin(trained)))

def test_the_audit_catches_copies_made_before_the_split(clips):
    table = augmented_features(clips).table
    unaware = split(table.drop(columns='parent'), 'clip')
    with pytest.raises(LeakageError, match='augmented cop'): check_split(table, unaware)
    found = audit(table, unaware).query("between == 'train | test' and shared == 'augmented copies'")
    assert found['count'].item() > 0 and found.promise.item() == 'forbidden'
    check_split(table, split(table, 'clip')) # one that knows of parents

def test_a_clip_of_ten_minutes_takes_memory_in_measure():
    import resource
    y = (.1*rng.standard_normal(600*sample_rate)).astype(np.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    z = vary(y, tempo=.81)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)/1024
    assert len(z) == round(len(y)/.81) and grown < 1500 # MB; it grows with the clip's length
