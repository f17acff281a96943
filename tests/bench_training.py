"""Speed of training: `python -m tests.bench_training`, also part of `make bench`.

R1, the paper's best network, trained by the plain PyTorch loop (Conv2d, float32, DataLoader) and by `emonb.training`, in turn and
in one run, so that whatever else the machine does slows both; beside the machine's measured matrix product. On several cores the
plain loop shares one training among them, and emonb does what `run_jobs` does: a training on each. Inputs are those of
the corpora in EMONB_DATA, or else of the demo corpora."""
import statistics, time
from concurrent.futures import ThreadPoolExecutor

import numpy as np, pandas as pd, torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from emonb.chunks import chunk_features
from emonb.data import describe, paper_clips
from emonb.demo import open_corpora
from emonb.paper import emotions
from emonb.protocols import split
from emonb.training import Dataset, Settings, _hardware, _keep_memory, _learn, _optimiser, batches, fit, pair_max, standardised, windows
from emonb.winograd import PooledConvolution, pays

rows, batch, repeats, epochs = 640, 128, 5, 10
settings = Settings(rate=3e-4, batch=batch, epochs=epochs)
mflop = 2*(2*60*640*1024 + 3*(30720*64 + 64*7))/1e6 # a row's forward and backward; the first layer hands no slope on


class R1(nn.Module):
    "As one writes it down: 1,024 filters of 64 frequencies by 5 times, pooled by 2; 64 hidden units; 7 classes."
    def __init__(self):
        super().__init__()
        self.conv, self.hidden, self.out = nn.Conv2d(2, 1024, (64, 5)), nn.Linear(30*1024, 64), nn.Linear(64, 7)
    def forward(self, x):
        y = F.max_pool2d(F.relu(self.conv(x)), (1, 2)).squeeze(2).transpose(1, 2) # (n, time, filter), so that both have the same weights
        return self.out(F.relu(self.hidden(y.flatten(1))))

class FastR1(R1):
    "The same function of the same weights, as `emonb.cnns.FullHeight` has it."
    def forward(self, x):
        x, weight = x.flatten(1, 2).transpose(1, 2).contiguous(), self.conv.weight.permute(0, 3, 1, 2).flatten(1)
        if pays(x, weight): y = PooledConvolution.apply(x, weight, self.conv.bias, 0.)
        else: y = F.relu(pair_max(F.linear(windows(x, 5), weight, self.conv.bias).view(len(x), 60, 1024), 1))
        return self.out(F.relu(self.hidden(y.flatten(1))))


def plain(x, y, seed=0):
    "The loop that everyone writes; each call is one epoch."
    torch.manual_seed(seed)
    model = R1()
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=settings.decay)
    loader = DataLoader(TensorDataset(x, y), batch_size=batch, shuffle=True)
    def epoch():
        model.train()
        for images, truth in loader:
            optimiser.zero_grad()
            loss = F.cross_entropy(model(images), truth)
            loss.backward()
            optimiser.step()
            loss.item()
    return epoch, model

def ours(x, y):
    "An epoch of `emonb.training`."
    device, dtype = _hardware(settings)
    torch.manual_seed(0); _keep_memory()
    model = FastR1().to(device)
    optimiser, x, y = _optimiser(model, settings), x.to(device, dtype), y.to(device)
    cast = torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
    return lambda: _learn(model, optimiser, x, y, batches(torch.arange(len(x), device=device), None, batch, torch.Generator()), cast)

def product(dtype, device):
    "A product of the size of R1's first layer, and its operations."
    a, b = torch.randn(60*batch, 640, device=device, dtype=dtype), torch.randn(640, 1024, device=device, dtype=dtype)
    def work():
        for _ in range(10): a @ b
        if device.type == 'cuda': torch.cuda.synchronize()
    return work, 10*2*60*batch*640*1024

def timed(job, clock):
    began = clock()
    job()
    return clock() - began

