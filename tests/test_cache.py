"Folders that are made once: whole or not there, on this machine and in a store."
import errno, json, os, signal, subprocess, sys, threading, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import emonb.cache
from emonb.cache import cached, fetched
from emonb.core import EmonbError, shown


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'cache'))
    emonb.cache._verified.clear()
    return tmp_path/'cache'

def make(folder): (folder/'content.bin').write_bytes(bytes(range(256))*64)

def slow_make(folder):
    (folder/'mine.txt').write_text(str(os.getpid()))
    time.sleep(0.3)

def ask(_): return (cached('slow', 'key', slow_make)/'mine.txt').read_text()

def test_processes_that_ask_at_once_share_one_making(cache):
    with ProcessPoolExecutor(4) as pool: answers = list(pool.map(ask, range(8)))
    assert len(set(answers)) == 1

def test_a_killed_maker_leaves_nothing_that_counts(cache):
    code = ('import os, signal\nfrom emonb.cache import cached\n'
            'def make(folder): (folder/"half.bin").write_bytes(b"half"); os.kill(os.getpid(), signal.SIGKILL)\n'
            'cached("killed", "key", make)')
    assert subprocess.run([sys.executable, '-c', code]).returncode == -signal.SIGKILL
    folder = cached('killed', 'key', make)
    assert sorted(path.name for path in folder.iterdir()) == ['checksums.json', 'content.bin']
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]

@pytest.mark.parametrize('byte', range(0, 256*64, 997))
def test_a_flipped_bit_is_never_read_as_good(cache, byte):
    folder = cached('flipped', 'key', make)
    content = bytearray((folder/'content.bin').read_bytes())
    content[byte] ^= 1 << byte % 8
    (folder/'content.bin').write_bytes(content)
    emonb.cache._verified.clear() # as in a new process
    assert (cached('flipped', 'key', make)/'content.bin').read_bytes() == bytes(range(256))*64

def test_what_is_damaged_after_it_was_read_is_made_again(cache):
    folder = cached('flipped', 'key', make)
    assert cached('flipped', 'key', make) == folder and folder in emonb.cache._verified
    time.sleep(.05) # dates have steps of some milliseconds
    (folder/'content.bin').write_bytes(b'\0'*256*64)
    assert (cached('flipped', 'key', make)/'content.bin').read_bytes() == bytes(range(256))*64
    (folder/'content.bin').unlink()
    assert (cached('flipped', 'key', make)/'content.bin').read_bytes() == bytes(range(256))*64

@pytest.mark.parametrize('damage', [lambda f: (f/'content.bin').unlink(), lambda f: (f/'more.txt').write_text('x'),
                                    lambda f: (f/'checksums.json').write_text('{'), lambda f: (f/'checksums.json').unlink()])
def test_a_folder_that_is_not_as_it_was_is_made_again(cache, damage):
    damage(cached('damaged', 'key', make))
    emonb.cache._verified.clear()
    assert sorted(path.name for path in cached('damaged', 'key', make).iterdir()) == ['checksums.json', 'content.bin']

@pytest.mark.parametrize('code, words', [(errno.ENOSPC, 'no space is left'), (errno.EROFS, 'read-only'), (errno.EACCES, 'not permitted')])
def test_a_disk_that_cannot_be_written_is_one_clear_line(cache, code, words):
    def full(folder): raise OSError(code, os.strerror(code))
    with pytest.raises(EmonbError, match=words) as caught: cached('full', 'key', full)
    assert '\n' not in str(caught.value) and 'EMONB_CACHE' in str(caught.value)
    assert not [path for path in (cache/'full').iterdir() if path.is_dir()]

def test_a_file_in_the_place_of_the_cache_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path/'file').write_text('')
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'file'))
    with pytest.raises(EmonbError, match='a file stands where a folder is needed'): cached('kind', 'key', make)

def test_a_fault_that_is_no_fault_of_the_disk_keeps_its_traceback(cache):
    def wrong(folder): raise OSError(errno.EIO, 'broken')
    with pytest.raises(OSError, match='broken'): cached('wrong', 'key', wrong)

