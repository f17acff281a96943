"README.md is nbs/index.ipynb as Markdown; `make readme` writes it."
import re
from pathlib import Path

from nbconvert import MarkdownExporter

root = Path(__file__).parent.parent


def readme() -> str:
    "The text of README.md: the index notebook's prose and results, with links that work from the repository's top."
    text, _ = MarkdownExporter(exclude_input=True).from_filename(str(root/'nbs'/'index.ipynb'))
    text = re.sub(r'\]\((?=results/|\w+\.ipynb)', '](nbs/', text)
    return re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'


if __name__ == '__main__': (root/'README.md').write_text(readme(), encoding='utf-8')
