"Downloads from a faulty server in this process, and archives that should not be unpacked. Nothing leaves this machine."
import errno, hashlib, http.server, json, logging, re, shutil, stat, struct, threading, zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pooch, pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings, strategies as st

from emonb import download
from emonb.core import EmonbError
from emonb.download import (BadArchive, Source, allowed, by_hand, check_emodb, emodb_clips, fetch_file, get, sources,
                            unpack)

here = ('http://127.0.0.1',)
content = np.random.default_rng(0).bytes(400_000)
content_md5 = hashlib.md5(content).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    "Serves `web.files`; the next of `web.faults[path]`, if any, is done instead of or to the answer."

    def do_GET(self):
        web, span = self.server.web, self.headers.get('Range')
        web.asked.append((self.path, span))
        fault, *what = (web.faults.get(self.path) or [('none',)]).pop(0)
        if fault == 'hang up': return self.connection.close()
        if fault == 'status' or self.path not in web.files:
            return self.answer(what[0] if what else 404, {}, b'<html>sorry</html>')
        if fault == 'redirect': return self.answer(302, {'Location': what[0]}, b'')
        body, start = web.files[self.path], 0
        if span and fault != 'no range': start = int(re.fullmatch(r'bytes=(\d+)-', span)[1])
        if start >= len(body) > 0:
            return self.answer(416, {'Content-Range': f'bytes */{len(body)}'}, b'<html>no more</html>')
        headers = {'Content-Length': len(body) - start}
        if start:
            if fault == 'wrong offset': start -= 7
            headers['Content-Range'] = f'bytes {start}-{len(body) - 1}/{len(body)}'
        if fault == 'no length': headers = {}
        if fault == 'less': # as a server may: a shorter range than was asked for
            headers = {'Content-Length': what[0], 'Content-Range': f'bytes {start}-{start + what[0] - 1}/{len(body)}'}
        self.answer(206 if start else 200, headers, body[start:start + what[0]] if what else body[start:])

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items(): self.send_header(name, str(value))
        self.end_headers()
        self.server.web.sent += len(body)
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_): pass


@pytest.fixture
def web(monkeypatch):
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.web = SimpleNamespace(files={'/noise.bin': content}, faults={}, asked=[], sent=0, slept=[],
                                 address=f'http://127.0.0.1:{server.server_port}')
    monkeypatch.setenv('NO_PROXY', '*')
    monkeypatch.setattr('pooch.core.time.sleep', server.web.slept.append)
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True)
    thread.start()
    yield server.web
    server.shutdown()
    server.server_close()
    thread.join()


def line(refused, folder):
    "The error's text, which is one line and shows no path of this machine."
    text = str(refused.value)
    assert '\n' not in text and str(folder) not in text and 0 < len(text) < 400
    return text


def names(folder): return sorted(p.name for p in Path(folder).iterdir())
def left(folder): return [name for name in names(folder) if not name.endswith('.lock')]

def fetch(web, folder, md5=content_md5):
    return fetch_file(web.address + '/noise.bin', folder/'noise.bin', md5, here)


# Transfers

def test_whole_then_not_asked_again(web, tmp_path):
    said, handler = [], logging.Handler()
    handler.emit = said.append
    pooch.get_logger().addHandler(handler)
    path = tmp_path/'new'/'noise.bin'
    assert fetch_file(web.address + '/noise.bin', path, content_md5, here) == path and path.read_bytes() == content
    fetch_file(web.address + '/noise.bin', path, content_md5, here)
    pooch.get_logger().removeHandler(handler)
    assert web.asked == [('/noise.bin', None)] and names(path.parent) == ['noise.bin']
    assert path.stat().st_mode & 0o444 == 0o444 and not said # pooch would tell where on this machine the file lies


@pytest.mark.fault('a download with a wrong checksum')
def test_damaged_file_is_replaced(web, tmp_path):
    (tmp_path/'noise.bin').write_bytes(content[:-1])
    assert fetch(web, tmp_path).read_bytes() == content


@pytest.mark.fault('a download that breaks off')
@pytest.mark.parametrize('md5', (content_md5, None))
def test_truncated_transfer_goes_on(web, tmp_path, md5):
    web.faults['/noise.bin'] = [('cut', 150_000)]
    assert fetch(web, tmp_path, md5).read_bytes() == content
    kept = 2*2**16 # whole blocks of the first 150,000 bytes
    assert web.asked == [('/noise.bin', None), ('/noise.bin', f'bytes={kept}-')]
    assert web.sent == 150_000 + 400_000 - kept and names(tmp_path) == ['noise.bin']


