"""Memory and time as corpora grow: `make million` (1,000 to 1,000,000 chunks; the last needs 41 GB of disk),
or `python -m tests.bench_million 1000 10000`. EMONB_GROWTH names a file that gets the rows.

Clips of noise, written to disk, go through the clip table, features, the leak-free split, one epoch of R2 whose inputs are read from disk
batch by batch, and scores with intervals; each size in a process of its own. Told is the most memory that it asked for, looked at fifty times a
second (Linux); what the system keeps of a mapped file in memory that nobody else wants is not in it."""
import json, os, re, subprocess, sys, tempfile, threading, time
from pathlib import Path

sizes, chunks_a_clip = (1_000, 10_000, 100_000, 1_000_000), 50
room = 2**27 # bytes that inputs may take in memory; less than the smallest of the usual sizes needs, so that all are read from disk


def corpus(folder: Path, chunks: int):
    "A list of clips of one noise each, by 20 speakers, in all seven emotions; eight bits a sample, which is half the disk."
    import numpy as np, pandas as pd, soundfile
    from emonb.features import chunk, sample_rate
    from emonb.paper import emotions
    rng, rows = np.random.default_rng(0), []
    for number in range(chunks//chunks_a_clip):
        noise = .1*rng.normal(size=chunks_a_clip*chunk)
        soundfile.write(folder/f'{number}.wav', noise, sample_rate, 'PCM_U8')
        rows.append((f'{number}.wav', emotions[number % 7], f's{number % 20}'))
    pd.DataFrame(rows, columns=['path', 'emotion', 'speaker']).to_csv(folder/'clips.csv', index=False)

def watched() -> dict:
    "The most memory of this process up to now, GB, as `most`; kept up to date in the background."
    found = dict(most=0)
    def look():
        while time.sleep(.02) is None: found['most'] = max(found['most'], int(re.search(r'RssAnon:\s+(\d+)', Path('/proc/self/status').read_text())[1])/2**20)
    threading.Thread(target=look, daemon=True).start()
    return found

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
    training._room, began, found, memory = lambda device: room, time.perf_counter(), dict(chunks=chunks), watched()
    def note(stage):
        found[f'{stage}, GB'] = memory['most']
        found[f'{stage}, s'] = time.perf_counter() - began
    time.sleep(.1); note('start')
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
    import pandas as pd
    rows = []
    for chunks in sizes:
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run([sys.executable, '-c', f'import json; from tests.bench_million import measured; print(json.dumps(measured({chunks})))'],
                                  env={**os.environ, 'EMONB_CACHE': cache}, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        if path := os.environ.get('EMONB_GROWTH'): pd.DataFrame(rows).to_csv(path, index=False)
        print(f"{chunks:>9,} chunks, {32_768*chunks/2**30:.1f} GB of spectrograms:", ', '.join(
            f"{stage} {rows[-1][f'{stage}, GB']:.2f} GB after {rows[-1][f'{stage}, s']:.0f} s" for stage in ('start', 'clips', 'features', 'split', 'training', 'evaluation')), flush=True)
    return rows


if __name__ == '__main__': main([int(each) for each in sys.argv[1:]] or sizes)
