"The page of results: what it must never leave out, and what becomes of damaged runs."
import re

import numpy as np, pandas as pd, pytest

from emonb import results
from emonb.core import EmonbError, root
from emonb.evaluation import claim_row, protocol_text
from emonb.paper import claims
from emonb.reproduce import main
from emonb.runs import compare_runs, read_results

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
        run = read_results(folder)
        judged = set(run.claims.claim[run.claims.verdict.isin(['reproduced', 'partly', 'not reproduced'])])
        left = set(results.untested(run).index)
        assert not judged & left
        assert judged | left >= {id for id, claim in claims.items() if claim.kind in ('score', 'ordering')}
        assert judged | left | set(results.context(run).index) == set(claims) # every claim is on the page with a status
        page = results.report(folder)
        assert all(f'| {id} |' in page for id in left | set(results.context(run).index))

def an_ordering(tmp_path, id, *margins, protocol='paper'): # the fate of the claim with these (ours, low, high)
    "Under which heading of the summary a claim's statement stands, for each of `margins`."
    for number, (ours, low, high) in enumerate(margins):
        run = read_results(a_run(tmp_path/f'{id}{number}', row(id, ours, low, high), row('table4.R1.test')))
        fate, = results.comparisons(run)
        assert claims[id].statement in results.summary(run)
        yield fate

def test_reversed_is_told_from_no_difference(tmp_path):
    found = list(an_ordering(tmp_path, 'order.cnn-beats-handbuilt', (.1, .05, .2), (-.1, -.2, -.05), (-.001, -.02, .01), (.01, -.02, .03)))
    assert [fate.partition(' as the paper splits')[0] for fate in found] == ['Stands', 'Reversed', 'No difference seen', 'No difference seen']
    found = list(an_ordering(tmp_path, 'order.dropout-no-help', (.1, .05, .2), (-.01, -.03, .01), (-.1, -.2, -.05)))
    assert found == ['Said not to help, and no gain was shown']*2 + ['Said not to help, yet it does']

def test_a_margin_that_is_lost_on_new_speakers_is_called_lost(tmp_path):
    id = 'order.cnn-beats-handbuilt'
    for number, (margin, said) in enumerate((((.1, .05, .2), 'and on new speakers'), ((.01, -.1, .1), 'not on new speakers'))):
        run = read_results(a_run(tmp_path/str(number), row(id, .1, .05, .2), row(id, *margin, protocol='speaker')))
        assert [fate for fate in results.comparisons(run) if fate.endswith(said)]

def test_findings_come_from_the_tables_of_the_run(tmp_path):
    folder = a_run(tmp_path/'a', row())
    assert 'Trained longer' not in results.summary(read_results(folder))
    pd.DataFrame(dict(protocol=['paper', 'speaker'], value=[-.076, .01], ci_low=[-.09, -.01], ci_high=[-.06, .03])).to_csv(folder/'cnn_against_tuned.csv', index=False)
    pd.DataFrame(dict(network=['R1', 'R7'], protocol=['paper', 'paper, copied before'], part='test', epochs=[9, 1], value=[.3, .4], ci_low=.2, ci_high=.5,
                      corpora='ravdess')).to_csv(folder/'augmentation_longer.csv', index=False)
    pd.DataFrame(dict(corpus=['emodb', 'sum'], **{'hop 512 ms': [1, 111], 'hop 256 ms': [2, 22222]})).to_csv(folder/'chunk_audit.csv', index=False)
    pd.DataFrame({'correlation': [.51, .9], 'correlation untrained': [.5, .93], 'gained': [.01, -.03]}).to_csv(folder/'filters.csv', index=False)
    pd.DataFrame(dict(network=['R2', 'R2', 'R3', 'R3'], seed=[0, 1, 0, 1], accuracy=[.3, .37, .2, .25])).to_csv(folder/'cnn_seeds.csv', index=False)
    pd.DataFrame(dict(model='R1', above=['paper', 'clip', 'speaker'], below=['clip', 'speaker', 'speaker+sentence'], value=[.01, .028, .9], ci_low=[-.01, .006, .8],
                      ci_high=[.03, .047, .95], seeds=3)).to_csv(folder/'ladder_steps.csv', index=False)
    said = results.summary(read_results(folder))
    assert 'R1 +90.0' not in said # new sentences are no shared clips or speakers
    for text in ('Verdicts rest on 1 seed(s)', 'with 2 seeds R2 scores 30.0 to 37.0 %', 'test clips in training R1 +1.0 points (-1.0 to +3.0)', 'test speakers R1 +2.8 points (+0.6 to +4.7)', '-7.6 points (-9.0 to -6.0) with chunks shuffled', '+1.0 points', 'R1 30.0 % (20.0–50.0) after 9 epochs', 'copies made before the split',
                 'but 22,222 that overlap by half', '-0.03 to +0.01'): assert text in said, text

