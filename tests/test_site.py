"The pages of the site, as nbdev hands them to Quarto; Quarto itself is not needed."
import ast, json, re, shutil, subprocess, sys
from pathlib import Path

import pytest, yaml

root = Path(__file__).parent.parent
paths = sorted((root/'nbs').glob('*.ipynb'))


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
    "The folder of processed pages."
    copy = tmp_path_factory.mktemp('site')
    for name in ('nbs', 'emonb'): shutil.copytree(root/name, copy/name, ignore=shutil.ignore_patterns('.*', '__pycache__'))
    for name in ('settings.ini', '_quarto.yml', 'README.md'): shutil.copy(root/name, copy)
    subprocess.run([sys.executable, '-c', 'from nbdev.serve import proc_nbs; proc_nbs(n_workers=2)'], cwd=copy, check=True, capture_output=True)
    return copy/'_proc'

def text_of(path): return '\n'.join(''.join(cell['source']) for cell in json.loads(path.read_text(encoding='utf-8'))['cells'])

def test_every_notebook_is_a_page_with_its_title(pages):
    assert {path.name for path in pages.glob('*.ipynb')} == {path.name for path in paths}
    for path in paths:
        title = re.search(r'^# (.+)', text_of(path), re.MULTILINE)[1]
        front = re.match(r'---\n(.+?)\n---', text_of(pages/path.name), re.DOTALL)[1]
        assert yaml.safe_load(front)['title'] == title

@pytest.mark.parametrize('path', [path for path in paths if path.stem != 'index'], ids=lambda path: path.stem)
def test_public_functions_are_documented(pages, path):
    cells = json.loads((pages/path.name).read_text(encoding='utf-8'))['cells']
    shown = '\n'.join(''.join(output.get('data', {}).get('text/markdown', '')) for cell in cells for output in cell.get('outputs', []))
    module = ast.parse((root/'emonb'/f"{path.stem.split('_', 1)[1]}.py").read_text(encoding='utf-8'))
    names = [node.name for node in module.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith('_')]
    assert not [name for name in names if f'### {name}\n' not in shown]

def test_captions_of_figures_reach_the_pages_with_a_text_for_those_who_do_not_see_them(pages):
    told = lambda path: re.findall(r'^#\| (fig-cap|fig-alt): (.+)$', text_of(path), re.MULTILINE)
    assert any(told(path) for path in paths)
    for path in paths:
        found = told(path)
        assert told(pages/path.name) == found, path.name
        assert [kind for kind, _ in found] == ['fig-cap', 'fig-alt']*(len(found)//2), path.name
        assert all(isinstance(yaml.safe_load(value), str) for _, value in found), path.name

def test_pictures_that_pages_name_are_there(pages):
    for path in pages.glob('*.ipynb'):
        for name in re.findall(r'!\[[^\]]*\]\(([^)]+)\)', text_of(path)):
            assert name.startswith(('http', 'attachment:')) or (pages/name).exists(), f'{path.name}: {name}'

def test_links_between_pages_lead_somewhere(pages):
    for path in pages.glob('*.ipynb'):
        for name in re.findall(r'\]\(([\w./]+\.ipynb)', text_of(path)): assert (pages/name).exists(), f'{path.name}: {name}'

def test_pages_name_no_place_of_this_machine(pages):
    for path in pages.glob('*.ipynb'): assert str(pages.parent) not in path.read_text(encoding='utf-8') and str(root) not in path.read_text(encoding='utf-8')

def test_site_has_search_and_both_themes():
    site = yaml.safe_load((root/'_quarto.yml').read_text())
    assert site['website']['search'] and set(site['format']['html']['theme']) == {'light', 'dark'}