@pytest.mark.fault('a download that breaks off')
def test_broken_off_for_good_goes_on_at_the_next_call(web, tmp_path):
    web.faults['/noise.bin'] = [('cut', 70_000)]*4
    with pytest.raises(EmonbError, match='broke off .*call again; 262,144 bytes are kept') as refused:
        fetch(web, tmp_path)
    assert '127.0.0.1' in line(refused, tmp_path) and names(tmp_path) == ['noise.bin.part'] and len(web.slept) == 3
    assert fetch(web, tmp_path).read_bytes() == content
    assert web.asked[-1] == ('/noise.bin', 'bytes=262144-') and names(tmp_path) == ['noise.bin']


@pytest.mark.fault('a download that breaks off')
def test_server_that_sends_less_than_was_asked(web, tmp_path):
    web.faults['/noise.bin'] = [('cut', 100_000), ('less', 50_000)]
    assert fetch(web, tmp_path, None).read_bytes() == content
    assert [span for _, span in web.asked] == [None, 'bytes=65536-', 'bytes=115536-']


@pytest.mark.fault('a download that breaks off')
def test_interrupted_by_the_user_keeps_the_part(web, tmp_path, monkeypatch):
    def stopped(self, *_): raise KeyboardInterrupt
    monkeypatch.setattr(download.tqdm, 'update', stopped)
    with pytest.raises(KeyboardInterrupt): fetch(web, tmp_path)
    assert names(tmp_path) == ['noise.bin.part']
    monkeypatch.undo()
    monkeypatch.setenv('NO_PROXY', '*')
    assert fetch(web, tmp_path).read_bytes() == content
    assert web.asked[-1] == ('/noise.bin', 'bytes=65536-')


@pytest.mark.fault('a download that breaks off')
@pytest.mark.parametrize('fault', ('no range', 'no length', 'wrong offset'))
def test_server_that_cannot_continue_starts_over(web, tmp_path, fault):
    (tmp_path/'noise.bin.part').write_bytes(b'?'*1000 if fault == 'no range' else content[:1000])
    web.faults['/noise.bin'] = [(fault,)]
    assert fetch(web, tmp_path).read_bytes() == content
    assert len(web.asked) == 2 - (fault == 'no range') and names(tmp_path) == ['noise.bin']


@pytest.mark.fault('a download that breaks off')
@pytest.mark.parametrize('extra', (b'', b'more than the server has'))
def test_part_that_leaves_nothing_to_send(web, tmp_path, extra):
    (tmp_path/'noise.bin.part').write_bytes(content + extra)
    assert fetch(web, tmp_path).read_bytes() == content
    assert len(web.asked) == (2 if extra else 1)


@pytest.mark.fault('a download with a wrong checksum')
def test_wrong_checksum_ends_at_once(web, tmp_path):
    with pytest.raises(EmonbError, match='noise.bin: arrived with another MD5 than 0{32}; it was deleted') as refused:
        fetch(web, tmp_path, '0'*32)
    assert line(refused, tmp_path) and len(web.asked) == 1 and names(tmp_path) == []


@pytest.mark.fault('a download with a wrong checksum')
def test_part_of_another_file_is_found_out(web, tmp_path):
    (tmp_path/'noise.bin.part').write_bytes(b'?'*1000)
    with pytest.raises(EmonbError, match='another MD5'):
        fetch(web, tmp_path)
    assert fetch(web, tmp_path).read_bytes() == content


@pytest.mark.fault('a server that answers with an error, or not at all')
@pytest.mark.parametrize('status', (401, 403, 404, 410))
def test_refusals_are_final(web, tmp_path, status):
    web.faults['/noise.bin'] = [('status', status)]
    with pytest.raises(EmonbError, match=f'the server answers {status}') as refused: fetch(web, tmp_path, None)
    assert line(refused, tmp_path) and len(web.asked) == 1 and names(tmp_path) == []