def test_published_yardsticks_stand_beside_ours(tmp_path):
    folder = a_run(tmp_path/'a', row())
    ours = dict(corpus='emodb', experiment='R1', split='test', metric='UAR', value=.5, ci_low=.4, ci_high=.6, regime='online')
    pd.DataFrame([ours]).to_csv(folder/'yardsticks.csv', index=False)
    assert len(results.yardsticks(read_results(folder))) == 1
    others = dict(experiment='ComParE', corpus=['emodb', 'savee'], regime='online', value=[.75, .47])
    pd.DataFrame(others).to_csv(folder/'yardsticks_published.csv', index=False)
    table = results.yardsticks(read_results(folder))
    assert table.to_dict() == {'EMO-DB, online': {'R1': '0.500 (0.400–0.600)', 'ComParE (published)': '0.75'}}

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
    run = read_results(published)
    table, caption = results.headline(run)
    assert len(table) <= 12 and len(table.columns) <= 7 and 'EMO-DB' in caption
    kept = {f'{value:.3f}' for value in run.claims.ours.dropna()} | {f'{value:.3f}' for value in run.table('baselines').value}
    shown = re.findall(r'(\d\.\d{3}) \(', ' '.join(table.to_numpy().ravel()))
    assert len(shown) > 10 and set(shown) <= kept

def test_headline_tells_how_long_was_trained(tmp_path):
    run = read_results(a_run(tmp_path/'a', row() | dict(note='9 clips; 10 epochs; averaged: 0.4'), row('table4.R7.test') | dict(note='3 epochs of nine versions')))
    assert results.headline(run)[0]['epochs; test items'][lambda said: said != ''].tolist() == ['10; 100', '3 of nine versions; 100']

def test_a_number_measured_on_two_sets_of_corpora_stands_in_two_rows(tmp_path):
    run = read_results(a_run(tmp_path/'a', row(), row(ours=.222, corpora=('ravdess',), protocol='speaker')))
    table = results.every_score(run)
    assert list(table.corpora) == ['EMO-DB, SAVEE, RAVDESS', 'RAVDESS'] and table['new speakers'].isna().tolist() == [True, False]

def test_links_of_a_page_lead_somewhere(tmp_path):
    for link in set(re.findall(r'\]\(([^)]+)\)', results.report(published))): assert (published/link).exists(), link

def test_ways_of_measuring_are_named_in_words():
    assert protocol_text('clip, copied before') == 'new clips, copies made before the split'
    assert protocol_text('') == 'no split' and protocol_text('own split') == 'own split'
    for protocol in read_results(published).claims.protocol.unique(): assert not set(protocol_text(protocol)) & set('+_')

def test_two_runs_differ_where_they_differ(tmp_path):
    a = a_run(tmp_path/'a', row(), row(protocol='speaker'))
    b = a_run(tmp_path/'b', row(), row(protocol='speaker', ours=.3, low=.2, high=.35), row('table4.S1.test'))
    found = compare_runs(a, b)
    assert set(zip(found.claim, found.protocol)) == {('table4.R1.test', 'speaker'), ('table4.S1.test', 'paper')}
    assert np.isclose(found.change.dropna(), -.1).all()
    assert compare_runs(a, a).empty
    first = found.iloc[0] # what changes a verdict comes first
    assert first['verdict first'] != first['verdict second']

@pytest.mark.parametrize('text, says', [(None, 'is not there'), ('', 'no table of claims'), ('a,b\n1,2\n', "no claim"), ('claim,ours,verdict\nno.such,1,\n', "no claim 'no.such'")])
def test_damaged_runs_end_in_one_line(tmp_path, text, says, capsys):
    if text is not None: (tmp_path/'claims.csv').write_text(text)
    with pytest.raises(EmonbError, match=says): read_results(tmp_path)
    assert main(['report', str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1

def test_command(capsys, tmp_path):
    assert main(['report', str(published)]) == 0 and '## In short' in capsys.readouterr().out
    assert main(['report', str(published), str(published)]) == 0 and 'the same' in capsys.readouterr().out
    assert main(['report', *[str(published)]*3]) == 1
