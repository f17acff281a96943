"The page on which one picks a clip: what goes into it, and that its script is one that a browser can run."
import base64, io, json, re, shutil, subprocess

import cv2, numpy as np, pandas as pd, pytest, soundfile as sf

from emonb.core import EmonbError
from emonb.evaluation import probability_columns
from emonb.explore import channel_uris, chosen, page, sound_uri
from emonb.features import sample_rate
from emonb.paper import emotions

tone = .3*np.sin(2*np.pi*440*np.arange(sample_rate)/sample_rate).astype(np.float32) # one second

def content(uri): return base64.b64decode(uri.split(',', 1)[1])

def test_sound_comes_back():
    y, rate = sf.read(io.BytesIO(content(sound_uri(tone))))
    assert rate == sample_rate and abs(len(y) - len(tone)) < 3000 and abs(np.abs(np.fft.rfft(y[2000:12_000])).argmax()*rate/10_000 - 440) < 3

def test_both_channels_show_the_tone_at_its_height():
    for uri in channel_uris(tone, 96, 400):
        picture = cv2.imdecode(np.frombuffer(content(uri), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert picture.shape == (96, 400) and abs(2000*(1 - (picture.mean(axis=1).argmax() + .5)/96) - 440) < 130

@pytest.fixture
def some(tmp_path):
    sf.write(tmp_path/'a.wav', tone, sample_rate)
    rows = [dict(clip=f'x/{speaker}{n}', speaker=speaker, emotion=emotions[n], path=str(tmp_path/'a.wav')) for speaker, count in (('s', 3), ('t', 2), ('u', 1)) for n in range(count)]
    clips = pd.DataFrame([*rows, {**rows[0], 'clip': 'x/again'}, {**rows[0], 'clip': 'x/unheard', 'speaker': 'v'}])
    heard = clips[:-1]['clip'].repeat(3).reset_index(drop=True)
    p = np.random.default_rng(0).dirichlet(np.ones(7), len(heard))
    predictions = pd.DataFrame(p, columns=probability_columns).assign(clip=heard, start=np.tile([.512, 0, .256], len(heard)//3))
    return clips, predictions

def test_one_clip_an_emotion_of_the_speakers_with_most(some):
    made = chosen(*some)
    assert [(each['speaker'], each['emotion']) for each in made] == [('s', e) for e in sorted(emotions[:3])] + [('t', e) for e in sorted(emotions[:2])]
    assert all([chunk['start'] for chunk in each['chunks']] == [0, .256, .512] for each in made) and all(each['seconds'] == 1 for each in made)
    assert all(abs(sum(chunk['p']) - 1) < .005 for each in made for chunk in each['chunks'])
    with pytest.raises(EmonbError, match='none of the clips was predicted'): chosen(some[0][-1:], some[1])

browser = """
const parts = {}, fake = () => ({style: {}, replaceChildren(...all) { this.all = all; this.value = all[0].value; }, value: ''});
globalThis.Option = function (text, value) { this.value = value; };
globalThis.document = {currentScript: {parentElement: {querySelector: name => parts[name] ??= fake()}}};
globalThis.requestAnimationFrame = () => {};
SCRIPT
const first = [parts['.said'].textContent, parts['.bars'].innerHTML.split('<rect').length - 1, parts['.emotion'].all.length];
parts['.sound'].currentTime = .6; parts['.sound'].paused = true; parts['.sound'].onseeked();
const later = [parts['.said'].textContent, parts['.now'].style.left];
parts['.speaker'].value = 't'; parts['.speaker'].onchange();
console.log(JSON.stringify([...first, ...later, parts['.emotion'].all.length, parts['.sound'].src.slice(0, 15)]));
"""

def test_the_page_holds_all_and_its_script_runs(some, tmp_path):
    made = chosen(*some)
    html = page(made, .512)
    assert 'http' not in html and all(f'</i>{emotion}' in html for emotion in emotions)
    script, = re.findall('<script>(.*?)</script>', html, re.S)
    if not shutil.which('node'): pytest.skip('needs node, to run the script')
    (tmp_path/'page.js').write_text(browser.replace('SCRIPT', script))
    done = subprocess.run(['node', str(tmp_path/'page.js')], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said, bars, choices, later, place, others, source = json.loads(done.stdout)
    p = np.array([chunk['p'] for chunk in made[0]['chunks']])
    best = lambda p: f'{emotions[p.argmax()]}, {np.floor(100*p.max() + .5):.0f} %'
    assert said == f"Meant: {made[0]['emotion']}. R1 on this half second: {best(p[0])}; over the whole clip: {best(p.mean(axis=0))}."
    assert later.startswith(f"Meant: {made[0]['emotion']}. R1 on this half second: {best(p[2])};") and place == '60 %'
    assert (bars, choices, others, source) == (21, 3, 2, 'data:audio/mpeg')