@pytest.mark.fault('a server that answers with an error, or not at all')
@pytest.mark.parametrize('status', (429, 500, 503))
def test_passing_faults_are_tried_again(web, tmp_path, status):
    web.faults['/noise.bin'] = [('status', status)]*4
    with pytest.raises(EmonbError, match=f'answers {status}; see to the network, call again$') as refused:
        fetch(web, tmp_path, None)
    assert line(refused, tmp_path) and len(web.asked) == 4
    web.faults['/noise.bin'] = [('status', status), ('hang up',)]
    assert fetch(web, tmp_path, None).read_bytes() == content


@pytest.mark.fault('a server that answers with an error, or not at all')
def test_no_network(web, tmp_path):
    server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
    server.server_close() # a port at which nobody answers
    with pytest.raises(EmonbError, match='x: 127.0.0.1 cannot be reached, or broke off .ConnectionError') as refused:
        fetch_file(f'http://127.0.0.1:{server.server_port}/x', tmp_path/'x', None, here)
    assert line(refused, tmp_path) and names(tmp_path) == []


# Redirects

def test_redirect_within_the_hosts(web, tmp_path):
    web.files['/old'], web.faults['/old'] = b'', [('redirect', '/noise.bin')]
    assert fetch_file(web.address + '/old', tmp_path/'noise.bin', content_md5, here).read_bytes() == content


@pytest.mark.fault('a redirect to another host, or in a circle')
@pytest.mark.parametrize('to', (
    'http://localhost:{port}/noise.bin', 'https://zenodo.org/x', '//localhost:{port}/noise.bin',
    'http://127.0.0.1@localhost:{port}/noise.bin', 'file:///etc/passwd', 'ftp://127.0.0.1/x'))
def test_redirect_elsewhere_is_refused(web, tmp_path, to):
    port = web.address.rsplit(':', 1)[1]
    web.faults['/noise.bin'] = [('redirect', to.format(port=port))]
    with pytest.raises(EmonbError, match='is not on http://127.0.0.1, where .*nothing was fetched') as refused:
        fetch(web, tmp_path, None)
    assert line(refused, tmp_path) and len(web.asked) == 1 and names(tmp_path) == []


@pytest.mark.fault('a redirect to another host, or in a circle')
def test_redirects_in_a_circle(web, tmp_path):
    web.faults['/noise.bin'] = [('redirect', '/noise.bin')]*50
    with pytest.raises(EmonbError, match='the server answers 302'):
        fetch(web, tmp_path, None)
    assert len(web.asked) == 6


def test_hosts():
    assert allowed('https://zenodo.org/x', download.hosts) and allowed('https://emodb.bilderbar.info/x', download.hosts)
    assert allowed('http://www.emodb.bilderbar.info/x', download.hosts)
    assert allowed('HTTPS://ZENODO.ORG:443/x', download.hosts)
    for url in ('http://zenodo.org/x', 'http://bilderbar.info/x', 'https://xzenodo.org', 'zenodo.org/x', '/x', '',
                'https://127.0.0.1/x', 'https://zenodo.org.x.net', 'https://x.net/https://zenodo.org',
                'https://x.net?zenodo.org', 'https://x.net#.zenodo.org', r'https://x.net\.zenodo.org'):
        assert not allowed(url, download.hosts), url
    with pytest.raises(EmonbError, match='nothing was fetched'): fetch_file('https://example.org/x', 'never')


# The disk

@pytest.mark.fault('a disk that is full or fails during a download')
def test_disk_too_small(web, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: SimpleNamespace(free=100_000))
    with pytest.raises(EmonbError, match='0 MB are needed and 0 MB are free; make room, or set EMONB_DATA') as refused:
        fetch(web, tmp_path, None)
    assert line(refused, tmp_path) and len(web.asked) == 1 and names(tmp_path) == []
    archive = zipped(tmp_path/'a.zip', {'a.wav': content})
    with pytest.raises(EmonbError, match='make room'): unpack(archive, tmp_path/'a')
    assert names(tmp_path) == ['a.zip']


@pytest.mark.fault('a disk that is full or fails during a download')
@pytest.mark.parametrize('number, reason', (
    (errno.ENOSPC, 'No space left'), (errno.EROFS, 'Read-only'), (errno.EACCES, 'Permission denied')))
