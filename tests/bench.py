"""The benchmarks, `make bench`: each prints what it measured beside what it should be, as ratios within one run.

Sound is that of the corpora in EMONB_DATA, or else of the demo corpora; a line says which."""
import json, os, statistics, subprocess, sys, tempfile, time

from emonb.data import describe
from emonb.demo import open_corpora
from tests import bench_augmentation, bench_features, bench_lstm, bench_replicas, bench_streaming, bench_training


def seconds(command, repeats=5):
    "Median wall time of a command, s."
    def once():
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began
    return statistics.median(once() for _ in range(repeats))

def start_up():
    "How long a user waits for nothing."
    empty = seconds([sys.executable, '-c', 'pass'])
    module = seconds([sys.executable, '-c', 'import emonb'])
    command = seconds([sys.executable, '-c', 'import sys; from emonb.reproduce import main; sys.argv[1:] = ["--help"]; main()'])
    print(f'start-up: python alone {empty:.2f} s; import emonb {module:.2f} s (should be < 0.3); emonb --help {command:.2f} s (should be < 0.5)')

features_of = '''
import json, os, resource, sys, time
from emonb.chunks import chunk_features, chunk_seconds
from emonb.data import load_clips
from emonb.demo import open_corpora
share = float(sys.argv[1])
clips = open_corpora()
clips = clips.sample(frac=share, random_state=0).sort_index().reset_index(drop=True)
os.environ['EMONB_CACHE'] = sys.argv[2]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
began = time.perf_counter()
chunks = chunk_features(clips)
print(json.dumps(dict(seconds=time.perf_counter() - began, clips=len(clips), minutes=clips.duration.sum()/60, chunks=len(chunks.table),
                      megabytes=chunks.spectrograms.nbytes/2**20, before=before,
                      peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)))
'''

def corpus_features(share):
    "Features of a share of the corpora in a process of its own, with an empty cache."
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run([sys.executable, '-c', features_of, str(share), cache], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])

def whole_corpora():
    "Both feature sets of everything, decoding included; and the memory that ten times the clips take."
    tenth, all_of_it = corpus_features(0.1), corpus_features(1)
    for done in (tenth, all_of_it):
        print(f"features: {done['clips']} clips, {done['minutes']:.0f} min of sound, {done['chunks']} chunks in {done['seconds']:.1f} s "
              f"({60*done['minutes']/done['seconds']:.0f} x real time); peak memory {done['peak']:.0f} MB, {done['megabytes']:.0f} MB of spectrograms written")
    print(f"memory: ten times the clips take {all_of_it['peak']/tenth['peak']:.2f} times the peak (should be < 1.2)")


if __name__ == '__main__':
    print(f"on {describe(open_corpora())}{'' if os.environ.get('EMONB_DATA') else '; demo corpora, unless data/ holds some'}; {os.cpu_count()} cores")
    start_up()
    bench_features.main()
    whole_corpora()
    for bench in (bench_training, bench_replicas, bench_augmentation, bench_lstm, bench_streaming): bench.main()
