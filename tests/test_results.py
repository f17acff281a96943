"The page of results: what it must never leave out, and what becomes of damaged runs."
import re

import numpy as np, pandas as pd, pytest

from emonb import results
from emonb.core import EmonbError, root
from emonb.evaluation import claim_row
from emonb.paper import claims
from emonb.reproduce import main

published = root()/'nbs'/'results'
pytestmark = pytest.mark.filterwarnings('error') # of pandas, before they become errors

def a_run(folder, *rows):
    folder.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(folder/'claims.csv', index=False)
    return folder

def row(id='table4.R1.test', ours=.4, low=.38, high=.42, protocol='paper', corpora=('emodb', 'savee', 'ravdess')):
    return claim_row(id, ours, low, high, 100, protocol, corpora, 1, '08_cnns')

def test_each_score_and_ordering_is_either_judged_or_listed_as_untested(tmp_path):
    for folder in (published, a_run(tmp_path/'a', row(), row('order.cnn-beats-handbuilt', .1, .05, .2))):
        run = results.read_results(folder)
        judged = set(run.claims.claim[run.claims.verdict.isin(['reproduced', 'partly', 'not reproduced'])])
        left = set(results.untested(run).index)
        assert not judged & left
        assert judged | left >= {id for id, claim in claims.items() if claim.kind in ('score', 'ordering')}

def test_each_measured_number_is_on_the_page(tmp_path):
    page = results.report(a_run(tmp_path/'a', row(ours=.4321), row(protocol='speaker', ours=.2987), row('lstm.test', .5, .4, .6, 'clip', ('ravdess',))))
    for text in ('0.432', '0.299', '0.397', '0.500', 'new speakers', 'measured on RAVDESS only'): assert text in page

def test_demo_numbers_get_no_mark_and_are_named(tmp_path):
    page = results.report(a_run(tmp_path/'a', row(corpora=('demo-emodb',))))
    line, = [line for line in page.splitlines() if line.startswith('| table4.R1.test') and '0.400' in line]
    assert not set('✓✗') & set(line) and 'demo' in line.lower()

def test_a_run_on_recordings_says_nothing_from_demo_corpora(tmp_path):
    page = results.report(a_run(tmp_path/'a', row(), row('table5.caffenet.test', .654, .6, .7, corpora=('demo-enterface',))))
    assert '0.370' not in page and '0.654' not in page and '65.4' not in page and '1 rows of claims.csv are about demo corpora' in page
    line, = [line for line in page.splitlines() if line.startswith('| ImageNet CNN fine-tuned on faces')]
    assert 'not measured' in line and '0.886' in line

def test_headline_fits_a_screen_and_every_number_of_it_is_in_the_files(tmp_path):
    run = results.read_results(published)
    table, caption = results.headline(run)
    assert len(table) <= 12 and len(table.columns) <= 7 and 'EMO-DB' in caption
    kept = {f'{value:.3f}' for value in run.claims.ours.dropna()} | {f'{value:.3f}' for value in run.table('baselines').value}
    shown = re.findall(r'(\d\.\d{3}) \(', ' '.join(table.to_numpy().ravel()))
    assert len(shown) > 10 and set(shown) <= kept

def test_headline_tells_how_long_was_trained(tmp_path):
    run = results.read_results(a_run(tmp_path/'a', row() | dict(note='9 clips; 10 epochs; averaged: 0.4'), row('table4.R7.test') | dict(note='3 epochs of nine versions')))
    assert results.headline(run)[0].epochs[lambda epochs: epochs != ''].tolist() == ['10', '3 of nine versions']

def test_a_number_measured_on_two_sets_of_corpora_stands_in_two_rows(tmp_path):
    run = results.read_results(a_run(tmp_path/'a', row(), row(ours=.222, corpora=('ravdess',), protocol='speaker')))
    table = results.every_score(run)
    assert list(table.corpora) == ['EMO-DB, SAVEE, RAVDESS', 'RAVDESS'] and table['new speakers'].isna().tolist() == [True, False]

def test_links_of_a_page_lead_somewhere(tmp_path):
    for link in set(re.findall(r'\]\(([^)]+)\)', results.report(published))): assert (published/link).exists(), link

def test_ways_of_measuring_are_named_in_words():
    assert results._named('clip, copied before') == 'new clips, copies made before the split'
    assert results._named('') == 'no split' and results._named('own split') == 'own split'
    for protocol in results.read_results(published).claims.protocol.unique(): assert not set(results._named(protocol)) & set('+_')

def test_two_runs_differ_where_they_differ(tmp_path):
    a = a_run(tmp_path/'a', row(), row(protocol='speaker'))
    b = a_run(tmp_path/'b', row(), row(protocol='speaker', ours=.3, low=.2, high=.35), row('table4.S1.test'))
    found = results.compare_runs(a, b)
    assert set(zip(found.claim, found.protocol)) == {('table4.R1.test', 'speaker'), ('table4.S1.test', 'paper')}
    assert np.isclose(found.change.dropna(), -.1).all()
    assert results.compare_runs(a, a).empty
    first = found.iloc[0] # what changes a verdict comes first
    assert first['verdict first'] != first['verdict second']

@pytest.mark.parametrize('text, says', [(None, 'is not there'), ('', 'no table of claims'), ('a,b\n1,2\n', "no claim"), ('claim,ours,verdict\nno.such,1,\n', "no claim 'no.such'")])
def test_damaged_runs_end_in_one_line(tmp_path, text, says, capsys):
    if text is not None: (tmp_path/'claims.csv').write_text(text)
    with pytest.raises(EmonbError, match=says): results.read_results(tmp_path)
    assert main(['report', str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1

def test_command(capsys, tmp_path):
    assert main(['report', str(published)]) == 0 and '## In short' in capsys.readouterr().out
    assert main(['report', str(published), str(published)]) == 0 and 'the same' in capsys.readouterr().out
    assert main(['report', *[str(published)]*3]) == 1
