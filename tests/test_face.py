"Faces out of damaged videos, pictures in every layout, weights that are none."
import hashlib, os, types
from pathlib import Path
from unittest import mock

import av, cv2, numpy as np, pandas as pd, pytest, torch
from safetensors.torch import save_file

from emonb.core import EmonbError
from emonb.demo import write_avi
from emonb.face import at_random, at_times, crop, decoded, face_frames, fer_emotions, find_face, image_faces, upright
from emonb.faces import film
from emonb.finetune import FaceNet, Weights, face_labels, features, fingerprint, grey_dataset, imagenet, neighbours, occlusion, own_split
from emonb.protocols import LeakageError, Split, check_split

yunet = Path(os.environ.get('EMONB_WEIGHTS') or 'nowhere')/'face_detection_yunet_2026may.onnx'
real_weights = pytest.mark.skipif(not os.environ.get('EMONB_WEIGHTS'), reason='EMONB_WEIGHTS is not set')
real_faces = Path(os.environ.get('EMONB_DATA') or 'nowhere')/'fer2013'


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch): monkeypatch.setenv('EMONB_CACHE', str(tmp_path_factory.mktemp('cache')))

@pytest.fixture(scope='session')
def videos(tmp_path_factory):
    "Three drawn faces that speak, two subjects."
    folder, rows = tmp_path_factory.mktemp('videos'), []
    for number, (subject, emotion) in enumerate((('1', 'anger'), ('1', 'happiness'), ('2', 'fear'))):
        sound = .1*np.sin(np.arange(48000*(number + 1))/30)
        write_avi(folder/f'{number}.avi', sound, film(sound, 48000, f'enterface/{subject}', emotion, str(number)))
        rows.append(dict(clip=f'demo/{number}', corpus='demo', video=str(folder/f'{number}.avi'), speaker=subject, emotion=emotion))
    return pd.DataFrame(rows)


def test_frames_are_the_same_in_every_order_and_differ_between_clips(videos):
    one, two = face_frames(videos), face_frames(videos.iloc[::-1])
    both = one.table.merge(two.table.reset_index(), on=['clip', 'frame'], suffixes=('', '_'))
    assert len(both) == len(one.table) == 15 and np.array_equal(one.pictures, two.pictures[both['index']])
    chosen = one.table.groupby('clip').frame.apply(tuple)
    assert chosen.nunique() == 3 and all(list(numbers) == sorted(set(numbers)) for numbers in chosen)
    assert (one.table.start*25).round().astype(int).equals(one.table.frame)

def test_a_frame_that_shows_no_face_is_cut_where_the_last_one_was(videos, tmp_path):
    pictures = [frame.to_ndarray(format='rgb24') for _, _, frame in decoded(videos.video[0])]
    pictures[5] = pictures[0] = np.full_like(pictures[0], 90)
    write_avi(tmp_path/'blank.avi', np.zeros(48000), np.stack(pictures))
    found = face_frames(pd.DataFrame([dict(clip='blank', video=str(tmp_path/'blank.avi'))]), frames=25).table
    assert found.found.tolist() == [n not in (0, 5) for n in range(25)]
    boxes = found[['x', 'y', 'width', 'height']]
    assert boxes.loc[5].equals(boxes.loc[4].rename(5)) and boxes.loc[0].equals(boxes.loc[1].rename(0))

