"The rules of the house: what must hold of every notebook, module and stored output."
import ast, json, re, shutil, subprocess, sys, tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest, yaml
from nbdev.clean import clean_nb

from emonb.runner import _parameters, notebooks
from tests.buttons import with_head
from tests.readme import readme

root = Path(__file__).parent.parent
paths = sorted((root/'nbs').glob('*.ipynb'))
numbered = [path for path in paths if path.stem != 'index']
modules = [path for path in sorted((root/'emonb').glob('*.py')) if not path.name.startswith('_')]
each_notebook = pytest.mark.parametrize('path', paths, ids=lambda path: path.stem)
each_numbered = pytest.mark.parametrize('path', numbered, ids=lambda path: path.stem)
each_module = pytest.mark.parametrize('path', modules, ids=lambda path: path.stem)


def cells(path, kind='code'):
    return [cell for cell in json.loads(path.read_text(encoding='utf-8'))['cells'] if cell['cell_type'] == kind]

def source(cell): return ''.join(cell['source'])

def module_of(path): return re.search(r'#\| default_exp (\w+)', source(cells(path)[0]))[1]


def test_one_notebook_one_module():
    exported = [module_of(path) for path in numbered]
    assert len(set(exported)) == len(exported)
    assert sorted(exported) == sorted(path.stem for path in modules)
    assert all(path.stem.split('_', 1)[1] == module_of(path) for path in numbered)

def test_library_is_in_sync_with_the_notebooks(tmp_path):
    (tmp_path/'nbs').mkdir()
    for path in (root/'settings.ini', *paths): shutil.copy(path, tmp_path/path.relative_to(root))
    subprocess.run([sys.executable, '-c', 'from nbdev.doclinks import nbdev_export; nbdev_export()'], cwd=tmp_path, check=True)
    exported = {path.name: path.read_text(encoding='utf-8') for path in (tmp_path/'emonb').glob('*.py')}
    committed = {path.name: path.read_text(encoding='utf-8') for path in (root/'emonb').glob('*.py')}
    assert exported == committed, 'run nbdev_export'

@each_numbered
def test_modules_import_only_lower_numbers(path):
    order = [module_of(path) for path in numbered]
    imported = re.findall(r'(?:from|import) emonb\.(\w+)', '\n'.join(
        source(cell) for cell in cells(path) if source(cell).startswith(('#| export', '#|export'))))
    assert all(order.index(other) < order.index(module_of(path)) for other in imported)

@each_module
def test_no_developer_tool_or_display_is_imported_with_a_module(path):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name.split('.')[0] for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module.split('.')[0] for node in top if isinstance(node, ast.ImportFrom) and node.module}
    assert not names & {'nbdev', 'fastcore', 'execnb', 'IPython', 'papermill', 'pytest', 'librosa'}

@each_numbered
def test_a_run_is_opened_with_the_profile_that_was_asked_for(path):
    code = '\n'.join(map(source, cells(path)))
    assert 'start_run(run' not in code or 'get_profile(profile)' in code

@each_notebook
def test_a_run_leaves_nothing_among_the_temporary_files(path): assert not any('mkdtemp()' in source(cell) for cell in cells(path))

@each_module
def test_modules_stay_small(path): assert len(path.read_text().splitlines()) <= 350

@each_notebook
def test_notebooks_are_clean(path):
    notebook, cleaned = (json.loads(path.read_text(encoding='utf-8')) for _ in range(2))
    clean_nb(cleaned, allowed_cell_metadata_keys=['tags'])
    assert notebook == cleaned, f'{path.name}: run nbdev_clean'

@each_notebook
def test_notebooks_name_their_kernel(path): # JupyterLab asks for one otherwise
    assert json.loads(path.read_text(encoding='utf-8'))['metadata'] == dict(kernelspec=dict(display_name='python3', language='python', name='python3'))

@each_notebook
def test_notebooks_and_cells_stay_small(path):
    assert path.stat().st_size < 1_000_000
    long = [source(cell).splitlines()[0] for cell in cells(path) if len(source(cell).splitlines()) > 40]
    assert not long

@each_notebook
def test_outputs_hold_no_error_and_no_place_of_the_machine_that_made_them(path):
    for cell in cells(path):
        for output in cell['outputs']:
            assert output['output_type'] != 'error', source(cell)
            assert output.get('name') != 'stderr', source(cell)
            text = json.dumps({k: v for k, v in output.get('data', {}).items() if not k.startswith('image/')}) + str(output.get('text', ''))
            assert not re.search(r'(?<![\w.])/(?:home|root|tmp|work|Users|opt|usr|var|mnt)/|[A-Z]:\\\\', text), source(cell)

@each_numbered
def test_committed_notebooks_hold_outputs(path):
    code = cells(path)
    assert any(cell['outputs'] for cell in code)

@each_numbered
def test_a_notebook_opens_with_its_title_and_what_it_settles(path):
    first = source(cells(path, 'markdown')[0])
    assert re.match(r'# .+\n\n?> .+', first)

@each_numbered
def test_parameters_are_tagged_and_known(path):
    known = dict(profile=None, corpora=None, run=None, device=None, seeds=None)
    tagged = [cell for cell in cells(path) if 'parameters' in cell['metadata'].get('tags', [])]
    uses_corpora = any(re.search(r"open_corpora\((?!'demo')", source(cell)) for cell in cells(path)) and 'demo' not in path.stem
    assert len(tagged) == 1 or not tagged and (not uses_corpora or path.stem not in notebooks())
    code = '\n'.join(source(cell) for cell in cells(path) if cell not in tagged)
    for cell in tagged:
        names = re.findall(r'^(\w+) *=', source(cell), re.MULTILINE)
        assert set(names) == set(_parameters(path, known)), 'a name that the driver does not know'
        assert all(re.search(rf'\b{name}\b', code) for name in names), 'a parameter that is never used'

@each_notebook
def test_head_is_title_line_and_buttons(path): assert json.loads(path.read_text(encoding='utf-8')) == with_head(path), 'run make readme'

def test_readme_is_the_index(): assert (root/'README.md').read_text(encoding='utf-8') == readme(), 'run make readme'

def test_every_notebook_stands_in_the_sidebar():
    text = (root/'nbs'/'sidebar.yml').read_text()
    assert sorted(re.findall(r'\w+\.ipynb', text)) == sorted(path.name for path in paths)
    assert yaml.safe_load(text)

def test_every_dependency_is_pinned():
    settings = ConfigParser(delimiters=['='], interpolation=None)
    settings.read(root/'settings.ini')
    pins = {line.split('==')[0].lower().replace('_', '-') for line in (root/'constraints.txt').read_text().splitlines()}
    wanted = (settings['DEFAULT']['requirements'] + ' ' + settings['DEFAULT']['dev_requirements']).split()
    assert all(re.split('[<=>[]', name)[0].lower().replace('_', '-') in pins for name in wanted)
    assert tomllib.loads((root/'pyproject.toml').read_text())

def test_workflows_are_valid_and_use_our_own_pins():
    for file in (root/'.github'/'workflows').glob('*.yml'):
        steps = [step for job in yaml.safe_load(file.read_text())['jobs'].values() for step in job['steps']]
        assert any('make ' in step.get('run', '') for step in steps)
