"The page of results: what it must never leave out, and what becomes of damaged runs."
import json, re

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

def test_no_difference_is_told_from_one_that_is_reversed_on_new_speakers(tmp_path):
    id, seen = 'order.r1-best-single', 'No difference seen as the paper splits'
    for number, (margin, said) in enumerate((((-.02, -.04, -.01), '; reversed on new speakers'), ((-.01, -.03, .01), ', the interval around zero'))):
        run = read_results(a_run(tmp_path/str(number), row(id, .001, -.02, .02), row(id, *margin, protocol='speaker')))
        assert list(results.comparisons(run)) == [seen + said] and any(line.startswith(f'**{seen}{said}:**') for line in results.in_short(run))

def test_comparisons_on_other_corpora_alone_are_in_short_without_a_verdict(tmp_path):
    context, other = 'order.context-helps', ('ravdess',)
    run = read_results(a_run(tmp_path/'a', row(), row(context, .139, .076, .203, 'clip', other), row(context, .012, -.042, .065, 'speaker', other),
                             row(context, .9, .8, .95, 'clip, chunks', other), row('order.finetuned-beats-baselines', .123, .089, .151, 'own split', ('fer2013',)),
                             row('order.cnn-beats-handbuilt', .1, .05, .2), row('order.lstm-less-variance', -.2, -.3, -.1, 'clip', other)))
    lines = [line for line in results.in_short(run) if 'without a verdict' in line]
    assert lines == ['**Measured on RAVDESS alone, so without a verdict:** An LSTM over the chunks of a clip beats R1, clip against clip: '
                     '+13.9 points (+7.6 to +20.3) on new clips, +1.2 points (-4.2 to +6.5) on new speakers.',
                     '**Measured on FER-2013 alone, so without a verdict:** A fine-tuned ImageNet CNN beats softmax and a small net on faces by far: '
                     "+12.3 points (+8.9 to +15.1) with the corpus's own split."]
    demo = a_run(tmp_path/'b', row(context, .139, .076, .203, 'clip', ('demo-enterface',)))
    assert not any('without a verdict' in line for line in results.in_short(read_results(demo)))

def test_findings_come_from_the_tables_of_the_run(tmp_path):
    folder = a_run(tmp_path/'a', row())
    assert 'Trained longer' not in results.summary(read_results(folder))
    pd.DataFrame(dict(protocol=['paper', 'speaker'], value=[-.076, .01], ci_low=[-.09, -.01], ci_high=[-.06, .03])).to_csv(folder/'cnn_against_tuned.csv', index=False)
    pd.DataFrame(dict(network=['R1', 'R7'], protocol=['paper', 'paper, copied before'], part='test', epochs=[9, 1], value=[.3, .4], ci_low=.2, ci_high=.5,
                      corpora='ravdess')).to_csv(folder/'augmentation_longer.csv', index=False)
    pd.DataFrame(dict(corpus=['emodb', 'sum'], **{'hop 512 ms': [1, 111], 'hop 256 ms': [2, 22222]})).to_csv(folder/'chunk_audit.csv', index=False)
    pd.DataFrame({'correlation': [.51, .9], 'correlation untrained': [.5, .93], 'gained': [.01, -.03]}).to_csv(folder/'filters.csv', index=False)
    pd.DataFrame(dict(network=['R2', 'R2', 'R3', 'R3'], seed=[0, 1, 0, 1], accuracy=[.3, .37, .2, .38])).to_csv(folder/'cnn_seeds.csv', index=False)
    pd.DataFrame(dict(model='R1', above=['paper', 'clip', 'speaker'], below=['clip', 'speaker', 'speaker+sentence'], value=[.01, .028, .9], ci_low=[-.01, .006, .8],
                      ci_high=[.03, .047, .95], seeds=3)).to_csv(folder/'ladder_steps.csv', index=False)
    said = results.summary(read_results(folder))
    assert 'R1 +90.0' not in said # new sentences are no shared clips or speakers
    for text in ('Verdicts rest on 1 seed; the intervals do not cover what another would change: with 2 seeds R2 scores 30.0 to 37.0 %',
                 f'R2 less R3 is +10.0, -1.0 points, so that "{claims["order.shallow-beats-deep"].statement[:-1]}" holds with 1 of 2',
                 "On the same test clips, 3 seeds: training on the test clip's other chunks gains R1 +1.0 points (-1.0 to +3.0)",
                 "training on the test speaker's other clips gains R1 +2.8 points (+0.6 to +4.7)", '-7.6 points (-9.0 to -6.0) with chunks shuffled',
                 'R1 30.0 % (20.0–50.0) after 9 epochs', 'R7 40.0 % (20.0–50.0) after 1 epoch, copies made before the split',
                 'but 22,222 that overlap by half', '-0.03 to +0.01'): assert text in said, text
    pd.DataFrame(dict(model=['R1', 'RBF SVM', 'R1'], rung=['clip', 'clip', 'paper, copied before'], epochs=[10, None, 2])).to_csv(folder/'ladder.csv', index=False)
    assert 'On the same test clips, 3 seeds, R1 after 10 epochs: training' in results.summary(read_results(folder))
    pd.DataFrame(dict(network=['R2', 'R3'], seed=[0, 1], accuracy=[.3, .2])).to_csv(folder/'cnn_seeds.csv', index=False)
    assert 'R2 less R3' not in results.summary(read_results(folder)) # no seed has both
    pd.DataFrame([row() | dict(seeds=3)]).to_csv(folder/'claims.csv', index=False)
    assert 'Verdicts rest on 3 seeds; the intervals do not cover what others would change' in results.summary(read_results(folder))

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