def test_disk_fails_while_writing(web, tmp_path, monkeypatch, number, reason):
    import os
    def failing(*_, **__): raise OSError(number, os.strerror(number), str(tmp_path/'x'))
    archive = zipped(tmp_path/'a.zip', {'a.wav': content})
    with monkeypatch.context() as patched:
        patched.setattr(download, 'open', failing, raising=False)
        with pytest.raises(EmonbError, match=f'cannot be written .{reason}.*set EMONB_DATA') as refused:
            fetch(web, tmp_path, None)
        assert line(refused, tmp_path) and len(web.asked) == 1
        patched.setattr(shutil, 'copyfileobj', failing)
        with pytest.raises(EmonbError, match=f'cannot be written .{reason}') as refused: unpack(archive, tmp_path/'a')
        assert not isinstance(refused.value, BadArchive) and line(refused, tmp_path)
    assert names(tmp_path) == ['a.zip']


@pytest.mark.fault('a disk that is full or fails during a download')
def test_disk_fills_up_half_way(web, tmp_path, monkeypatch):
    class Full:
        def __init__(self, file): self.file = file
        def __enter__(self): return self
        def __exit__(self, *_): self.file.close()
        def truncate(self, size): self.file.truncate(size)
        def write(self, block):
            if self.file.tell() > 100_000: raise OSError(errno.ENOSPC, 'No space left on device')
            self.file.write(block)
    with monkeypatch.context() as patched:
        patched.setattr(download, 'open', lambda *a: Full(open(*a)), raising=False)
        with pytest.raises(EmonbError, match='No space left'):
            fetch(web, tmp_path)
    assert names(tmp_path) == ['noise.bin.part'] # goes on when there is space again
    assert fetch(web, tmp_path).read_bytes() == content
    assert web.asked[-1] == ('/noise.bin', 'bytes=131072-')


def test_file_stands_where_the_folder_should(web, tmp_path):
    (tmp_path/'data').write_text('')
    for call in (lambda: fetch_file(web.address + '/noise.bin', tmp_path/'data'/'noise.bin', None, here),
                 lambda: get('emodb', tmp_path/'data'),
                 lambda: unpack(zipped(tmp_path/'a.zip', {'a': b'a'}), tmp_path/'data'/'a'),
                 lambda: unpack(zipped(tmp_path/'a.zip', {'a': b'a'}), tmp_path/'data')):
        with pytest.raises(EmonbError, match='cannot be written') as refused: call()
        assert line(refused, tmp_path)
    assert not web.asked and names(tmp_path) == ['a.zip', 'data']


# Archives

def zipped(path, contents, how=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', how) as file:
        for name, data in (contents.items() if isinstance(contents, dict) else contents): file.writestr(name, data)
    return path


def info(name, mode=0): # a member of that name, whatever it is
    member = zipfile.ZipInfo('x')
    member.filename, member.external_attr = name, mode << 16
    return member


out, whole, odd = 'leads out', 'absolute', 'link or a device'
evil = {
    'parent': ('../x.wav', 0, out), 'deep parent': ('wav/../../x.wav', 0, out),
    'inner parent': ('wav/../x.wav', 0, out),
    'backslash parent': ('wav\\..\\..\\x.wav', 0, out), 'only parent': ('..', 0, out), 'folder': ('wav/../', 0, out),
    'absolute': ('/etc/x.wav', 0, whole), 'two slashes': ('//host/x.wav', 0, whole), 'backslash': ('\\x.wav', 0, whole),
    'UNC': ('\\\\host\\x.wav', 0, whole), 'drive': ('C:/x.wav', 0, whole), 'drive, relative': ('c:x.wav', 0, whole),
    'stream': ('x.wav:hidden', 0, whole), 'link': ('x.wav', stat.S_IFLNK | 0o777, odd),
    'pipe': ('x.wav', stat.S_IFIFO, odd),
    'device': ('x.wav', stat.S_IFCHR, odd), 'link to a folder': ('wav/', stat.S_IFLNK | 0o777, odd)}


@pytest.mark.fault('an archive whose files lead out of its folder, or overwrite each other')
@pytest.mark.parametrize('kind', evil)
def test_escaping_members_are_refused(tmp_path, kind):
    name, mode, reason = evil[kind]
    (tmp_path/'in').mkdir()
    archive = zipped(tmp_path/'in'/'a.zip', [('good.wav', b'x'), (info(name, mode), b'/etc/passwd')])
    with pytest.raises(BadArchive, match=f'{reason}.*nothing was unpacked') as refused:
        unpack(archive, tmp_path/'in'/'a')
    assert line(refused, tmp_path) and names(tmp_path) == ['in'] and names(tmp_path/'in') == ['a.zip']


def test_good_members_are_not(tmp_path):
    contents = {'a b/c..d/..e.wav': b'1', 'wav/ü.wav': b'2', './top.wav': b'3', '...': b'4'}
    archive = zipped(tmp_path/'a.zip', [(info('dir/', stat.S_IFDIR | 0o755), b''), *contents.items(),
                                        (info('f', stat.S_IFREG | 0o644), b'5')])
    folder = unpack(archive, tmp_path/'deep'/'a')
    assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob('*') if p.is_file()} == \
        {'a b/c..d/..e.wav': b'1', 'wav/ü.wav': b'2', 'top.wav': b'3', '...': b'4', 'f': b'5'}
    assert names(tmp_path/'deep') == ['a'] and folder.stat().st_mode & 0o555 == 0o555


