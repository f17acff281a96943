"Baselines: corpora that lack an emotion, the cache of folds, no look at the test rows."
import numpy as np, pandas as pd, pytest

import emonb.cache
from emonb import baselines
from emonb.baselines import methods, run_fold
from emonb.evaluation import probability_columns
from emonb.paper import emotions
from emonb.protocols import split


@pytest.fixture
def data(tmp_path, monkeypatch):
    "Chunks of six emotions (EMO-DB and eNTERFACE'05 have six) that loudness and pitch tell apart."
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'cache'))
    emonb.cache._verified.clear()
    rng, n = np.random.default_rng(0), 300
    emotion = rng.integers(6, size=n)
    table = pd.DataFrame(dict(clip=[f'x/{i//3}' for i in range(n)], corpus='x', start=0.512*(np.arange(n) % 3),
                              speaker=[f'x/{i % 12}' for i in range(n)], sentence='', emotion=np.array(emotions)[emotion]))
    values = (rng.normal(size=(n, 26)) + 2*np.eye(6, 26)[emotion]).astype(np.float32)
    return table, values

@pytest.mark.parametrize('method', methods)
def test_an_emotion_that_no_clip_has_gets_no_probability(data, method):
    table, values = data
    made = run_fold(method, table, values, split(table, 'paper'), 'paper', [])
    assert set(made.split) == {'train', 'val', 'test'} and len(made) == len(table)
    assert np.allclose(made[probability_columns].sum(axis=1), 1, atol=1e-3)
    if method in ('RBF SVM', 'boosting'): assert (made.p_surprise == 0).all()

@pytest.mark.parametrize('method', methods)
def test_test_rows_change_nothing_but_their_own_predictions(data, method):
    table, values = data
    made = split(table, 'paper')
    first = run_fold(method, table, values, made, 'paper', [])
    other = values.copy(); other[made.test] += 100
    second = run_fold(method, table, other, made, 'paper', [])
    kept = first.split != 'test'
    assert np.allclose(first[kept][probability_columns], second[kept][probability_columns], atol=1e-6)
    assert not np.allclose(first[~kept][probability_columns], second[~kept][probability_columns])

def test_a_fold_is_fitted_once_and_again_when_anything_changed(data, monkeypatch):
    table, values = data
    fitted = []
    def count(**settings):
        fitted.append(settings)
        return baselines.linear(**settings)
    monkeypatch.setitem(methods, 'svm', (count, dict(loss='multi_margin_loss', scaled=True, trials=2)))
    part = split(table, 'paper')
    for _ in range(2): run_fold('svm', table, values, part, 'paper', [])
    assert len(fitted) == 1
    monkeypatch.setitem(methods, 'svm', (count, dict(loss='multi_margin_loss', scaled=True, trials=3)))
    run_fold('svm', table, values, part, 'paper', [])
    run_fold('svm', table, values, part, 'paper', ['other code'])
    run_fold('svm', table.assign(emotion=table.emotion.replace('anger', 'disgust')), values, part, 'paper', [])
    run_fold('svm', table, values*1.01, part, 'paper', [])
    assert len(fitted) == 5
