"""How fast recognition is: a stream on one core, its memory over an hour, a folder of 1,000 clips, and the first answer of a cold start.

    python -m tests.bench_streaming [MODEL]       # HOURS=.05 for a short trial of the streams

It ends with status 1 where a bound is missed.
Without a model both kinds of network are measured, untrained, which makes no difference to time."""
import os, resource, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np, soundfile as sf, torch

from emonb.core import EmonbError
from emonb.predict import files_in, recognise_all
from emonb.recognizer import Chunkwise, Clipwise, Recognizer, load_recognizer
from emonb.streaming import Stream
from emonb.synthetic import make_voice, synthesize

def untrained(kind):
    torch.manual_seed(0)
    network = kind(32, 64).eval()
    network.mean.fill_(-6); network.deviation.fill_(2)
    return Recognizer(network, .5, .2, dict(network='untrained', corpora={}))

missed = []

def say(name, value, bound, good):
    print(f'{name:<62} {value:>10}   {bound:<12} {"ok" if good else "MISSED"}', flush=True)
    if not good: missed.append(name)

def megabytes(): # in use now
    return int(Path('/proc/self/statm').read_text().split()[1])*resource.getpagesize()/1e6

def streaming(recognizer, rate, hours=1.):
    torch.set_num_threads(1)
    said = np.concatenate([synthesize(f'bench/a{i}', make_voice('bench/1', 'f'), 'anger', sample_rate=rate).sound for i in range(4)]).astype(np.float32)
    size = round(.512*rate)
    block = np.resize(said, 64*size).reshape(64, size)
    stream, times, used = Stream(recognizer, rate), [], []
    for i in range(64): stream.push(block[i])
    before = megabytes()
    for i in range(int(hours*3600/.512)):
        began, cpu = time.perf_counter(), time.thread_time()
        stream.push(block[i % 64])
        times.append(time.perf_counter() - began); used.append(time.thread_time() - cpu)
    p99, speed, grown = 1e3*np.percentile(times, 99), .512/np.mean(times), megabytes() - before
    say(f'stream at {rate} Hz, one core: p99 of a 512 ms block', f'{p99:.1f} ms', '< 20 ms', p99 < 20)
    print(f'  (of the core itself: p99 {1e3*np.percentile(used, 99):.1f} ms, {.512/np.mean(used):.0f} times real time; the rest is other work on the machine)')
    say(f'stream at {rate} Hz, one core: times real time', f'{speed:.0f}', '>= 50', speed >= 50)
    say(f'stream at {rate} Hz: memory gained in {hours:g} h of sound', f'{grown:.1f} MB', '< 5 MB', grown < 5)

def folder(recognizer, clips=1000):
    with tempfile.TemporaryDirectory() as place:
        total = 0
        for i in range(20): # every other voice at the rate of a CD, in stereo
            rate, channels = ((16000, 1), (44100, 2))[i % 2]
            sound = synthesize(f'bench/a{i}', make_voice(f'bench/{i}', 'fm'[i//2 % 2]), 'neutral', sample_rate=rate).sound.astype(np.float32)
            for j in range(clips//20): sf.write(Path(place)/f'{i}_{j}.wav', np.stack([sound]*channels, 1), rate)
            total += len(sound)/rate*(clips//20)
        (Path(place)/'0_0.wav').write_bytes(b'RIFF')
        began, cpu = time.perf_counter(), time.process_time()
        said = list(recognise_all(recognizer, files_in(place), 2))
        speed, bad = total/(time.perf_counter() - began), sum(isinstance(each, EmonbError) for each in said)
        used = time.process_time() - cpu
    print(f'  (of the cores themselves: {total/used:.0f} times real time on one)')
    say(f'folder of {clips} clips ({total:.0f} s, half at 44.1 kHz), two cores: times real time', f'{speed:.0f}', '> 300', speed > 300)
    say('bad files reported and skipped', bad, '1', bad == 1)

def cold(recognizer):
    with tempfile.TemporaryDirectory() as place:
        model, file = Path(place)/'r.safetensors', Path(place)/'a.wav'
        recognizer.save(model)
        sf.write(file, synthesize('bench/a1', make_voice('bench/1', 'f'), 'anger').sound, 16000)
        code = f'from emonb.reproduce import main; main(["predict", {str(file)!r}, "--model", {str(model)!r}])' # as `emonb predict` does
        times, used = [], lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        for _ in range(3):
            began, cpu = time.perf_counter(), used()
            subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)
            times.append((time.perf_counter() - began, used() - cpu))
    say('first answer of a new process, best of 3', f'{min(times)[0]:.2f} s', '< 4 s', min(times)[0] < 4)
    print(f'  (of the cores themselves: {min(cpu for _, cpu in times):.2f} s)')

def main(model=None):
    for recognizer in [load_recognizer(model)] if model else [untrained(Chunkwise), untrained(Clipwise)]:
        print(type(recognizer.network).__name__)
        cold(recognizer)
        folder(recognizer)
        for rate in (16000, 48000): streaming(recognizer, rate, float(os.environ.get('HOURS', 1)))
    if missed: sys.exit(f'{len(missed)} missed')


if __name__ == '__main__': main(*sys.argv[1:])