@pytest.mark.fault('an archive whose files lead out of its folder, or overwrite each other')
@pytest.mark.parametrize('other', ('wav/X.WAV', 'wav//x.wav', './wav/x.wav', 'wav'))
def test_members_that_overwrite_each_other(tmp_path, other):
    archive = zipped(tmp_path/'a.zip', [('wav/', b''), ('wav/x.wav', b'1'), (info(other), b'2')])
    with pytest.raises(BadArchive, match='holds .* 2 times'): unpack(archive, tmp_path/'a')


@pytest.mark.fault('an archive that lies about its size', 2)
def test_bombs(tmp_path, monkeypatch):
    bomb = zipped(tmp_path/'bomb.zip', {'x.wav': bytes(10**6)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(BadArchive, match='claim to unpack to 1,000,000; nothing'): unpack(bomb, tmp_path/'a')
    monkeypatch.setattr(download, 'largest', 300_000)
    big = zipped(tmp_path/'big.zip', {'x': content})
    with pytest.raises(BadArchive, match='claim to unpack to 400,000; nothing'): unpack(big, tmp_path/'a')
    assert names(tmp_path) == ['big.zip', 'bomb.zip']


@pytest.mark.fault('an archive that lies about its size', 2)
def test_declared_sizes_are_believed_neither_way(tmp_path):
    archive = zipped(tmp_path/'a.zip', {'x.wav': bytes(10**6)}, zipfile.ZIP_DEFLATED)
    data = bytearray(archive.read_bytes())
    central = data.rindex(b'PK\x01\x02')
    data[central + 24:central + 28] = struct.pack('<I', 4)         # says that a megabyte is four bytes
    archive.write_bytes(data)
    with pytest.raises(BadArchive, match='is damaged'): unpack(archive, tmp_path/'a')
    data[central + 24:central + 28] = struct.pack('<I', 2**32 - 2) # and four gigabytes
    archive.write_bytes(data)
    with pytest.raises(BadArchive, match='claim to unpack to 4,294,967,294'): unpack(archive, tmp_path/'a')
    assert names(tmp_path) == ['a.zip']


@pytest.mark.fault('a damaged archive')
@pytest.mark.parametrize('start', ('<!DOCTYPE html>\n<HTML>', '\n\n<html lang="de">'))
def test_web_page_in_place_of_an_archive(tmp_path, start):
    (tmp_path/'a.zip').write_text(start + '<body>Bitte anmelden</body></html>')
    with pytest.raises(BadArchive, match='is not a whole zip archive but a web page') as refused:
        unpack(tmp_path/'a.zip', tmp_path/'a')
    assert line(refused, tmp_path)


@pytest.mark.fault('a damaged archive')
@pytest.mark.parametrize('damage', ('cut', 'empty', 'nothing in it', 'flipped', 'encrypted', 'method', 'offset'))
def test_damaged_archives(tmp_path, damage):
    contents = {} if damage == 'nothing in it' else {'x.wav': content[:5000], 'y.wav': content[:5000]}
    archive = zipped(tmp_path/'a.zip', contents)
    data = bytearray(archive.read_bytes())
    if damage == 'cut': data = data[:-30]
    if damage == 'empty': data = b''
    if damage == 'flipped': data[7000] ^= 1
    if damage == 'encrypted': data[data.rindex(b'PK\x01\x02') + 8] |= 1
    if damage == 'method': data[data.rindex(b'PK\x01\x02') + 10] = 97
    if damage == 'offset': data[data.rindex(b'PK\x05\x06') + 17] += 100 # all offsets become negative
    archive.write_bytes(data)
    with pytest.raises(BadArchive) as refused: unpack(archive, tmp_path/'a')
    assert line(refused, tmp_path) and names(tmp_path) == ['a.zip']


flip = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)) # where in the file, and the new byte