@pytest.mark.fault('a damaged film', 24)
def test_damaged_videos_give_a_line_each_and_the_others_go_on(videos, tmp_path):
    good = Path(videos.video[2]).read_bytes()
    rng, rows = np.random.default_rng(0), []
    for n in range(24):
        broken = bytearray(good)
        if n % 3 == 0: broken = broken[:rng.integers(0, 7*len(good)//10)]
        elif n % 3 == 1: broken[rng.integers(0, 2000):][:50] = rng.bytes(50); broken[200:260] = rng.bytes(60)
        else:
            for place in rng.integers(0, len(good), 40): broken[place] = rng.integers(256)
        (tmp_path/f'{n}.avi').write_bytes(broken)
        rows.append(dict(clip=f'broken/{n}', video=str(tmp_path/f'{n}.avi')))
    faces = face_frames(pd.concat([pd.DataFrame(rows), videos[:1]], ignore_index=True))
    assert set(faces.table['clip']) | set(faces.left_out['clip']) == {*(row['clip'] for row in rows), 'demo/0'}
    assert not set(faces.table['clip']) & set(faces.left_out['clip']) and 'demo/0' in set(faces.table['clip'])
    assert {f'broken/{n}' for n in range(0, 24, 3)} <= set(faces.left_out['clip']) # what is cut off is never used
    assert not faces.left_out.problem.str.contains('\n').any()
    assert len(faces.pictures) == len(faces.table)

def test_nothing_usable_is_an_error(tmp_path):
    (tmp_path/'a.avi').write_bytes(b'')
    with pytest.raises(EmonbError, match='none could be cut out.*a.avi'): face_frames(pd.DataFrame([dict(clip='a', video=str(tmp_path/'a.avi'))]))
    with pytest.raises(EmonbError, match='no such file'): find_face(np.zeros((50, 50, 3), np.uint8), 'nowhere.onnx')
    (tmp_path/'no.onnx').write_bytes(b'no model')
    with pytest.raises(EmonbError, match='is no model of YuNet'): find_face(np.zeros((50, 50, 3), np.uint8), str(tmp_path/'no.onnx'))

def test_sampling_holds_no_more_than_it_keeps():
    import weakref
    alive = weakref.WeakSet()
    class Picture:
        def __init__(self): alive.add(self)
    most = 0
    def stream():
        nonlocal most
        for number in range(2000):
            yield number, number/25, Picture()
            most = max(most, len(alive))
    assert len(at_random(stream(), 5, 'x')) == 5 and most <= 8

def test_frames_at_given_times():
    assert [n for n, *_ in at_times(((n, n/10, None) for n in range(5)), [.05, .25, .25, 9])] == [0, 2, 2, 4]

def test_whole_frames_and_sizes(videos):
    faces = face_frames(videos, size=32, frames=2, detector='whole')
    assert faces.pictures.shape == (6, 3, 32, 32) and not faces.table.found.any()
    assert (faces.table[['x', 'y', 'width', 'height']] == [0, 0, 160, 128]).all(axis=None)

@real_weights
def test_both_detectors_agree(videos):
    one, two = face_frames(videos), face_frames(videos, detector=str(yunet))
    middle = lambda table: (table[['x', 'y']].to_numpy() + table[['width', 'height']].to_numpy()/2)
    assert two.table.found.all() and np.abs(middle(one.table) - middle(two.table)).max() < 20

def test_crops_over_the_edge():
    picture = np.arange(30*40*3, dtype=np.uint8).reshape(30, 40, 3)
    assert np.array_equal(crop(picture, (5, 6, 10, 10), 10), picture[6:16, 5:15].transpose(2, 0, 1))
    assert np.array_equal(crop(picture, (35, 25, 10, 10), 10)[:, :5, :5], picture[25:, 35:].transpose(2, 0, 1))


def fer_csv(folder, name, rows=40):
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (rows, 48*48)), np.arange(rows) % 7
    usage = np.array(['Training', 'PublicTest', 'PrivateTest'])[np.arange(rows) % 3]
    table = pd.DataFrame(dict(emotion=labels, pixels=[' '.join(map(str, row)) for row in pixels], Usage=usage))
    if name == 'icml_face_data.csv': table = table[['emotion', 'Usage', 'pixels']].rename(columns=dict(Usage=' Usage', pixels=' pixels'))
    (folder/'fer2013').mkdir(exist_ok=True)
    table.to_csv(folder/'fer2013'/name, index=False)
    return pixels.reshape(-1, 48, 48).astype(np.uint8), labels

@pytest.mark.parametrize('name', ['fer2013.csv', 'icml_face_data.csv'])
def test_the_files_that_torchvision_reads(tmp_path, name):
    from torchvision.datasets import FER2013
    pixels, labels = fer_csv(tmp_path, name)
    faces = image_faces(tmp_path/'fer2013')
    assert np.array_equal(faces.pictures[:, 1], pixels) and faces.table.emotion.tolist() == [fer_emotions[n] for n in labels]
    assert faces.table.part.tolist()[:3] == ['train', 'val', 'test']
    with mock.patch('torchvision.datasets.fer2013.check_integrity', lambda *_, **__: True):
        for split, parts in (('train', ['train']), ('test', ['val', 'test'])):
            theirs, ours = FER2013(tmp_path, split), np.flatnonzero(faces.table.part.isin(parts))
            assert all(np.array_equal(np.asarray(theirs[i][0]), faces.pictures[row, 0]) and theirs[i][1] == labels[row] for i, row in enumerate(ours))
            assert len(theirs) == len(ours)

def test_rows_that_are_no_face(tmp_path):
    fer_csv(tmp_path, 'fer2013.csv', 6)
    file = tmp_path/'fer2013'/'fer2013.csv'
    lines = file.read_text().splitlines()
    lines[2] = '3,1 2 3,Training'; lines[3] = '9' + lines[3][1:]; lines[4] = lines[4].replace(' ', ' 999 ', 1); lines.append('x,,')
    file.write_text('\n'.join(lines))
    faces = image_faces(tmp_path/'fer2013')
    assert len(faces.table) == 3 and len(faces.left_out) == 4 and faces.left_out.problem.str.contains('line 3').any()

def test_dates_of_pictures_do_not_count(tmp_path, monkeypatch):
    monkeypatch.setenv('EMONB_CACHE', str(tmp_path/'cache'))
    (tmp_path/'mine'/'angry').mkdir(parents=True)
    file = tmp_path/'mine'/'angry'/'1.png'
    cv2.imwrite(str(file), np.full((20, 30, 3), 10, np.uint8))
    first = image_faces(tmp_path/'mine')
    os.utime(file, (1, 1))
    assert image_faces(tmp_path/'mine').pictures.filename == first.pictures.filename
    cv2.imwrite(str(file), np.full((20, 30, 3), 11, np.uint8))
    assert image_faces(tmp_path/'mine').pictures.filename != first.pictures.filename

def test_class_folders(tmp_path):
    for n, name in enumerate(('angry', 'Happy', 'surprised', 'fear', 'background')):
        (tmp_path/'mine'/'train'/name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path/'mine'/'train'/name/'1.PNG'), np.full((20 + n, 30, 3), 10*n, np.uint8))
    (tmp_path/'mine'/'train'/'fear'/'2.jpg').write_bytes(b'')
    faces = image_faces(tmp_path/'mine', 24)
    assert sorted(faces.table.emotion) == ['anger', 'fear', 'happiness', 'surprise'] and len(faces.left_out) == 1
    with pytest.raises(EmonbError, match='holds no'): image_faces(tmp_path/'mine'/'train'/'background')


