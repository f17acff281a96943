"The package's metadata; names, version and dependencies stand in settings.ini alone."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

config = ConfigParser(delimiters=['='], interpolation=None)
config.read(Path(__file__).with_name('settings.ini'), encoding='utf-8')
settings = config['DEFAULT']

setup(name=settings['lib_name'], version=settings['version'], description=settings['description'],
      long_description=Path(__file__).with_name('README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
      author=settings['author'], url=settings['git_url'], license='Apache-2.0', keywords=settings['keywords'],
      packages=find_packages(include=['emonb', 'emonb.*']), python_requires=f">={settings['min_python']}",
      install_requires=settings['requirements'].split(), extras_require={name.removesuffix('_requirements'): needed.split() for name, needed in settings.items() if name.endswith('_requirements')},
      entry_points=dict(console_scripts=settings['console_scripts'].split()))
