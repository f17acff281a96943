"""Convolution with fewer products: `emonb.winograd`."""
import numpy as np, pytest, torch

from emonb import cnns, winograd
from emonb.training import made_of, Dataset, Settings
from emonb.protocols import Split


@pytest.mark.parametrize('outputs, points', [(1, (0, 1, -1, 2)), (2, (0, 1, -1, 2, -2)), (4, (0, 1, -1, 2, -2, .5, -.5))])
def test_minimal_filtering_is_filtering(outputs, points):
    A, G, B = winograd.minimal(outputs, 5, points)
    d, g = np.random.default_rng(0).standard_normal(outputs + 4), np.array([1., -2, 3, .5, 7])
    assert np.allclose(A @ ((G @ g)*(B @ d)), [d[i:i + 5] @ g for i in range(outputs)])

def layer(n, filters=128, width=5):
    torch.manual_seed(0)
    return torch.randn(n, 63 + width, 16), torch.randn(filters, width*16), torch.randn(filters)

@pytest.mark.parametrize('n', [1, 7, 8, 9, 33]) # blocks of 8 rows, with and without a rest
def test_a_row_does_not_depend_on_its_block(n):
    x, weight, bias = layer(33)
    assert torch.allclose(winograd.PooledConvolution.apply(x, weight, bias, 0)[:n], winograd.PooledConvolution.apply(x[:n], weight, bias, 0), atol=1e-5)

def test_the_same_bits_again():
    x, weight, bias = layer(20)
    def slopes():
        w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        y = winograd.PooledConvolution.apply(x, w, b, .01); y.square().sum().backward()
        return y, w.grad, b.grad
    assert all(torch.equal(*two) for two in zip(slopes(), slopes()))

def test_no_rows():
    x, weight, bias = layer(3)
    assert winograd.PooledConvolution.apply(x[:0], weight, bias, 0).shape == (0, 32, 128)

def test_slopes_however_they_lie_and_under_autocast():
    x, weight, bias = layer(9)
    def slopes(backward):
        w = weight.clone().requires_grad_(); backward(winograd.PooledConvolution.apply(x, w, bias, 0))
        return w.grad
    usual = slopes(lambda y: y.backward(torch.ones_like(y)))
    def autocast(y):
        with torch.autocast('cpu', torch.bfloat16): y.backward(torch.ones_like(y))
    assert torch.equal(usual, slopes(lambda y: y.sum().backward())) and torch.equal(usual, slopes(autocast))

def test_there_are_no_second_slopes():
    x, weight, bias = layer(9)
    w = weight.clone().requires_grad_()
    slope, = torch.autograd.grad(winograd.PooledConvolution.apply(x, w, bias, 0).square().sum(), w, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'): slope.sum().backward()

@pytest.mark.parametrize('leak', [0, .01])
def test_no_number_stays_no_number(leak): # so that the engine sees a training diverge
    x, weight, bias = layer(9)
    assert winograd.PooledConvolution.apply(x, weight*torch.nan, bias, leak).isnan().all()
    assert winograd.PooledConvolution.apply(x, weight, bias*torch.nan, leak).isnan().all()

def test_where_it_is_taken():
    x, weight, _ = layer(2)
    assert winograd.pays(x, weight) and winograd.pays(torch.randn(2, 73, 16), torch.randn(128, 160))
    for others in ((x, weight[:127]), (x, weight[None]), (x.double(), weight), (x[:, 1:].contiguous(), weight), (x[:, 4:], weight), (x, weight[:, :64]),
                   (x, weight[:, :79]), (x, weight[:, :0]), (x[:, :4].contiguous(), weight), (x[0], weight), (x.clone().requires_grad_(), weight)):
        assert not winograd.pays(*others)
    with torch.autocast('cpu', torch.bfloat16): assert not winograd.pays(x, weight)

def test_kept_results_depend_on_its_code(monkeypatch):
    data, part = Dataset(np.zeros((4, 2, 64, 64), np.float32), np.zeros(4, np.int64)), Split('paper', 0, 0, *map(np.array, ([0, 1], [2], [3])), 4)
    known = lambda: made_of('R1', lambda: cnns.build(cnns.specs['R2']), '', data, part, Settings())
    before = known()
    monkeypatch.setattr(cnns.FullHeight, 'made_with', cnns.FullHeight.made_with[1:])
    assert known() != before