def test_headline_shows_half_overlap_and_which_verdicts_it_changes(tmp_path):
    half, rows = 'paper, hop 256 ms', [row(), row('table4.R4.test', .358, .339, .379)]
    assert 'overlap by half' not in results.headline(read_results(a_run(tmp_path/'a', *rows)))[1]
    rows += [row(protocol=half, ours=.394, low=.378, high=.411), row('table4.R4.test', .387, .37, .404, half)]
    table, caption = results.headline(read_results(a_run(tmp_path/'b', *rows)))
    r1, = table.index[table.index.str.contains('(R1)', regex=False)]
    assert table.loc[r1, 'shuffled, half overlapping'] == '0.394 (0.378–0.411)' and table.loc[r1, 'verdict'] == 'partly'
    assert '1 of 2 verdicts on test accuracies would be others: R4 not reproduced.' in caption
    assert '39.4 % (37.8–41.1) where they also overlap by half' in results.summary(read_results(tmp_path/'b'))

def test_headline_tells_on_how_many_of_the_chunks_cnns_are_tested(tmp_path):
    svm = row('table2.svm.test', .23, .21, .25)
    assert 'a part of these chunks' not in results.headline(read_results(a_run(tmp_path/'a', row(), svm)))[1]
    whole = [svm | dict(n=13974), svm | dict(protocol='speaker', n=13974)]
    caption = results.headline(read_results(a_run(tmp_path/'b', row() | dict(n=2795), row(protocol='speaker') | dict(n=5819), *whole)))[1]
    assert ('Rows with 13,974 test items sum over folds; the CNNs are tested on a part of these chunks '
            '(20 % with chunks shuffled as the paper does, 42 % on new speakers)') in caption

def test_faces_with_a_split_of_their_own_are_shown_without_a_verdict(tmp_path):
    run = read_results(a_run(tmp_path/'a', row(), row('table5.caffenet.test', .452, .424, .482, 'own split', ('fer2013',)) | dict(notebook='10a_finetune')))
    faces = results.headline(run)[0].loc['[ImageNet CNN fine-tuned on faces](10a_finetune.ipynb), on FER-2013, its own split']
    assert faces['the paper'] == '0.886' and faces['new clips'] == '0.452 (0.424–0.482)' and faces.verdict == 'not testable'
    assert "here, on FER-2013, 45.2 % (42.4–48.2) with the corpus's own split." in results.summary(run)

def test_headline_tells_how_long_was_trained(tmp_path):
    run = read_results(a_run(tmp_path/'a', row() | dict(note='9 clips; 10 epochs; averaged: 0.4'), row('table4.R7.test') | dict(note='3 epochs of nine versions')))
    assert results.headline(run)[0]['epochs; test items'][lambda said: said != ''].tolist() == ['10; 100', '3 of nine versions; 100']

def test_a_number_measured_on_two_sets_of_corpora_stands_in_two_rows(tmp_path):
    run = read_results(a_run(tmp_path/'a', row(), row(ours=.222, corpora=('ravdess',), protocol='speaker')))
    table = results.every_score(run)
    assert list(table.corpora) == ['EMO-DB, SAVEE, RAVDESS', 'RAVDESS'] and table['new speakers'].isna().tolist() == [True, False]

def test_a_run_tells_what_its_verdicts_and_commits_mean(tmp_path):
    folder = a_run(tmp_path/'a', row(), row('lstm.test', .5, .4, .6, 'clip', ('ravdess',)))
    for commits, told in ((['ab12', 'cd34'], False), (['ab12', 'cd34+'], True)):
        states = {str(number): dict(status='done', seconds=90, commit=commit) for number, commit in enumerate(commits)}
        (folder/'manifest.json').write_text(json.dumps(dict(notebooks=states, cores=2)))
        said = results.made_with(read_results(folder))
        assert f"commit {', '.join(commits)}" in said and ('(+: with changes not committed)' in said) == told
        assert ', 1 seed, ' in said and '3 minutes on 2 cores, trainings found in the cache not counted' in said
    assert 'measured on none of the corpora that it rests on gets no verdict' in said

def test_counts_agree_with_their_nouns(): assert '(s)' not in results.report(published)

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