@pytest.mark.fault('an archive with random bytes in it', 100)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(flip, min_size=1, max_size=4), st.booleans(), st.floats(0.5, 1))
def test_any_damage_is_an_error_or_harmless(tmp_path, flips, at_the_end, cut):
    folder = tmp_path/'fuzz'
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    archive = zipped(folder/'a.zip', {'wav/x.wav': content[:300]*3, 'y.wav': b'1234'}, zipfile.ZIP_DEFLATED)
    data = bytearray(archive.read_bytes())
    tail = data.index(b'PK\x01\x02') if at_the_end else 0 # where names, sizes and offsets are
    for where, value in flips: data[tail + int(where*(len(data) - tail))] = value
    archive.write_bytes(data[:max(1, round(len(data)*cut))] if cut < 0.6 else data)
    try: unpack(archive, folder/'a')
    except EmonbError as error: assert '\n' not in str(error) and names(folder) == ['a.zip'], error
    else: assert names(folder) == ['a', 'a.zip']
    assert names(tmp_path) == ['fuzz']


@pytest.mark.fault('an unpacking that is interrupted')
def test_interrupted_unpacking_leaves_nothing(tmp_path, monkeypatch):
    archive = zipped(tmp_path/'a.zip', {'x.wav': content, 'y.wav': content})
    with monkeypatch.context() as patched:
        def stopped(source, target, *_):
            target.write(source.read(1000))
            raise KeyboardInterrupt
        patched.setattr(shutil, 'copyfileobj', stopped)
        with pytest.raises(KeyboardInterrupt): unpack(archive, tmp_path/'a')
    assert names(tmp_path) == ['a.zip']
    (tmp_path/'.a.unpacking').mkdir() # as a killed process leaves it
    (tmp_path/'.a.unpacking'/'stale.wav').write_bytes(b'')
    (tmp_path/'a').mkdir()
    assert names(unpack(archive, tmp_path/'a')) == ['x.wav', 'y.wav'] and names(tmp_path) == ['a', 'a.zip']


def test_unpacked_once(tmp_path, capsys):
    archive = zipped(tmp_path/'a.zip', {'x.wav': b'1'})
    unpack(archive, tmp_path/'a')
    (tmp_path/'a'/'x.wav').write_bytes(b'mine')
    unpack(archive, tmp_path/'a')
    assert 'already there' in capsys.readouterr().out and (tmp_path/'a'/'x.wav').read_bytes() == b'mine'


# Corpora

def emodb_names():
    return [f'wav/{n % 100:02}{"ab"[n//100]}01{letter}a.wav'
            for letter, count in emodb_clips.items() for n in range(count)]


def emodb_zip(path, names): return zipped(path, {'erkennung.txt': b'text', **{name: content[:50] for name in names}})


@pytest.fixture
def near(web, monkeypatch):
    "The table's sources, but at `web`."
    monkeypatch.setattr(download, 'hosts', here)
    monkeypatch.setattr(download, 'zenodo', web.address + '/api/records')
    def source(name, **fields):
        monkeypatch.setitem(sources, name, Source(name.split('-')[0], '', 'a page', **fields))
    source('emodb', files=('emodb-download.zip',), url=web.address + '/download.zip')
    source('ravdess', files=('Audio.zip',), record=7)
    source('ravdess-video', files=('Video_1.zip', 'Video_2.zip'), record=7)
    def serve(*files, **changes):
        "Put zip files and the record that lists them on the server."
        for name, data in files: web.files['/files/' + name] = data
        record = {'files': [{'key': name, 'size': len(data), 'checksum': 'md5:' + hashlib.md5(data).hexdigest(),
                             'links': {'self': f'{web.address}/files/{name}'}, **changes} for name, data in files]}
        web.files['/api/records/7'] = json.dumps(record).encode()
    return SimpleNamespace(source=source, serve=serve)


