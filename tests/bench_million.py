"""Memory and time as corpora grow: `python -m tests.bench_million` (10,000, 100,000 and 1,000,000 chunks; the last takes 33 GB of disk and
about an hour on two cores), or `python -m tests.bench_million 1000 10000`.

Clips of noise, written to disk, go through the clip table, features, the leak-free split, one epoch of R2 whose inputs are read from disk
batch by batch, and scores with intervals; each size in a process of its own, whose peak memory is told."""
import json, os, resource, subprocess, sys, tempfile, time
from pathlib import Path

sizes, chunks_a_clip = (10_000, 100_000, 1_000_000), 50
room = 2**27 # bytes that inputs may take in memory; less than the smallest of the usual sizes needs, so that all are read from disk


def corpus(folder: Path, chunks: int):
    "A list of clips of one noise each, by 20 speakers, in all seven emotions; as FLAC."
    import numpy as np, pandas as pd, soundfile
    from emonb.features import chunk, sample_rate
    from emonb.paper import emotions
    rng, rows = np.random.default_rng(0), []
    for number in range(chunks//chunks_a_clip):
        noise = .1*rng.normal(size=chunks_a_clip*chunk)
        soundfile.write(folder/f'{number}.wav', noise, sample_rate, 'PCM_16')
        rows.append((f'{number}.wav', emotions[number % 7], f's{number % 20}'))
    pd.DataFrame(rows, columns=['path', 'emotion', 'speaker']).to_csv(folder/'clips.csv', index=False)

def measured(chunks: int) -> dict:
    "Peak memory and seconds after each stage."
    import pandas as pd
    from emonb import training
    from emonb.chunks import chunk_features
    from emonb.cnns import build, specs
    from emonb.data import load_clips
    from emonb.evaluation import predictions, score
    from emonb.experiments import dataset
    from emonb.protocols import split
    training._room, began, found = lambda device: room, time.perf_counter(), dict(chunks=chunks)
    def note(stage):
        found[f'{stage}, GB'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20
        found[f'{stage}, s'] = time.perf_counter() - began
    note('start')
    with tempfile.TemporaryDirectory(dir=os.environ.get('EMONB_CACHE')) as folder:
        corpus(Path(folder), chunks); note('corpus')
        clips = load_clips(folder); note('clips')
        made = chunk_features(clips); note('features')
        part = split(made.table, 'speaker'); note('split')
        fitted = training.fit(lambda: build(specs['R2']), dataset(made), part, training.Settings(epochs=1, device='cpu'), 'R2'); note('training')
        frame = predictions('R2', 'test', made.table.iloc[part.test], fitted.probabilities[part.test], 'speaker')
        score(frame, 1000); note('evaluation')
    return found

def main(sizes):
    rows = []
    for chunks in sizes:
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run([sys.executable, '-c', f'import json; from tests.bench_million import measured; print(json.dumps(measured({chunks})))'],
                                  env={**os.environ, 'EMONB_CACHE': cache}, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{chunks:>9,} chunks, {32_768*chunks/2**30:.1f} GB of spectrograms:", ', '.join(
            f"{stage} {rows[-1][f'{stage}, GB']:.2f} GB after {rows[-1][f'{stage}, s']:.0f} s" for stage in ('start', 'clips', 'features', 'split', 'training', 'evaluation')), flush=True)
    return rows


if __name__ == '__main__': main([int(each) for each in sys.argv[1:]] or sizes)