def pictures_table(count=70):
    return pd.DataFrame(dict(clip=[f'x/{n}' for n in range(count)], corpus='x', speaker='', emotion=np.resize(['anger', 'fear'], count),
                             part=np.where(np.arange(count) % 5 == 0, 'test', 'train'), digest=[str(n) for n in range(count)]))

def test_own_split_leaves_out_what_stands_on_both_sides():
    table = pictures_table()
    table.loc[[1, 11], 'digest'] = ['0', '12']  # 1 is test picture 0; 11 and 12 are one training picture
    made = own_split(table)
    assert 1 not in made.train and 1 not in made.val and made.left_out == 1
    assert {made.part[11], made.part[12]} in ({'train'}, {'val'}) and made.test.tolist() == list(range(0, 70, 5))
    with pytest.raises(LeakageError): check_split(table, Split('clip', 0, 0, np.append(made.train, 1), made.val, made.test, 70))
    with pytest.raises(EmonbError, match='no folders train and test'): own_split(table.assign(part=''))

def test_the_corpus_validation_part_is_kept():
    table = pictures_table()
    table.loc[table.index % 5 == 1, 'part'] = 'val'
    assert own_split(table).val.tolist() == list(range(1, 70, 5))


@pytest.fixture
def weights(tmp_path, monkeypatch):
    import torchvision
    torch.manual_seed(0)
    place = tmp_path/'weights'
    place.mkdir()
    save_file(torchvision.models.squeezenet1_1().state_dict(), place/'squeezenet1_1-made-up.safetensors')
    monkeypatch.setenv('EMONB_WEIGHTS', str(place))
    monkeypatch.setattr('torch.hub.get_dir', lambda: str(tmp_path/'hub'))
    return place

def test_a_given_file_says_which_network(weights):
    assert imagenet(download=False)[::2] == ('squeezenet1_1', 'file squeezenet1_1-made-up.safetensors')
    with pytest.raises(EmonbError, match='alexnet: its ImageNet weights are neither'): imagenet('alexnet', download=False)
    with pytest.raises(EmonbError, match='no classifier of that name'): imagenet('alexnot')

@pytest.fixture
def hub(weights, monkeypatch):
    "Puts something into torch hub's cache under a name that its content keeps, as torchvision's names do."
    folder = weights.parent/'hub'/'checkpoints'
    folder.mkdir(parents=True)
    def put(name, content):
        torch.save(content, folder/'new.pth')
        file = (folder/'new.pth').rename(folder/f"{name}-{hashlib.sha256((folder/'new.pth').read_bytes()).hexdigest()[:8]}.pth")
        entry = types.SimpleNamespace(DEFAULT=types.SimpleNamespace(url=f'https://example.org/{file.name}'))
        monkeypatch.setattr('torchvision.models.get_model_weights', lambda _: entry)
        return file
    return put