def test_get_emodb(web, near, tmp_path, capsys):
    web.files['/download.zip'] = emodb_zip(tmp_path/'x.zip', emodb_names()).read_bytes()
    data = tmp_path/'data'
    assert get('emodb', data) == data/'emodb' and len(names(data/'emodb'/'wav')) == 535
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [f'EMO-DB: {sources["emodb"].terms}', 'a page'] and 'Burkhardt' in said[0]
    assert 'complete' in said[-1] and str(tmp_path) not in '\n'.join(said)
    assert left(data) == ['emodb']
    get('emodb', data)
    assert 'already there' in capsys.readouterr().out and len(web.asked) == 1


def test_licence_comes_first(web, near, tmp_path, capsys):
    with pytest.raises(EmonbError, match='answers 404'): get('emodb', tmp_path)
    assert capsys.readouterr().out.startswith('EMO-DB: free for research')


@pytest.mark.parametrize('change', ('missing', 'renamed', 'twice', 'another corpus', 'a page'))
def test_get_emodb_with_other_content(web, near, tmp_path, change):
    listed = emodb_names()
    if change == 'missing': listed = listed[1:]
    if change == 'renamed': listed[0] = 'wav/03a01Xa.wav'
    if change == 'twice': listed[0] = listed[1].replace('wav/', 'copy/')
    if change == 'another corpus': listed = ['AudioData/DC/a01.wav']
    web.files['/download.zip'] = emodb_zip(tmp_path/'x.zip', listed).read_bytes()
    if change == 'a page': web.files['/download.zip'] = b'<html>moved</html>'
    data = tmp_path/'data'
    with pytest.raises(EmonbError, match='was deleted; call again') as refused: get('emodb', data)
    reason = {'a page': 'a web page', 'another corpus': 'W 0 instead of 127'}.get(change, 'W 126 instead of 127')
    assert reason in line(refused, tmp_path)
    assert left(data) == []
    web.files['/download.zip'] = emodb_zip(tmp_path/'x.zip', emodb_names()).read_bytes()
    assert len(names(get('emodb', data)/'wav')) == 535 # the bad archive does not stand in the way


def test_check_emodb_ignores_what_is_beside_the_clips(tmp_path):
    check_emodb(emodb_zip(tmp_path/'a.zip', emodb_names() + ['__MACOSX/wav/._03a01Wa.wav', 'labsilb/03a01Wa.lablaut']))


def test_get_from_a_record(web, near, tmp_path, capsys):
    audio = zipped(tmp_path/'x.zip', {'Actor_01/03-01-01-01-01-01-01.wav': b'sound'}).read_bytes()
    near.serve(('Audio.zip', audio), ('Other.zip', b'not asked for'))
    folder = get('ravdess', tmp_path/'data')
    assert (folder/'Actor_01'/'03-01-01-01-01-01-01.wav').read_bytes() == b'sound'
    assert [path for path, _ in web.asked] == ['/api/records/7', '/files/Audio.zip']
    assert left(tmp_path/'data') == ['ravdess']


def test_get_several_archives_goes_on(web, near, tmp_path):
    first, second = (zipped(tmp_path/'x.zip', {f'Actor_{n}/01.mp4': content[:1000]*n}).read_bytes() for n in (1, 2))
    near.serve(('Video_1.zip', first), ('Video_2.zip', second))
    web.faults['/files/Video_2.zip'] = [('status', 404)]
    data = tmp_path/'data'
    with pytest.raises(EmonbError, match='answers 404'): get('ravdess-video', data)
    assert names(data/'ravdess-video') == ['Video_1']
    web.asked.clear()
    assert names(get('ravdess-video', data)) == ['Video_1', 'Video_2']
    assert [path for path, _ in web.asked] == ['/api/records/7', '/files/Video_2.zip']
    web.asked.clear()
    get('ravdess-video', data)
    assert not web.asked


def test_known_md5_outranks_the_record(web, near, tmp_path):
    near.serve(('Audio.zip', zipped(tmp_path/'x.zip', {'a.wav': b'changed'}).read_bytes()))
    near.source('ravdess', files=('Audio.zip',), record=7, md5={'Audio.zip': '0'*32})
    with pytest.raises(EmonbError, match='another MD5 than 0{32}'): get('ravdess', tmp_path/'data')


def test_record_disagrees_with_the_file(web, near, tmp_path):
    near.serve(('Audio.zip', b'something'), checksum='md5:' + 'f'*32)
    with pytest.raises(EmonbError, match='another MD5 than f{32}'): get('ravdess', tmp_path/'data')


