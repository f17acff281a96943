"""The head of each notebook: title, one line that says what it settles, and buttons that open it in Colab and in Binder.

`make readme` writes it and a test compares. nbdev makes of the first heading's cell the title and description of a page and drops
the rest of it, so nothing else may stand there; and of a description it takes one line. In Colab, where a notebook comes without its
repository, the first cell gets it."""
import json, re
from configparser import ConfigParser
from pathlib import Path

root = Path(__file__).parent.parent
config = ConfigParser(delimiters=['='], interpolation=None)
config.read(root/'settings.ini', encoding='utf-8')
settings = config['DEFAULT']
place = f"{settings['user']}/{settings['repo']}"
first = '08b_explore'
install = f"!test -e /content && test ! -e {settings['repo']} && git clone -q --depth 1 {settings['git_url']} && bash {settings['repo']}/.binder/colab.sh"


def buttons(name: str) -> str:
    "The line for the notebook `name`; from the first page one comes to a notebook to play with."
    name = dict(index=first).get(name, name)
    colab = f"https://colab.research.google.com/github/{place}/blob/{settings['branch']}/nbs/{name}.ipynb"
    binder = f"https://mybinder.org/v2/gh/{place}/{settings['branch']}?urlpath=lab/tree/nbs/{name}.ipynb"
    return (f'[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) '
            f'[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})')

def headed(
    name: str,
    cells: list # dicts with `cell_type` and `source`, a text
) -> list:      # the same
    "The cells of the notebook `name` with its head as it should be; nothing else changes."
    at = next(i for i, cell in enumerate(cells) if cell['cell_type'] == 'markdown' and cell['source'].startswith('# '))
    after = at + 1 + cells[at + 1]['source'].startswith('[![Open in Colab]')
    title, line, rest = re.match(r'(# .+)\n\n?((?:> ?.+\n?)+)((?:.|\n)*)', cells[at]['source']).groups()
    line = ' '.join(part.removeprefix('>').strip() for part in line.strip().splitlines())
    added = dict(buttons=buttons(name), opening=rest.strip())
    made = [*cells[:at], {**cells[at], 'source': f'{title}\n\n> {line}'},
            *(dict(cell_type='markdown', id=id, metadata={}, source=text) for id, text in added.items() if text), *cells[after:]]
    return [{**cell, 'source': re.sub(r'^(#\| default_exp \w+)(\n!.*)?$', rf'\1\n{install}', cell['source'])} for cell in made]

def with_head(path: Path) -> dict:
    "The notebook at `path` with its head as it should be."
    notebook = json.loads(path.read_text(encoding='utf-8'))
    cells = headed(path.stem, [{**cell, 'source': ''.join(cell['source'])} for cell in notebook['cells']])
    return {**notebook, 'cells': [{**cell, 'source': cell['source'].splitlines(keepends=True)} for cell in cells]}


if __name__ == '__main__':
    for path in sorted((root/'nbs').glob('*.ipynb')):
        path.write_text(json.dumps(with_head(path), sort_keys=True, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
