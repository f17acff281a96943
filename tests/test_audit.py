"Tables that others made: what is told, what is not, and what is refused."
import numpy as np, pandas as pd, pytest, soundfile

from emonb.audit import audit_csv, audit_table
from emonb.core import EmonbError

table = pd.DataFrame(dict(clip=[f'{person}{number}' for person in 'ABCDE' for number in range(4)],
                          sentence=[str(number) for person in 'ABCDE' for number in range(4)],
                          split=['train']*12 + ['dev']*4 + ['test']*4))
table['speaker'] = table['clip'].str[0]
apart = table.assign(sentence=table['split'] + table['sentence'])


def test_levels():
    assert audit_table(apart).keeps == ('clip', 'speaker', 'speaker+sentence')
    assert audit_table(table).keeps == ('clip', 'speaker')
    assert audit_table(table.assign(speaker='A')).keeps == ('clip',)
    found = audit_table(table.assign(clip='A1'))
    assert found.keeps == () and set(found.breaks) == {'clip', 'speaker', 'speaker+sentence'}
    assert 'keeps: nothing' in found.text


@pytest.mark.parametrize('change, level, why', [
    (dict(speaker=['A']*20), 'speaker', 'train and test share 1 speaker, 100 % of the test rows'),
    (dict(speaker=['A']*12 + ['B']*8), 'speaker', 'val and test share 1 speaker'),
    (dict(digest=['x', *'abcdefghijkopqrst'][:16] + ['x', '1', '2', '3']), 'clip', '1 identical recording, 25 %'),
    (dict(parent=['']*19 + ['A0']), 'clip', '1 augmented copy'),
    (dict(clip=['A0', *table['clip'][1:19], 'A0']), 'clip', '1 clip, 25 %'),
    (dict(sentence=['0']*20), 'speaker+sentence', '1 sentence')])
def test_each_leak(change, level, why):
    found = audit_table(apart.assign(**change))
    assert why in found.breaks[level] and why in found.text


def test_overlap():
    chunks = apart.assign(clip='A', speaker='A', start=np.arange(20)*.256, end=np.arange(20)*.256 + .512)
    assert '1 overlapping chunk,' in audit_table(chunks).breaks['clip']
    assert 'overlapping' not in audit_table(chunks.assign(end=chunks['start'] + .256)).breaks['clip']


def test_validation_is_listed_not_judged():
    found = audit_table(apart.assign(speaker=['A']*16 + ['B']*4))
    assert 'speaker' in found.keeps
    assert found.shared.set_index(['between', 'shared']).loc[('train | val', 'speakers'), 'count'] == 1
    no_test = apart[apart['split'] != 'test'].assign(speaker='A')
    assert 'speaker' in audit_table(no_test).breaks


def test_what_cannot_be_told():
    found = audit_table(apart[['split', 'speaker']])
    assert found.keeps == ('speaker',) and set(found.unknown) == {'clip', 'speaker+sentence'}
    half = audit_table(apart.assign(speaker=['A', 'A', *['']*18]))
    assert 'speaker' in half.unknown # empty cells could be anyone


@pytest.mark.parametrize('name', ['train', 'Training', ' TRAIN '])
def test_names_of_parts(name):
    for val in ('val', 'validation', 'Dev', 'valid'):
        audit_table(apart.assign(split=[name]*12 + [val]*4 + ['Test']*4))


@pytest.mark.parametrize('frame, message', [
    (apart.drop(columns='split'), "no column 'split' among clip"),
    (apart.replace(dict(split={'dev': 'holdout'})), "row 13: 'holdout' is no part"),
    (apart.assign(split=['train']*19 + [None]), 'row 20'),
    (apart.assign(split='train'), 'finds only train'),
    (apart.assign(split='test'), 'finds only test'),
    (apart[:0], 'finds only a header'),
    (apart[['split']], 'nothing to compare'),
    (apart.assign(start='soon', end='later'), "column 'start', row 1: 'soon' is no number")])
def test_refused(frame, message):
    with pytest.raises(EmonbError, match=message) as caught: audit_table(frame)
    assert len(str(caught.value).splitlines()) == 1


def test_csv(tmp_path):
    file = tmp_path/'splits.csv'
    table.to_csv(file, index=False)
    assert audit_csv(file)[1] and audit_csv(str(file), 'speaker')[1] and not audit_csv(file, 'speaker+sentence')[1]
    with pytest.raises(EmonbError, match='choose one of clip'): audit_csv(file, 'paper')
    apart[['split', 'speaker']].to_csv(file, index=False)
    assert audit_csv(file)[1] # speakers apart, so clips are
    apart[['split', 'sentence']].to_csv(file, index=False)
    assert not audit_csv(file, 'speaker')[1]


def test_numbers_keep_their_zeros(tmp_path):
    file = tmp_path/'splits.csv'
    file.write_text('clip,speaker,split\na,03,train\nb,3,test\n')
    assert audit_csv(file, 'speaker')[1]


@pytest.mark.parametrize('content', [None, b'', b'a,b\n1,2\n1,2,3,4\n', b'\xff\xfe\x00\x81', b'clip,split\n'])
def test_broken_files(tmp_path, content):
    file = tmp_path/'splits.csv'
    if content is not None: file.write_bytes(content)
    with pytest.raises(EmonbError, match='splits.csv') as caught: audit_csv(file)
    assert len(str(caught.value).splitlines()) == 1


def test_listens(tmp_path):
    rng = np.random.default_rng(0)
    sounds = rng.integers(-9000, 9000, (3, 4000)).astype(np.int16)
    for name, sound in zip(('a.wav', 'b.wav', 'c.flac', 'd.flac'), sounds[[0, 1, 2, 0]]):
        soundfile.write(tmp_path/name, sound, 16000, subtype='PCM_16')
    listed = pd.DataFrame(dict(path=['a.wav', 'b.wav', 'c.flac', 'd.flac'], split=['train', 'train', 'val', 'test']))
    listed.to_csv(tmp_path/'splits.csv', index=False)
    text, kept = audit_csv(tmp_path/'splits.csv')
    assert not kept and '1 identical recording' in text # though one is a wav and one a flac
    listed.replace('d.flac', 'gone.flac').to_csv(tmp_path/'splits.csv', index=False)
    text, kept = audit_csv(tmp_path/'splits.csv')
    assert kept and 'Sound was not compared: 1 of 4 files' in text
    (tmp_path/'gone.flac').write_bytes(b'nothing to hear')
    with pytest.raises(EmonbError, match='gone.flac'): audit_csv(tmp_path/'splits.csv')