@pytest.fixture
def two_caches(tmp_path, monkeypatch):
    "What takes the place of two machines that share a store and nothing else: a way to change between them."
    monkeypatch.setenv('EMONB_STORE', f"file://{tmp_path/'store'}")
    def on(machine):
        monkeypatch.setenv('EMONB_CACHE', str(tmp_path/machine))
        emonb.cache._verified.clear(); emonb.cache._sent.clear()
    return on

def counted(folder):
    (folder/'deep').mkdir(); (folder/'deep'/'x.bin').write_bytes(os.urandom(1000)) # never twice the same
    (folder/'y.txt').write_text('y')

def content(folder): return {file.relative_to(folder): file.read_bytes() for file in folder.rglob('*') if file.is_file()}

def test_what_one_machine_made_the_other_fetches(two_caches, tmp_path):
    two_caches('one'); made = cached('kind', 'key', counted)
    two_caches('other')
    arrived = cached('kind', 'key', counted)
    assert arrived != made and content(arrived) == content(made)
    two_caches('third')
    assert content(fetched('kind', made.name)) == content(made)

damages = ['changed', 'empty', 'missing', 'unfinished', 'escaping', 'no JSON', '[1, 2]', '7', 'null', '"text"', '{"": 1}', '{"deep": [1, "x"], "deep/x.bin": [1, "x"]}', '\\x00']

@pytest.mark.fault('a damaged store')
@pytest.mark.filterwarnings('ignore:.*is damaged in EMONB_STORE')
@pytest.mark.parametrize('damage', damages)
def test_a_damaged_store_is_made_good(two_caches, tmp_path, damage):
    two_caches('one'); made = cached('kind', 'key', counted)
    there = tmp_path/'store'/'kind'/made.name
    if damage == 'changed': (there/'y.txt').write_text('z')
    elif damage == 'empty': (there/'deep'/'x.bin').write_bytes(b'')
    elif damage == 'missing': (there/'deep'/'x.bin').unlink()
    elif damage == 'unfinished': (there/'checksums.json').unlink()
    elif damage == 'escaping': (there/'checksums.json').write_text(json.dumps({'../../escaped.txt': [1, 'x']})); (tmp_path/'store'/'escaped.txt').write_text('!')
    else: (there/'checksums.json').write_text(damage)
    two_caches('other'); again = cached('kind', 'key', counted)
    two_caches('third'); third = cached('kind', 'key', counted)
    assert content(again) == content(third) != content(made) and not list((tmp_path/'other').rglob('escaped*'))

def test_what_a_cache_held_before_there_was_a_store_is_sent(two_caches, tmp_path, monkeypatch):
    two_caches('one')
    with monkeypatch.context() as alone:
        alone.delenv('EMONB_STORE'); made = cached('kind', 'key', counted)
    assert not (tmp_path/'store').exists()
    cached('kind', 'key', counted)
    two_caches('other')
    assert content(fetched('kind', made.name)) == content(made)

def test_a_store_that_fails_while_it_is_written_costs_nothing(two_caches, tmp_path, monkeypatch):
    from fsspec.implementations.local import LocalFileSystem
    two_caches('one')
    def fails(*_): raise OSError(errno.EACCES, 'Permission denied')
    with monkeypatch.context() as broken:
        broken.setattr(LocalFileSystem, 'put_file', fails)
        with pytest.raises(EmonbError, match='^EMONB_STORE=file://.*cannot be used .*what was finished is kept'): cached('kind', 'key', counted)
    def never(folder): raise AssertionError('made twice')
    made = cached('kind', 'key', never)
    two_caches('other')
    assert content(cached('kind', 'key', never)) == content(made)

def test_a_fault_of_a_file_that_was_read_is_not_said_of_the_cache(cache, tmp_path):
    def wrong(folder): raise PermissionError(errno.EACCES, 'Permission denied', str(tmp_path/'data'/'clip.wav'))
    with pytest.raises(PermissionError, match='clip.wav'): cached('wrong', 'key', wrong)

