"""Convolution with fewer products: `emonb.winograd`."""
import numpy as np, pytest, torch

from emonb import cnns, winograd
from emonb.training import made_of, network_of, Dataset, Settings
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


def squares(n, filters=128, side=32):
    torch.manual_seed(0)
    return torch.randn(n, side + 4, side + 4, 2), torch.randn(filters, 2, 5, 5), torch.randn(filters)

def of_torch(x, weight, bias):
    F = torch.nn.functional
    return F.relu(F.max_pool2d(F.conv2d(x.permute(0, 3, 1, 2), weight, bias), 2)).permute(0, 2, 3, 1)

@pytest.mark.parametrize('side, filters', [(32, 128), (34, 200), (6, 256), (2, 128), (64, 3000)]) # one strip, several, with a rest, of one row
def test_squares_are_torchs(side, filters):
    x, weight, bias = squares(2, filters, side)
    slope = torch.randn(2, side//2, side//2, filters)
    def outcome(way, dtype):
        w, b = (each.to(dtype, copy=True).requires_grad_() for each in (weight, bias))
        y = way(x.to(dtype), w, b); y.backward(slope.to(dtype))
        return y.detach(), w.grad, b.grad
    for ours, exact in zip(outcome(winograd.PooledSquares.apply, torch.float32), outcome(of_torch, torch.float64)):
        assert ours.shape == exact.shape and (ours - exact).norm() < 1e-3*exact.norm()

def test_squares_give_the_same_bits_again_and_no_rows_for_none():
    x, weight, bias = squares(3)
    assert torch.equal(winograd.PooledSquares.apply(x, weight, bias), winograd.PooledSquares.apply(x, weight, bias))
    assert torch.equal(winograd.PooledSquares.apply(x, weight, bias)[:1], winograd.PooledSquares.apply(x[:1], weight, bias))
    assert winograd.PooledSquares.apply(x[:0], weight, bias).shape == (0, 16, 16, 128)

def test_squares_that_are_no_number_stay_no_number():
    x, weight, bias = squares(2)
    assert winograd.PooledSquares.apply(x, weight*torch.nan, bias).isnan().all()
    assert winograd.PooledSquares.apply(x, weight, bias*torch.nan).isnan().all()

def test_the_slope_goes_to_the_first_of_equals(): # down before across, as `pair_max` has it
    x, weight, bias = torch.ones(1, 6, 6, 2), torch.ones(128, 2, 5, 5, requires_grad=True), torch.zeros(128)
    winograd.PooledSquares.apply(x, weight, bias).sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))

def test_where_squares_are_taken():
    x, weight, _ = squares(2)
    assert winograd.squares_pay(x, weight)
    for others in ((x, weight[:127]), (x, weight[:, :1]), (x, weight[:, :, :4]), (x.double(), weight), (x[:, 1:].contiguous(), weight), (x[:, 4:], weight),
                   (x[:, :4].contiguous(), weight), (x[0], weight), (x.clone().requires_grad_(), weight)):
        assert not winograd.squares_pay(*others)
    with torch.autocast('cpu', torch.bfloat16): assert not winograd.squares_pay(x, weight)


@pytest.mark.parametrize('layer, network', [('FullHeight', 'R2'), ('Square', 'S1')])
def test_kept_results_depend_on_the_code(monkeypatch, layer, network):
    data, part = Dataset(np.zeros((4, 2, 64, 64), np.float32), np.zeros(4, np.int64)), Split('paper', 0, 0, *map(np.array, ([0, 1], [2], [3])), 4)
    known = lambda: made_of(network, network_of(lambda: cnns.build(cnns.specs[network]), part.seed), '', data, part, Settings())
    before, kind = known(), getattr(cnns, layer)
    monkeypatch.setattr(kind, 'made_with', kind.made_with[1:])
    assert known() != before
