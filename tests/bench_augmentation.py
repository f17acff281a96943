"""Speed of augmentation: `python -m tests.bench_augmentation`.

Nine versions of every clip with both feature sets, decoding and writing included, in processes of their own with an empty cache;
how much of two cores is used; and the making of versions alone beside librosa.effects, in turn and in one run. Sound is that of the corpora
in EMONB_DATA, or else of the demo corpora."""
import json, os, statistics, subprocess, sys, tempfile, time

import librosa, torch

from emonb.audio import read_audio
from emonb.augmentation import analysed, variants, vary, window
from emonb.data import describe
from emonb.demo import open_corpora
from emonb.features import sample_rate

hours, repeats = 2.4, 5

work = '''
import json, os, resource, sys, time
from emonb.augmentation import augmented_features
from emonb.demo import open_corpora
share, workers, cache = float(sys.argv[1]), sys.argv[2], sys.argv[3]
clips = open_corpora('auto', 'quick').sample(frac=share, random_state=0).sort_index().reset_index(drop=True)
os.environ.update(EMONB_CACHE=cache, LOKY_MAX_CPU_COUNT=workers)
def largest(who): return resource.getrusage(who).ru_maxrss/1024
began = time.perf_counter()
chunks = augmented_features(clips)
seconds = time.perf_counter() - began
from joblib.externals.loky import get_reusable_executor
get_reusable_executor().shutdown(wait=True) # ended children are counted
# a worker's peak counts this process's size, too, from which it was forked
peaks = dict(peak=largest(resource.RUSAGE_SELF), peak_of_a_worker=largest(resource.RUSAGE_CHILDREN))
print(json.dumps(dict(seconds=seconds, clips=len(clips), minutes=clips.duration.sum()/60, rows=len(chunks.table),
                      written=chunks.spectrograms.nbytes/2**20, **peaks)))
'''

def augmented(share, workers):
    "Features of all versions of a share of the corpora."
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run([sys.executable, '-c', work, str(share), str(workers), cache], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])

def told(name, done):
    print(f"{name}: {done['clips']} clips, {done['minutes']:.0f} min, nine versions, {done['rows']} chunks in {done['seconds']:.1f} s; "
          f"peak memory {done['peak']:.0f} MB, of a worker {done['peak_of_a_worker']:.0f} MB; {done['written']:.0f} MB of spectrograms written")

def ours(y):
    parts = analysed(y)
    for shift, tempo in variants[['shift', 'tempo']].iloc[1:].itertuples(index=False): vary(y, shift, tempo, parts)

def theirs(y):
    for shift, tempo in variants[['shift', 'tempo']].iloc[1:].itertuples(index=False):
        if shift: librosa.effects.pitch_shift(y, sr=sample_rate, n_steps=shift, n_fft=window)
        else: librosa.effects.time_stretch(y, rate=tempo, n_fft=window)

def beside_librosa():
    "CPU time of the eight copies, on one core."
    torch.set_num_threads(1) # a second thread's waiting is CPU time, too
    clips = open_corpora('auto', 'smoke').sample(10, random_state=0)
    ys = [read_audio(path) for path in clips.path]
    seconds, times = sum(map(len, ys))/sample_rate, dict(emonb=[], librosa=[])
    for repeat in range(repeats + 1): # the first is for warming up
        for name, make in (('emonb', ours), ('librosa', theirs)):
            began = time.process_time()
            for y in ys: make(y)
            if repeat: times[name].append(1000*(time.process_time() - began)/seconds)
    print('eight copies, ms of one core per second of sound: ' + ', '.join(f'{name} {statistics.median(each):.1f}' for name, each in times.items()))

def main(share=1):
    print(f"augmentation, on {describe(open_corpora('auto', 'quick'))}, {os.cpu_count()} cores")
    beside_librosa()
    everything, alone, eighth = augmented(share, 2), augmented(share, 1), augmented(share/8, 2)
    for name, done in (('two processes', everything), ('one process', alone), ('two, an eighth of the clips', eighth)): told(name, done)
    scaled = everything['seconds']*60*hours/everything['minutes']
    print(f'  {hours} hours take {scaled:.0f} s on two cores (should be < 180)')
    print(f"  parallel efficiency {alone['seconds']/2/everything['seconds']:.0%}, start of the processes included (should be at least 85 %)")
    ratio = max(everything[who]/eighth[who] for who in ('peak', 'peak_of_a_worker'))
    print(f"  eight times the clips take {ratio:.2f} times the peak memory (should be < 1.2)")


if __name__ == '__main__': main(*map(float, sys.argv[1:]))
