"What 10a_finetune does on a GPU; all else of it is tested in test_face.py."
import numpy as np, pytest, torch

from emonb.finetune import FaceNet, _apply, fingerprint, occlusion

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_a_network_that_has_gone_to_the_gpu_is_the_same():
    network, pictures = FaceNet('squeezenet1_1', size=48), np.random.default_rng(0).integers(0, 256, (5, 3, 48, 48)).astype(np.uint8)
    before, here = fingerprint(network), _apply(network, pictures, torch.device('cpu'))
    there = _apply(network, pictures, torch.device('cuda'))
    assert next(network.parameters()).is_cuda and fingerprint(network) == before
    assert np.allclose(here, there, atol=.02*np.abs(here).max()) # convolutions in TF32
    assert occlusion(network, pictures, np.arange(5), 2, 'cuda').shape == (5, 2, 2)