@pytest.mark.fault('weights that are damaged, or of another network')
def test_torch_hubs_cache_comes_second_and_is_opened_once(hub):
    import torchvision
    state = torchvision.models.squeezenet1_0().state_dict()
    file = hub('squeezenet1_0', state)
    found = imagenet('squeezenet1_0', download=False)
    assert found.source == f"torch hub's cache, {file.name}" and all(torch.equal(value, state[key]) for key, value in found.tensors.items())
    with mock.patch('torch.load', side_effect=AssertionError): assert imagenet('squeezenet1_0', download=False).name == 'squeezenet1_0'
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(EmonbError, match='not what its name promises'): imagenet('squeezenet1_0', download=False)

@pytest.mark.fault('weights that are damaged, or of another network')
def test_what_torchvisions_server_gives_is_held_against_its_name(hub):
    import torchvision
    state = torchvision.models.squeezenet1_0().state_dict()
    file = hub('squeezenet1_0', state)
    content = file.read_bytes()
    file.unlink()
    with mock.patch('torch.hub.download_url_to_file', lambda _, place, **__: Path(place).write_bytes(content)):
        assert imagenet('squeezenet1_0').source == f'downloaded, {file.name}'
    file.unlink()
    with mock.patch('torch.hub.download_url_to_file', lambda _, place, **__: Path(place).write_bytes(content[:99])):
        with pytest.raises(EmonbError, match='not what its name promises'): imagenet('squeezenet1_0')

@pytest.mark.fault('weights that are damaged, or of another network', 5)
def test_weights_that_are_none(weights, monkeypatch):
    file = weights/'squeezenet1_1-made-up.safetensors'
    whole = file.read_bytes()
    for broken in (b'', whole[:1000], whole[:-7], b'no tensors' + whole):
        file.write_bytes(broken)
        with pytest.raises(EmonbError, match='cannot be read as weights'): imagenet()
    save_file({'features.0.bias': torch.zeros(3)}, file)
    with pytest.raises(EmonbError, match='holds other tensors than squeezenet1_1 has'): imagenet()
    monkeypatch.setenv('EMONB_WEIGHTS', str(weights/'gone'))
    with pytest.raises(EmonbError, match='it is not there'): imagenet()
    (weights/'mine.pth').write_bytes(b'')
    monkeypatch.setenv('EMONB_WEIGHTS', str(weights/'mine.pth'))
    with pytest.raises(EmonbError, match='rename it'): imagenet()

class Evil:
    def __init__(self, place): self.place = place
    def __reduce__(self): return os.mkdir, (str(self.place),)

@pytest.mark.fault('a weights file that would run code')
def test_a_given_pickle_is_refused_with_the_way_to_convert_it(weights, monkeypatch):
    torch.save(Evil(weights/'pwned'), weights/'resnet18.pth')
    for place in (weights, weights/'resnet18.pth'):
        monkeypatch.setenv('EMONB_WEIGHTS', str(place))
        with pytest.raises(EmonbError, match='is a pickle.*safetensors.torch.save_file') as caught: imagenet('resnet18')
        assert '\n' not in str(caught.value)
    save_file({'a': torch.zeros(1)}, weights/'resnet18-mine.safetensors') # comes first
    monkeypatch.setenv('EMONB_WEIGHTS', str(weights))
    with pytest.raises(EmonbError, match='resnet18-mine.safetensors: holds other tensors'): imagenet('resnet18')
    assert not (weights/'pwned').exists()

@pytest.mark.fault('a weights file that would run code')
def test_code_in_torch_hubs_cache_is_not_run_even_under_a_forged_name(hub, tmp_path):
    hub('resnet18', Evil(tmp_path/'pwned'))
    with pytest.raises(EmonbError, match='cannot be read as weights'): imagenet('resnet18', download=False)
    hub('resnet18', {'a': torch.zeros(1)})
    with pytest.raises(EmonbError, match='holds other tensors'): imagenet('resnet18', download=False)
    assert not (tmp_path/'pwned').exists()

def test_no_network_is_one_line(weights):
    with mock.patch('torch.hub.download_url_to_file', side_effect=OSError('no route')):
        with pytest.raises(EmonbError, match='could not be fetched .no route.') as caught: imagenet('alexnet')
    assert '\n' not in str(caught.value)


