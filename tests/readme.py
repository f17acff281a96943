"README.md is nbs/index.ipynb as Markdown; `make readme` writes it."
from pathlib import Path

from nbconvert import MarkdownExporter

root = Path(__file__).parent.parent


def readme() -> str:
    "The text of README.md: the index notebook's prose and code, with links that work from the repository's top."
    text, _ = MarkdownExporter().from_filename(str(root/'nbs'/'index.ipynb'))
    return text.replace('](results/', '](nbs/results/').strip() + '\n'


if __name__ == '__main__': (root/'README.md').write_text(readme(), encoding='utf-8')
