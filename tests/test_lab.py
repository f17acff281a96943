"""JupyterLab for real: a browser opens notebooks, runs all their cells, looks at what came out, and picks clips.

It takes Chromium or Chrome, and its driver (on Debian: apt-get install chromium chromium-driver). Screenshots are left in `tests/artefacts/`."""
import json, os, re, shutil, subprocess, sys, time
from pathlib import Path

import pytest

root = Path(__file__).parent.parent
chromium, driver = shutil.which('chromium') or shutil.which('google-chrome'), shutil.which('chromedriver')
pytestmark = pytest.mark.skipif(not (chromium and driver), reason='needs chromium or google-chrome, and chromedriver, on the PATH')


def wait_for(what, seconds, condition):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition(): return found
        time.sleep(.3)
    raise AssertionError(f'{what}: not within {seconds} s')

@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "Address of a JupyterLab on loopback that serves copies of two notebooks."
    folder, quiet = tmp_path_factory.mktemp('lab'), dict(os.environ, IN_TEST='1', JUPYTER_CONFIG_DIR=str(tmp_path_factory.mktemp('config')))
    for name in ('03_synthetic', '08b_explore'): shutil.copy(root/'nbs'/f'{name}.ipynb', folder)
    log = open(folder/'lab.log', 'w+')
    server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--ip=127.0.0.1', '--port=0', '--allow-root', '--ServerApp.token=x',
                               '--LabApp.expose_app_in_browser=True', f'--ServerApp.root_dir={folder}'], stdout=log, stderr=log, env=quiet)
    try:
        address = lambda: re.search(r'http://127\.0\.0\.1:\d+/', Path(log.name).read_text())
        yield wait_for('JupyterLab', 120, address)[0]
    finally: server.terminate(); server.wait(20); log.close()

@pytest.fixture(scope='module')
def browser():
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--window-size=1400,1600'): options.add_argument(argument)
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try: yield opened
    finally: opened.quit()

notebook = 'const panel = window.jupyterapp.shell.currentWidget; const cells = [...panel.content.model.cells];'

def ran(lab, browser, name):
    "Open a notebook and run all of it: its code cells with what they put out, none of it an error."
    browser.get(f'{lab}lab/tree/{name}.ipynb?token=x&reset')
    ready = "return window.jupyterapp?.shell.currentWidget?.context?.sessionContext?.session?.kernel?.status === 'idle'"
    wait_for('a kernel', 120, lambda: browser.execute_script(ready))
    browser.execute_script("window.done = null; window.jupyterapp.commands.execute('notebook:run-all-cells')"
                           ".then(() => window.done = 'yes', error => window.done = String(error))")
    assert wait_for('all cells', 240, lambda: browser.execute_script('return window.done')) == 'yes'
    code = browser.execute_script(notebook + "return cells.filter(c => c.type === 'code').map(c => c.toJSON())")
    assert len(code) > 10 and all(cell['execution_count'] for cell in code if ''.join(cell['source']).strip())
    assert not [output for cell in code for output in cell['outputs'] if output['output_type'] == 'error']
    return code

def keep(browser, name):
    "A screenshot among the artefacts."
    artefacts = root/'tests'/'artefacts'
    artefacts.mkdir(exist_ok=True)
    browser.save_screenshot(str(artefacts/f'lab_{name}.png'))

def shown_at(browser, kind):
    "Scroll to the first code cell that puts out `kind`, and say which it is."
    at = browser.execute_script(notebook + "return cells.findIndex(c => c.type === 'code' && JSON.stringify(c.toJSON().outputs).includes(arguments[0]))", kind)
    assert at >= 0, f'no cell puts out {kind}'
    browser.execute_script(notebook + "panel.content.activeCellIndex = arguments[0]; panel.content.scrollToItem(arguments[0])", at)
    return at

def test_a_reader_runs_a_notebook_sees_a_figure_and_gets_a_player(lab, browser):
    ran(lab, browser, '03_synthetic')
    for kind, seen in (('image/png', 'img'), ('<audio', 'audio')):
        at = shown_at(browser, kind)
        look = (notebook + "const shown = panel.content.widgets[arguments[0]].node.querySelector('.jp-OutputArea-output ' + arguments[1]);"
                "return shown && {width: shown.getBoundingClientRect().width, pixels: shown.naturalWidth ?? 0, seconds: shown.duration ?? 0}")
        assert wait_for(f'a drawn {seen}', 30, lambda: (it := browser.execute_script(look, at, seen)) and it['width'] > 50 and (it['pixels'] > 100 or (it['seconds'] or 0) > .2) and it)
        keep(browser, seen)

def test_a_reader_picks_a_clip_hears_it_and_sees_what_r1_says(lab, browser):
    ran(lab, browser, '08b_explore')
    at = shown_at(browser, 'class=\\"emonb\\"')
    page = notebook + "const page = panel.content.widgets[arguments[0]].node.querySelector('.emonb'); const of = name => page.querySelector('.' + name);"
    wait_for('the page', 30, lambda: browser.execute_script(page + "return page && of('speaker').options.length", at))
    pick = page + ("const box = of('emotion'); box.selectedIndex = box.options.length - 1 - box.selectedIndex; box.dispatchEvent(new Event('change', {bubbles: true}));"
                   "return box.value")
    look = page + ("return {said: of('said').textContent, sound: of('sound').src, seconds: of('sound').duration, bars: page.querySelectorAll('rect').length,"
                   "pixels: Math.min(of('fine').naturalWidth, of('quick').naturalWidth)}")
    heard = lambda: (it := browser.execute_script(look, at)) and (it['seconds'] or 0) > .5 and it['pixels'] > 50 and it['bars'] >= 7 and it
    before = wait_for('a clip', 30, heard)
    emotion = browser.execute_script(pick, at)
    after = wait_for('the other clip', 30, lambda: (it := heard()) and it['sound'] != before['sound'] and it)
    assert f'Meant: {emotion}' in after['said'] and f'Meant: {emotion}' not in before['said'] and 'R1 on this half second' in after['said']
    keep(browser, 'explore')
