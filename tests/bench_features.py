"""Speed of both feature sets: `python tests/bench_features.py`, also part of `make bench`.

The two-channel spectrograms beside librosa's two transforms, in one run on the same two cores (ours in two threads, librosa's
in two processes), in turn, so that whatever else the machine does slows both; and beside the least time that the operations
can take. Sound is that of the corpora in EMONB_DATA, or else of the demo corpora."""
import os
os.environ.setdefault('OMP_NUM_THREADS', '1') # librosa's processes; ours set their own share
import statistics, time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import librosa, numpy as np, torch

from emonb.audio import read_audio
from emonb.data import describe
from emonb.demo import open_corpora
from emonb.features import (_factor, _product, bins, chunk, chunk_spectrograms, floor, handbuilt, hop, log_spectrogram, n_fft,
                            sample_rate, windows)

workers, seconds, repeats = 2, 60, 9
starts = np.arange(0, 3*sample_rate - chunk + 1, chunk//2)


def sounds():
    "60 s of speech as twenty sounds of 3 s, and what it is made of."
    clips = open_corpora('auto', 'smoke').sample(frac=1, random_state=0)
    clips = clips[clips.duration.cumsum() < seconds + 10]
    y = np.concatenate([read_audio(path) for path in clips.path])
    return y[:seconds*sample_rate].reshape(-1, 3*sample_rate), clips

def librosa_logs(y, window):
    "Log magnitudes of one channel, (256, frames)."
    S = librosa.stft(y, n_fft=n_fft, hop_length=hop, win_length=window, center=True, pad_mode='constant')[1:bins + 1]
    S *= S.real.dtype.type(4/window)
    return S.real.dtype.type(0.5)*np.log(S.real**2 + S.imag**2 + S.real.dtype.type(floor**2))

def librosa_chunks(y):
    logs = np.stack([librosa_logs(y, window)[:, :len(y)//128*4] for window in windows])
    columns = logs.reshape(2, 64, 4, -1, 4).mean((2, 4))
    return np.stack([columns[:, :, s//128:s//128 + 64] for s in starts]).shape

def our_chunks(y): return chunk_spectrograms(y, starts).shape
def our_handbuilt(y): return handbuilt(y, starts).shape

def products(size=2048):
    "A matrix product as ours are made."
    a, b = torch.randn(size, size), _factor(torch.randn(size, size), torch.device('cpu'))
    return lambda: _product(a, b)

def timed(work):
    began = time.perf_counter(); work()
    return time.perf_counter() - began

def spread(values): return f'{statistics.median(values):.2f} (from {min(values):.2f} to {max(values):.2f})'


def main():
    ys, clips = sounds()
    note = ', made by code: set EMONB_DATA to measure on speech' if clips.corpus.str.startswith('demo').all() else ''
    print(f'features: {seconds} s of {describe(clips)}{note}; {workers} of {os.cpu_count()} cores, median of {repeats} (range)')
    with (ProcessPoolExecutor(workers, get_context('spawn')) as processes,
          ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as threads):
        product = products()
        work = {'librosa': lambda: list(processes.map(librosa_chunks, ys)),
                'emonb': lambda: list(threads.map(our_chunks, ys)),
                'handbuilt': lambda: list(threads.map(our_handbuilt, ys)),
                'product': lambda: list(threads.map(lambda _: product(), range(workers)))}
        for job in work.values(): job()
        times = {name: [] for name in work}
        for _ in range(repeats):
            for name, job in work.items(): times[name].append(timed(job))
    per_second = {name: [1000*workers*t/seconds for t in values] for name, values in times.items()}
    ratio = [a/b for a, b in zip(times['librosa'], times['emonb'])]
    flop = sample_rate/hop*sum(4*(window//2)*bins for window in windows)
    peak = workers*2*2048**3/statistics.median(times['product'])
    least = 1000*workers*flop/peak
    ours = statistics.median(per_second['emonb'])
    error = max(np.abs(log_spectrogram(y)[i].numpy() - librosa_logs(y.astype(float), windows[i])).max() for y in ys for i in (0, 1))
    print(f"spectrograms, ms per second of sound and core: librosa {spread(per_second['librosa'])}, "
          f"emonb {spread(per_second['emonb'])}")
    print(f'  librosa takes {spread(ratio)} times as long (should be at least 3)')
    print(f'  largest error of a log magnitude against float64: {error:.1e} (should be at most 1e-3)')
    print(f"  floor {least:.2f} ms: {flop/1e9:.3f} GFLOP at {peak/1e9:.0f} GFLOP/s, {workers} cores' matrix products; "
          f'achieved {workers*flop/ours/1e6:.0f} GFLOP/s, {least/ours:.0%} of it')
    print(f"hand-built features, ms per second of sound and core: {spread(per_second['handbuilt'])} (should be at most 2)")
    if torch.cuda.is_available(): on_gpu(ys)

def on_gpu(ys):
    "The same on a GPU, from sound that lies there."
    y = torch.from_numpy(ys.reshape(-1)).cuda()
    everywhere = np.arange(0, len(y) - chunk + 1, chunk//2)
    for name, features in (('spectrograms', chunk_spectrograms), ('hand-built features', handbuilt)):
        def work(): features(y, everywhere); torch.cuda.synchronize()
        work()
        times = [1000*timed(work)/seconds for _ in range(repeats)]
        print(f'{torch.cuda.get_device_name()}: {name}, ms per second of sound: {spread(times)}')


if __name__ == '__main__': main()