@pytest.mark.parametrize('record', (
    b'<html>maintenance</html>', b'[]', b'{}', b'{"files": null}', b'{"files": [{"key": "Other.zip"}]}', b'\xff\xfe',
    b'{"files": [{"key": "Audio.zip", "size": 1, "checksum": "sha1:00", "links": {"self": "x"}}]}'))
def test_record_that_is_not_understood(web, near, tmp_path, record):
    web.files['/api/records/7'] = record
    with pytest.raises(EmonbError, match='a page: does not list its files as expected') as refused:
        get('ravdess', tmp_path/'data')
    assert line(refused, tmp_path) and left(tmp_path/'data') == []


def test_record_left_by_a_killed_call_is_not_believed(web, near, tmp_path):
    near.serve(('Audio.zip', zipped(tmp_path/'x.zip', {'a.wav': content[:1000]}).read_bytes()))
    near.source('ravdess', files=('Audio.zip',), record=7)
    data = tmp_path/'data'; data.mkdir()
    for name in ('zenodo-7.json', 'zenodo-7.json.part'): (data/name).write_text('{"files": []}')
    assert names(get('ravdess', data)) == ['a.wav'] and left(data) == ['ravdess']


def test_record_that_leads_elsewhere(web, near, tmp_path):
    near.serve(('Audio.zip', b'something'), links={'self': 'https://elsewhere.net/Audio.zip'})
    with pytest.raises(EmonbError, match='https://elsewhere.net/Audio.zip: is not on'): get('ravdess', tmp_path/'data')


def test_room_for_all_is_checked_first(web, near, tmp_path, monkeypatch):
    near.serve(('Video_1.zip', b''), ('Video_2.zip', b''), size=10**10)
    with pytest.raises(EmonbError, match='30,000 MB are needed'):
        monkeypatch.setattr(shutil, 'disk_usage', lambda _: SimpleNamespace(free=29*10**9))
        get('ravdess-video', tmp_path)
    assert [path for path, _ in web.asked] == ['/api/records/7']


def test_full_disk_keeps_the_archive(web, near, tmp_path, monkeypatch):
    web.files['/download.zip'] = emodb_zip(tmp_path/'x.zip', emodb_names()).read_bytes()
    data = tmp_path/'data'
    def full(*_): raise OSError(errno.ENOSPC, 'No space left on device')
    with monkeypatch.context() as patched:
        patched.setattr(shutil, 'copyfileobj', full)
        with pytest.raises(EmonbError, match='No space left'): get('emodb', data)
    assert left(data) == ['emodb-download.zip']
    assert len(names(get('emodb', data)/'wav')) == 535 and len(web.asked) == 1


def test_second_process_is_told(web, near, tmp_path):
    with FileLock(tmp_path/'.emodb.lock'), pytest.raises(EmonbError, match='another process is') as refused:
        get('emodb', tmp_path)
    assert line(refused, tmp_path) and not web.asked


def test_by_hand_and_unknown(tmp_path, capsys, web):
    for name in ('savee', 'enterface', 'cremad', 'tess'):
        with pytest.raises(EmonbError, match='cannot be fetched by a program'): get(name, tmp_path)
        assert capsys.readouterr().out.strip() == by_hand(name) and 'emonb data check' in by_hand(name)
    for name in sources: assert sources[name].terms in by_hand(name) and sources[name].page in by_hand(name)
    for name in ('', 'EMODB', '../emodb'):
        with pytest.raises(EmonbError, match='not known here; choose one of emodb'): get(name, tmp_path)
    (tmp_path/'savee'/'AudioData').mkdir(parents=True)
    assert get('savee', tmp_path) == tmp_path/'savee' and names(tmp_path) == ['savee'] and not web.asked


def test_the_table_itself():
    for name, source in sources.items():
        assert source.files or source.steps, name
        assert not source.files or bool(source.url) != bool(source.record), name
        assert set(source.md5) <= set(source.files)
        assert all(re.fullmatch('[0-9a-f]{32}', md5) for md5 in source.md5.values())
        assert not source.url or allowed(source.url, download.hosts)
        assert all(Path(file).name == file and file.endswith('.zip') for file in source.files)
    files = [file for source in sources.values() for file in source.files]
    assert len(set(files)) == len(files) # they share a folder while they are fetched
    assert allowed(download.zenodo, download.hosts) and sum(emodb_clips.values()) == 535
