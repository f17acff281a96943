"""JupyterLab for real: a browser opens a notebook, runs all its cells and looks at what came out.

It takes Chromium and its driver (on Debian: apt-get install chromium chromium-driver). A screenshot is left in `tests/artefacts/`."""
import json, os, re, shutil, subprocess, sys, time
from pathlib import Path

import pytest

root = Path(__file__).parent.parent
chromium, driver = (shutil.which(name) for name in ('chromium', 'chromedriver'))
pytestmark = pytest.mark.skipif(not (chromium and driver), reason='needs chromium and chromedriver on the PATH')


def wait_for(what, seconds, condition):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition(): return found
        time.sleep(.3)
    raise AssertionError(f'{what}: not within {seconds} s')

@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "Address of a JupyterLab on loopback that serves a copy of the notebook."
    folder, quiet = tmp_path_factory.mktemp('lab'), dict(os.environ, IN_TEST='1', JUPYTER_CONFIG_DIR=str(tmp_path_factory.mktemp('config')))
    shutil.copy(root/'nbs'/'03_synthetic.ipynb', folder)
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

def test_a_reader_runs_a_notebook_sees_a_figure_and_gets_a_player(lab, browser):
    browser.get(f'{lab}lab/tree/03_synthetic.ipynb?token=x&reset')
    ready = "return window.jupyterapp?.shell.currentWidget?.context?.sessionContext?.session?.kernel?.status === 'idle'"
    wait_for('a kernel', 120, lambda: browser.execute_script(ready))
    browser.execute_script("window.done = null; window.jupyterapp.commands.execute('notebook:run-all-cells')"
                           ".then(() => window.done = 'yes', error => window.done = String(error))")
    assert wait_for('all cells', 240, lambda: browser.execute_script('return window.done')) == 'yes'

    code = browser.execute_script(notebook + "return cells.filter(c => c.type === 'code').map(c => c.toJSON())")
    assert len(code) > 10 and all(cell['execution_count'] for cell in code if ''.join(cell['source']).strip())
    outputs = [output for cell in code for output in cell['outputs']]
    assert not [output for output in outputs if output['output_type'] == 'error']

    for kind, seen in (('image/png', 'img'), ('<audio', 'audio')):
        at = browser.execute_script(notebook + "return cells.findIndex(c => c.type === 'code' && JSON.stringify(c.toJSON().outputs).includes(arguments[0]))", kind)
        assert at >= 0, f'no cell puts out {kind}'
        look = (notebook + "panel.content.activeCellIndex = arguments[0]; panel.content.scrollToItem(arguments[0]);"
                "const shown = panel.content.widgets[arguments[0]].node.querySelector('.jp-OutputArea-output ' + arguments[1]);"
                "return shown && {width: shown.getBoundingClientRect().width, pixels: shown.naturalWidth ?? 0, seconds: shown.duration ?? 0}")
        drawn = wait_for(f'a drawn {seen}', 30, lambda: (it := browser.execute_script(look, at, seen)) and it['width'] > 50 and (it['pixels'] > 100 or (it['seconds'] or 0) > .2) and it)
        assert drawn
        artefacts = root/'tests'/'artefacts'
        artefacts.mkdir(exist_ok=True)
        browser.save_screenshot(str(artefacts/f'lab_{seen}.png'))