def test_what_learns(videos):
    for name in ('squeezenet1_1', 'resnet18', 'mobilenet_v3_small'):
        torch.manual_seed(0)
        last, every = FaceNet(name, size=64, learn='last'), FaceNet(name, size=64)
        learns = [key for key, p in last.named_parameters() if p.requires_grad]
        assert len(learns) == 2 and all(p.requires_grad for p in every.parameters())
        x = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8)
        before = {key: value.clone() for key, value in last.state_dict().items()}
        last.train()(x).sum().backward()
        assert all(torch.equal(value, before[key]) for key, value in last.state_dict().items()), 'statistics of frozen layers moved'
        assert every.eval()(x).shape == (4, 7) and bool((every(x) < 0).any()), 'scores must be able to fall below zero'

def test_features_are_those_before_the_last_layer(videos):
    faces = face_frames(videos)
    torch.manual_seed(0)
    network = FaceNet('resnet18', size=64, learn='none')
    values = features(faces, network, 'cpu')
    whole = FaceNet('resnet18', size=64).eval()
    whole.load_state_dict(network.state_dict(), strict=False)
    with torch.inference_mode(): scores = whole(torch.from_numpy(np.array(faces.pictures)))
    assert values.shape == (15, 512)
    last = whole.network.fc
    assert torch.allclose(last(torch.from_numpy(np.array(values))), scores, atol=1e-3)
    assert fingerprint(network) != fingerprint(FaceNet('resnet18', size=64, learn='none'))

def test_grey_is_opencvs(videos):
    faces = face_frames(videos)
    theirs = [cv2.cvtColor(picture.transpose(1, 2, 0), cv2.COLOR_RGB2GRAY) for picture in faces.pictures]
    assert np.abs(255*grey_dataset(faces).inputs - np.stack(theirs)).max() < 1

def test_nearest_neighbours_and_occlusion(videos):
    table = pd.DataFrame(dict(clip=['a', 'a', 'b'], speaker=['s', 's', 't'], emotion=['anger', 'anger', 'fear']))
    found = neighbours(np.array([[1., 0], [.9, .1], [0, 1]]), table, Split('paper', 0, 0, np.array([0, 2]), np.array([], int), np.array([1]), 3))
    assert found.tolist() == [1, 1, 1]
    class Corner(torch.nn.Module): # sees the upper left corner only
        def forward(self, x): return torch.stack([x[:, 0, :8, :8].float().mean((1, 2))/20, *[torch.zeros(len(x))]*6], 1)
    pictures = np.full((3, 3, 32, 32), 20, np.uint8)
    pictures[:, :, :8, :8] = 250
    lost = occlusion(Corner(), pictures, np.zeros(3, int), 4, 'cpu')
    assert lost[:, 0, 0].min() > .1 and np.allclose(lost[:, 2:, 2:], 0)


@real_weights
@pytest.mark.data
@pytest.mark.skipif(not real_faces.is_dir(), reason='no FER-2013 in EMONB_DATA')
def test_given_weights_are_learnt_ones():
    "Their features tell real faces apart clearly better than those of random weights."
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    files = [file for emotion in ('happy', 'surprise') for file in sorted((real_faces/'train'/emotion).glob('*.jpg'))[:150]]
    x = np.stack([crop(cv2.imread(str(file)), (0, 0, 48, 48), 48) for file in files])
    y, learnt, scored = np.repeat([0, 1], 150), imagenet(download=False), {}
    for name, tensors in (('learnt', learnt.tensors), ('random', None)):
        torch.manual_seed(0)
        with torch.inference_mode(): values = FaceNet(learnt.name, tensors, 96, 'none').eval()(torch.from_numpy(x)).numpy()
        values, train = StandardScaler().fit_transform(values), np.arange(300) % 3 > 0
        scored[name] = LogisticRegression(C=.01, max_iter=500).fit(values[train], y[train]).score(values[~train], y[~train])
    assert scored['learnt'] > scored['random'] + .08, scored

@pytest.mark.parametrize('turn', [-90, 90, 180, 0])
def test_films_of_a_turned_phone_are_shown_upright(tmp_path, turn):
    up = np.zeros((64, 96, 3), np.uint8); up[:16] = 255 # bright above
    stored = np.ascontiguousarray(np.rot90(up, -turn//90))
    with av.open(str(tmp_path/'film.mp4'), 'w') as film:
        track = film.add_stream('mpeg4', rate=10, width=stored.shape[1], height=stored.shape[0], pix_fmt='yuv420p')
        track.set_display_rotation(turn)
        frames = [av.VideoFrame.from_ndarray(stored, format='rgb24') for _ in range(5)]
        for packet in (packet for frame in (*frames, None) for packet in track.encode(frame)): film.mux(packet)
    pictures = [upright(frame) for *_, frame in decoded(tmp_path/'film.mp4')]
    assert len(pictures) == 5 and all(p.shape == up.shape and np.abs(p.astype(int) - up).mean() < 5 for p in pictures)
