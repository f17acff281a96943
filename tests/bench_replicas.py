"""Speed of replicas trained together: `python -m tests.bench_replicas`, on a GPU with a CSV file for its table of steps.

R1 with fifteen replicas, five seeds of three protocols, on a GPU, or with four on a CPU, and smaller networks: one epoch of all
together and one after another, in turn and in one run, beside the device's measured matrix product. On a GPU also a training step of
five and of 25 replicas of each network of Table 4: with torch's layers and launch by launch, with the launches of 06e_fused, and
recorded as a CUDA graph, as it is trained, in turn. Inputs are noise of the right shape."""
import functools, statistics, sys, time
from unittest import mock

import numpy as np, pandas as pd, torch

from emonb import fused
from emonb.cnns import build, cost, specs
from emonb.performance import copies
from emonb.protocols import Split
from emonb.replicas import Replicas
from emonb.training import Dataset, Settings, _hardware, _learn, _Training, batches, standardised
from tests.bench_training import spread, timed

repeats = 5


def one_by_one(make, data, splits, settings):
    "An epoch of each, as `fit` does it."
    device, dtype = _hardware(settings)
    x, y = standardised(data.inputs, splits[0].train, device, dtype), torch.from_numpy(data.labels).to(device)
    cast = torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
    trainings, train = [_Training(make, settings, split.seed, device) for split in splits], torch.from_numpy(splits[0].train).to(device)
    def epoch():
        for one in trainings: _learn(one.model, one.optimiser, x, y, batches(train, None, settings.batch, one.order), cast)
    return epoch

def operations(spec):
    "Of a row, forward and backward; the first layer hands no slope on."
    (height, width), places = spec.size, 64 if spec.size[0] == 64 else 64*64
    return 3*cost(spec)['operations'] - 2*2*height*width*places*spec.filters[0]

def product(dtype, device):
    "Products of large matrices, and their operations."
    side, times = (8192, 5) if device.type == 'cuda' else (1024, 3)
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    def work():
        for _ in range(times): a @ b
        if device.type == 'cuda': torch.cuda.synchronize()
    return work, times*2*side**3

def speed(name, replicas, rows, settings):
    make, device, dtype = functools.partial(build, specs[name]), *_hardware(settings)
    data = Dataset(np.random.default_rng(0).normal(size=(rows, 2, 64, 64)).astype(np.float32), np.arange(rows) % 7)
    splits = [Split('noise', seed, 0, np.arange(rows), np.arange(1), np.arange(1), rows) for seed in range(replicas)]
    flop, (peak, products) = operations(specs[name]), product(dtype, device)
    jobs = dict(together=Replicas(make, data, splits, [settings]*replicas).learn, apart=one_by_one(make, data, splits, settings), product=peak)
    for job in jobs.values(): job(); job()
    clock = time.perf_counter if device.type == 'cuda' else time.process_time
    times = {job: [] for job in jobs}
    for _ in range(repeats):
        for job, work in jobs.items(): times[job].append(timed(work, clock))
    print(f'{name}, {replicas} replicas, {rows} rows each, batch {settings.batch}, {flop/1e6:.0f} MFLOP a row; '
          f'{device}, {dtype}, {torch.get_num_threads()} threads, {clock.__name__}')
    for job in ('together', 'apart'):
        rate = replicas*rows/statistics.median(times[job])
        print(f'  {job}: {rate:,.0f} rows/s, {rate*flop/1e12:.3f} TFLOP/s')
    share = [replicas*rows*flop/a/(products/b) for a, b in zip(times['together'], times['product'])]
    print(f"  matrix products alone: {products/statistics.median(times['product'])/1e12:.3f} TFLOP/s; together achieves {spread(share)} of it"
          + (' (aim for R1: 0.50)' if device.type == 'cuda' else ''))
    print(f"  one after another takes {spread([a/b for a, b in zip(times['apart'], times['together'])])} times as long")
    if device.type == 'cuda': print(f'  memory at most {torch.cuda.max_memory_allocated()/2**30:.1f} GiB'); torch.cuda.reset_peak_memory_stats()

def steps(rows=1280):
    "ms a step of each network, three ways, and what its products alone would take."
    data = Dataset(np.random.default_rng(0).normal(size=(rows, 2, 64, 64)).astype(np.float32), np.arange(rows) % 7)
    (peak, products), copied, found = product(torch.bfloat16, torch.device('cuda')), copies(torch.device('cuda'), 2**31), []
    peak(); rate = products/min(timed(peak, time.perf_counter) for _ in range(5))
    for name, spec in specs.items():
        make = functools.partial(build, spec)
        for count in (5, 25):
            splits = [Split('noise', seed, 0, np.arange(rows), np.arange(1), np.arange(1), rows) for seed in range(count)]
            def way(recorded, is_fused):
                with mock.patch.object(fused, 'fits', fused.fits if is_fused else lambda x: False):
                    replicas = Replicas(make, data, splits, [Settings()]*count)
                    if not recorded: replicas.waiting = 10**9
                    def epoch(): replicas.learn(); torch.cuda.synchronize()
                    epoch()
                    return 1e3*min(timed(epoch, time.perf_counter) for _ in range(3))/(rows/128)
            work = count*128*operations(spec)
            took = dict(zip(('plain', 'fused', 'recorded'), (way(False, False), way(False, True), way(True, True))))
            found.append(dict(network=name, replicas=count, **took, operations=work, products=1e3*work/rate))
            torch.cuda.empty_cache()
            print(found[-1], flush=True)
    return pd.DataFrame(found).assign(device=torch.cuda.get_device_name(), rate=rate, bandwidth=copied)

def main():
    on_gpu = torch.cuda.is_available()
    if on_gpu and sys.argv[1:]: return steps().to_csv(sys.argv[1], index=False)
    if not on_gpu: torch.set_num_threads(1)
    for name in ('R1', 'R2', 'S1'): speed(name, *((15, 4096, Settings()) if on_gpu else (4, 64, Settings(batch=32))))


if __name__ == '__main__': main()
