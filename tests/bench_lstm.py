"""Speed of the LSTM: `python -m tests.bench_lstm`.

The plain PyTorch loop (clips filled up with zeros to the longest of the batch, `nn.LSTM`, float32, masked loss) and the engine with
`emonb.lstm.ClipLSTM`, in turn and in one run; and how long 50 epochs on 1,250 clips take at the engine's speed. Clips have the lengths of
eNTERFACE'05 (1.1 to 6.8 s, 2.8 s in the mean); what the numbers in the chunks are does not matter for speed."""
import os, statistics, time

import numpy as np, torch
import torch.nn.functional as F
from torch import nn

from emonb.lstm import ClipLSTM
from emonb.training import Settings, _hardware, _learn, _optimiser, batches

clips, part, epochs, repeats = 1250, 250, 50, 3
settings = Settings(rate=3e-4, decay=1., batch=32)


class Padded(nn.Module):
    "As one writes it down."
    def __init__(self):
        super().__init__()
        self.lstm, self.scores = nn.LSTM(8192, 128, batch_first=True), nn.Linear(128, 7)
    def forward(self, x): return self.scores(self.lstm(x)[0])

def plain(x, y, number):
    "The loop that everyone writes; each call is one epoch."
    torch.manual_seed(0)
    model, order = Padded(), torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=settings.decay)
    rows = [torch.from_numpy(np.flatnonzero(number == each)) for each in range(part)]
    def epoch():
        model.train()
        for some in torch.randperm(part, generator=order).split(settings.batch):
            padded = nn.utils.rnn.pad_sequence([x[rows[each]] for each in some], batch_first=True)
            truth = nn.utils.rnn.pad_sequence([y[rows[each]] for each in some], batch_first=True, padding_value=-1)
            optimiser.zero_grad()
            loss = F.cross_entropy(model(padded).flatten(0, 1), truth.flatten(), ignore_index=-1)
            loss.backward()
            optimiser.step()
            loss.item()
    return epoch

def ours(x, y, number):
    device, dtype = _hardware(settings)
    torch.manual_seed(0)
    model, order = ClipLSTM().to(device), torch.Generator().manual_seed(0)
    optimiser, x, y = _optimiser(model, settings), x.to(device, dtype), y.to(device)
    cast = torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
    return lambda: _learn(model, optimiser, x, y, batches(torch.arange(len(x), device=device), number, settings.batch, order), cast)

def timed(job, clock):
    began = clock()
    job()
    return clock() - began

def spread(values): return f'{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})'

def speed(threads, clock):
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    length = np.clip(rng.normal(2.8, 1, part), 1.12, 6.84)//.512
    number = np.repeat(np.arange(part), length.astype(int))
    x, y = torch.randn(len(number), 8192), torch.from_numpy(number % 7)
    jobs = dict(plain=plain(x, y, number), emonb=ours(x, y, number))
    for job in jobs.values(): job()
    times = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items(): times[name].append(timed(job, clock))
    ratio = [a/b for a, b in zip(times['plain'], times['emonb'])]
    print(f'LSTM, 128 units, batch of {settings.batch} clips; {_hardware(settings)[0]}, {_hardware(settings)[1]}, {threads} threads, {clock.__name__}')
    print(f'  {part} clips, {len(number)} chunks, an epoch: plain {spread(times["plain"])} s, emonb {spread(times["emonb"])} s; '
          f'the padded loop takes {spread(ratio)} times as long')
    print(f'  so {epochs} epochs on {clips:,} clips take {epochs*clips/part*statistics.median(times["emonb"])/60:.1f} minutes (should be below 3 on two cores)')

def main():
    if not torch.cuda.is_available(): speed(1, time.process_time) # one core's work, whatever else runs
    speed(os.cpu_count(), time.perf_counter)


if __name__ == '__main__': main()