def spread(values): return f'{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})'


def on_each(cores, make):
    "A job on each of some cores, at once; on one core or a GPU, the job itself."
    jobs = [make() for _ in range(cores)]
    if cores == 1: return jobs[0]
    pool = ThreadPoolExecutor(cores)
    def work():
        torch.set_num_threads(1)
        list(pool.map(lambda job: job(), jobs))
        torch.set_num_threads(cores)
    return work

def speed(x, y, cores, clock):
    "Rows a second, in turn."
    torch.set_num_threads(cores)
    device, dtype = _hardware(settings)
    at_once = cores if device.type == 'cpu' else 1
    _, flop = product(dtype, device)
    x, y = x[:rows], y[:rows]
    jobs = dict(plain=plain(x, y)[0], emonb=on_each(at_once, lambda: ours(x, y)), product=on_each(at_once, lambda: product(dtype, device)[0]))
    for job in jobs.values(): job()
    times = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items(): times[name].append(timed(job, clock))
    done = dict(plain=rows, emonb=at_once*rows) # in the same time
    ratio = [a/done['plain']/(b/done['emonb']) for a, b in zip(times['plain'], times['emonb'])]
    share = [done['emonb']*mflop*1e6/a/(at_once*flop/b) for a, b in zip(times['emonb'], times['product'])]
    print(f'R1, batch {batch}, {mflop:.0f} MFLOP a row done plainly; {device}, {dtype}, {cores} cores, {clock.__name__}')
    for name in ('plain', 'emonb'):
        per_second = [done[name]/t for t in times[name]]
        print(f'  {name}: {statistics.median(per_second):.0f} rows/s ({min(per_second):.0f} to {max(per_second):.0f}), '
              f'{statistics.median(per_second)*mflop/1e3:.0f} GFLOP/s as if done plainly')
    print(f'  the plain loop takes {spread(ratio)} times as long (should be at least 2.5, aim 3.3)')
    print(f"  matrix products alone: {at_once*flop/statistics.median(times['product'])/1e9:.0f} GFLOP/s; "
          f'emonb achieves {spread(share)} of it (should be at least 0.60; above 1 where it needs fewer products)')

def accuracy(data, parts):
    "Validation accuracy after ten epochs, of both."
    device = torch.device('cpu')
    x, y = standardised(data.inputs, parts.train, device, torch.float32), torch.from_numpy(data.labels)
    epoch, model = plain(x[parts.train], y[parts.train])
    for _ in range(epochs): epoch()
    model.eval()
    with torch.inference_mode(): right = float((model(x[parts.val]).argmax(1) == y[parts.val]).double().mean())
    mine = fit(FastR1, data, parts, settings, 'R1').curves.val_accuracy.iloc[-1]
    error = (2*right*(1 - right)/len(parts.val))**.5
    print(f'validation accuracy after {epochs} epochs on {len(parts.train)} rows: plain {right:.3f}, emonb {mine:.3f}; '
          f'difference {mine - right:+.3f}, standard error of a difference {error:.3f}')

def main():
    clips = paper_clips(open_corpora('auto', 'quick'))
    clips = clips.sample(min(len(clips), 420), random_state=0).sort_index().reset_index(drop=True)
    chunks = chunk_features(clips)
    print(f'{describe(clips)}; {len(chunks.table)} chunks')
    data = Dataset(chunks.spectrograms, pd.Categorical(chunks.table.emotion, emotions).codes.astype(np.int64))
    parts = split(chunks.table, 'paper')
    x = standardised(data.inputs, parts.train, torch.device('cpu'), torch.float32)
    threads, y = torch.get_num_threads(), torch.from_numpy(data.labels)
    if _hardware(settings)[0].type == 'cpu': speed(x, y, 1, time.process_time) # one core's work, whatever else runs
    speed(x, y, threads, time.perf_counter)
    accuracy(data, parts)


if __name__ == '__main__': main()