def test_a_password_in_an_address_is_not_said(two_caches, monkeypatch):
    two_caches('one'); monkeypatch.setenv('EMONB_STORE', 'nothing://emonb:secret@host/x')
    with pytest.raises(EmonbError, match='EMONB_STORE=nothing://host/x: cannot be used') as caught: cached('kind', 'key', counted)
    assert 'secret' not in str(caught.value) and shown('s3://key:secret@host/x') == 's3://host/x'

def test_a_store_that_cannot_be_reached_is_one_clear_line(two_caches, monkeypatch):
    two_caches('one')
    with pytest.raises(EmonbError, match='is neither in the cache nor in EMONB_STORE'): fetched('kind', 'name')
    for url in ('nothing://x', f'file://{__file__}/x'):
        monkeypatch.setenv('EMONB_STORE', url)
        with pytest.raises(EmonbError, match='^EMONB_STORE=') as caught: cached('kind', url, counted)
        assert '\n' not in str(caught.value)

def share(two_caches, spoil):
    "Machines that share a store: what one has made the next finds; what is spoilt is said, and made anew for the others."
    two_caches('one'); made = cached('kind', 'key', counted)
    two_caches('other'); assert content(cached('kind', 'key', counted)) == content(made)
    spoil(f'kind/{made.name}/y.txt')
    two_caches('third')
    with pytest.warns(UserWarning, match='is damaged in EMONB_STORE'): again = cached('kind', 'key', counted)
    two_caches('fourth'); assert content(cached('kind', 'key', counted)) == content(again) != content(made)

@pytest.mark.filterwarnings('ignore:The async:DeprecationWarning')
def test_a_store_on_an_ftp_server(two_caches, tmp_path, monkeypatch):
    pytest.importorskip('pyftpdlib')
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import ThreadedFTPServer
    (tmp_path/'served').mkdir()
    handler = type('Handler', (FTPHandler,), dict(authorizer=DummyAuthorizer()))
    handler.authorizer.add_user('emonb', 'word', str(tmp_path/'served'), perm='elradfmwMT')
    server = ThreadedFTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv('EMONB_STORE', f'ftp://emonb:word@127.0.0.1:{server.address[1]}/store')
    share(two_caches, lambda file: (tmp_path/'served'/'store'/file).write_text('z'))
    server.close_all()

@pytest.fixture
def s3(monkeypatch):
    "An object store on loopback, as Amazon's, MinIO's or Ceph's are spoken to; it names a client, whose bucket is `emonb`."
    pytest.importorskip('s3fs'); server = pytest.importorskip('moto.server').ThreadedMotoServer('127.0.0.1', 0)
    server.start(); host, port = server.get_host_and_port()
    for name, value in dict(AWS_ENDPOINT_URL=f'http://{host}:{port}', AWS_ACCESS_KEY_ID='emonb', AWS_SECRET_ACCESS_KEY='word', AWS_DEFAULT_REGION='us-east-1').items():
        monkeypatch.setenv(name, value)
    import boto3, fsspec
    fsspec.get_filesystem_class('s3').clear_instance_cache()
    client = boto3.client('s3'); client.create_bucket(Bucket='emonb')
    yield client
    server.stop()

def test_a_store_on_s3(two_caches, s3, monkeypatch):
    monkeypatch.setenv('EMONB_STORE', 's3://emonb/store')
    share(two_caches, lambda file: s3.put_object(Bucket='emonb', Key=f'store/{file}', Body=b'z'))

@pytest.mark.parametrize('endpoint, bucket', [(None, 'No'), ('http://127.0.0.1:9', 'emonb')]) # a name that S3 does not allow; nobody listens
def test_an_s3_that_cannot_be_used_is_one_clear_line(two_caches, s3, monkeypatch, endpoint, bucket):
    two_caches('one')
    monkeypatch.setenv('EMONB_STORE', f's3://{bucket}/store')
    if endpoint: monkeypatch.setenv('AWS_ENDPOINT_URL', endpoint)
    with pytest.raises(EmonbError, match='^EMONB_STORE=s3://.*cannot be used') as caught: cached('kind', 'key', counted)
    assert '\n' not in str(caught.value)
