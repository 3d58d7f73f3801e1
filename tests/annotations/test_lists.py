import gzip
import hashlib
import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from sslosses.annotations import AnnotationError, lists, read_vggss

METADATA = os.environ.get("SSLOSSES_METADATA")
needs_metadata = pytest.mark.skipif(METADATA is None, reason="SSLOSSES_METADATA is not set")
ROOT = Path(__file__).parents[2]


def reference_ids(path):
    """The slow reader: the text before the first comma and the last dot, except for dots that belong to no suffix."""
    rows = path.read_text(encoding="utf-8").splitlines()
    return [row.split(",")[0].strip().removesuffix(".jpg") for row in rows if row.strip()]


def reference_digest(ids):
    text = ""
    for clip in sorted(set(ids)):
        text += clip if not text else "\n" + clip
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", lists.available())
def test_entries_are_whole(name):
    entry = lists.get(name)
    assert entry.name == name
    assert entry.part in ("test", "training")
    assert name in lists.available(entry.part)
    assert entry.count > 100
    assert entry.sources
    for source in entry.sources:
        assert "/" in source.repository
        assert source.file
        assert (len(source.commit), source.license) == ((40, source.license) if entry.digest else (0, ""))
    if entry.shipped:
        ids = entry.ids
        assert len(ids) == len(set(ids)) == entry.count
        assert reference_digest(ids) == entry.digest
        assert lists.recognize(ids) == entry
        assert {source.license for source in entry.sources} <= {"Apache-2.0", "MIT"}
    else:
        with pytest.raises(ValueError, match=f"ids are in the package, but {name} is not"):
            _ = entry.ids


def test_all_lists_have_their_own_hash():
    digests = [lists.get(name).digest for name in lists.available()]
    known = [digest for digest in digests if digest]
    assert len(known) == len(set(known)) == len(digests) - 1


def test_licenses_are_shipped():
    folder = resources.files("sslosses.annotations").joinpath("clip_lists")
    assert "Apache License" in folder.joinpath("LICENSE-Apache-2.0").read_text()
    assert "Dennis Fedorishin" in folder.joinpath("LICENSE-MIT-heartheflow").read_text()
    assert "MIT License" in folder.joinpath("LICENSE-MIT-SSL-TIE").read_text()


def test_recognition_is_by_the_set_of_ids():
    ids = list(lists.get("flickr-178").ids)
    assert lists.recognize(ids[::-1]).name == "flickr-178"
    assert lists.recognize(ids[1:]) is None
    assert lists.recognize([*ids, "another"]) is None
    assert lists.recognize([]) is None
    assert lists.digest(ids[::-1]) == lists.digest(iter(ids)) == reference_digest(ids)
    for call in (lists.digest, lists.recognize):
        with pytest.raises(ValueError, match=f"hold each id once, but got '{ids[3]}' more than once"):
            call([*ids, ids[3]])
        with pytest.raises(TypeError, match="several ids, but got the string"):
            call("flickr-178")


def test_a_list_without_hash_is_known_by_its_count():
    entry = lists.get("vggss-4655")
    assert (entry.count, entry.digest, entry.shipped) == (4655, None, False)
    assert "no license" in entry.note


def test_unknown_names():
    with pytest.raises(ValueError, match=r"`name` to be one of .*'vggss-5158'.*, but got 'vggss'"):
        lists.get("vggss")
    with pytest.raises(ValueError, match="`part` to be one of 'test', 'training', but got 'train'"):
        lists.available("train")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("b\na\n", ("b", "a")),
        ("a_000030.jpg\r\nb_000030.MP4\r\n\r\n", ("a_000030", "b_000030")),
        ("frames/a_000030.jpg\n./b.c.wav\n", ("a_000030", "b.c")),
        ("10000130166,202\n10007936344,0", ("10000130166", "10007936344")),
        ("video,label\na,elk bugling\n", ("a",)),
        ("a,cello,b,flute\n", ("a",)),
        ("---g-f_I2yQ,1,people marching,train\nx,30,a,test\n", ("---g-f_I2yQ_000001", "x_000030")),
        ("\ufeffa\n", ("a",)),
    ],
)
def test_forms_of_files(tmp_path, text, ids):
    path = tmp_path / "list.csv"
    path.write_text(text, encoding="utf-8")
    assert lists.read_ids(path) == ids


def test_parts_of_vggsound(tmp_path):
    path = tmp_path / "vggsound.csv"
    path.write_text("a,1,people marching,train\nb,30,elk bugling,test\nc,2,x,train\n")
    assert lists.read_ids(path, "train") == ("a_000001", "c_000002")
    assert lists.read_ids(path, "test") == ("b_000030",)
    with pytest.raises(ValueError, match="`part` to be one of 'train', 'test', but got 'training'"):
        lists.read_ids(path, "training")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\na.jpg\n", "line 3: expected each clip once, but 'a' is in line 1 too"),
        ("\n", "at least one clip, but the file lists none"),
        ("video,label\n", "the file lists none"),
        ("a\n..\n", "line 2: expected the id to be a clip id"),
        ("a\n,x\n", "line 2: expected the id to be a clip id"),
        ("a:b\n", "line 1: expected the id to be a clip id"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=message) as error:
        lists.read_ids(path)
    assert str(error.value).startswith(f"{path}: ")


FILES = {
    "lists/stoneMo+EZ-VSL/vggss_test.csv": ("vggss-5158", 5158),
    "vggsound_single_test.csv": ("vggss-5158", 5158),
    "lists/jinxiang-liu+SSL-TIE/test_vggss_4911.txt": ("vggss-4911", 4911),
    "lists/denfed+heartheflow/vggss_test_trimmed.csv": ("vggss-4670", 4670),
    "lists/stoneMo+EZ-VSL/vggss_heard_test.csv": ("vggss-heard-2564", 2564),
    "lists/stoneMo+EZ-VSL/vggss_unheard_test.csv": ("vggss-unheard-2575", 2575),
    "lists/jinxiang-liu+SSL-TIE/openset_test_110_heard_2425.txt": ("vggss-heard-2425", 2425),
    "lists/jinxiang-liu+SSL-TIE/openset_test_110_unheard_2463.txt": ("vggss-unheard-2463", 2463),
    "lists/stoneMo+SLAVC/flickr_test.csv": ("flickr-250", 250),
    "lists/stoneMo+EZ-VSL/flickr_test.csv": ("flickr-249", 249),
    "lists/jinxiang-liu+SSL-TIE/test_flickr_250.txt": ("flickr-249", 249),
    "lists/denfed+heartheflow/flickr_test_trimmed.csv": ("flickr-178", 178),
    "lists/denfed+heartheflow/flickr_test_expanded.csv": ("flickr-1666", 1666),
    "music_solo_test.csv": ("music-solo-2124", 2124),
    "music_duet_test.csv": ("music-duet-1020", 1020),
    "lists/stoneMo+AVGN/vgginstruments_test.csv": ("vgginstruments-446", 446),
    "lists/stoneMo+SLAVC/vggss_144k.txt": ("vggsound-144k-slavc", 144_000),
    "lists/denfed+heartheflow/vgg_train_144k.txt": ("vggsound-144k-heartheflow", 144_000),
    "lists/jinxiang-liu+SSL-TIE/train_seen_144k_list.txt": ("vggsound-144k-seen-ssl-tie", 144_000),
    "lists/jinxiang-liu+SSL-TIE/train_vggss_train_144k.txt": ("vggsound-144k-ssl-tie", 144_000),
    "lists/stoneMo+SLAVC/vggss_10k.txt": ("vggsound-10k-slavc", 10_000),
    "lists/denfed+heartheflow/vgg_train_10k.txt": ("vggsound-10k-heartheflow", 10_000),
    "lists/stoneMo+EZ-VSL/vggss_heard.txt": ("vggsound-heard-59468", 59_468),
    "lists/jinxiang-liu+SSL-TIE/openset_train_110_70k.txt": ("vggsound-heard-70k", 70_000),
    "lists/stoneMo+EZ-VSL/flickr_144k.txt": ("flickr-144k", 144_000),
    "lists/stoneMo+EZ-VSL/flickr_10k.txt": ("flickr-10k", 10_000),
    "lists/stoneMo+SLAVC/flickr_sup_train.txt": ("flickr-supervised-4750", 4750),
    "music_solo_train.txt": ("music-solo-train-44532", 44_532),
    "music_duet_train.txt": ("music-duet-train-48348", 48_348),
}


@needs_metadata
@pytest.mark.parametrize("file", FILES)
def test_published_files_are_recognized(file):
    name, count = FILES[file]
    path = Path(METADATA) / file
    ids = lists.read_ids(path)
    assert ids == tuple(reference_ids(path))
    entry = lists.recognize(ids)
    assert (entry.name, entry.count, len(ids)) == (name, count, count)
    assert entry.digest == reference_digest(ids)
    assert Path(file).name in [source.file for source in entry.sources]


def ids(name):
    """The ids of a list of the package, or of the file that is recognized as it."""
    entry = lists.get(name)
    if entry.shipped:
        return set(entry.ids)
    return set(lists.read_ids(Path(METADATA) / next(file for file, (known, _) in FILES.items() if known == name)))


@needs_metadata
@pytest.mark.parametrize(
    ("tested", "trained", "shared"),
    [
        ("vggss-5158", "vggsound-144k-slavc", 3709),
        ("vggss-5158", "vggsound-144k-seen-ssl-tie", 3565),
        ("vggss-5158", "vggsound-heard-70k", 2306),
        ("vggss-5158", "vggsound-10k-slavc", 238),
        ("vggss-5158", "vggsound-144k-heartheflow", 0),
        ("vggss-5158", "vggsound-10k-heartheflow", 0),
        ("vggss-5158", "vggsound-144k-ssl-tie", 0),
        ("vggss-5158", "vggsound-heard-59468", 0),
        ("flickr-250", "flickr-144k", 20),
        ("flickr-250", "flickr-10k", 1),
        ("flickr-250", "flickr-supervised-4750", 0),
        ("flickr-1666", "flickr-144k", 129),
        ("flickr-1666", "flickr-249", 169),
        ("vggss-heard-2425", "vggss-unheard-2575", 1224),
        ("vggss-heard-2564", "vggss-unheard-2575", 0),
        ("vggss-heard-2425", "vggss-unheard-2463", 0),
        ("vggss-4670", "vggss-5158", 4670),
        ("vggss-4911", "vggss-5158", 4911),
    ],
)
def test_clips_that_lists_share(tested, trained, shared):
    assert len(ids(tested) & ids(trained)) == shared


@needs_metadata
def test_heard_has_two_definitions():
    annotations = read_vggss(Path(METADATA) / "vggss.json")
    assert {record.clip for record in annotations} == ids("vggss-5158")
    classes = {
        name: {annotations[clip].classes[0] for clip in ids(name)}
        for name in lists.available("test")
        if "heard" in name
    }
    assert {name: len(part) for name, part in classes.items()} == dict.fromkeys(classes, 110)
    ours, theirs = classes["vggss-heard-2564"], classes["vggss-heard-2425"]
    assert len(ours & theirs) == 52
    assert not ours & classes["vggss-unheard-2575"]
    everything = {record.classes[0] for record in annotations}
    assert everything - ours - classes["vggss-unheard-2575"] == {"singing choir"}
    assert ids("flickr-250") - ids("flickr-249") == {"3908875350"}


@needs_metadata
def test_the_package_holds_what_the_program_makes(tmp_path):
    program = ROOT / "benchmarks" / "make_clip_lists.py"
    subprocess.run([sys.executable, program, "--output", tmp_path], check=True, capture_output=True, cwd=ROOT)
    shipped = resources.files("sslosses.annotations").joinpath("clip_lists")
    for path in tmp_path.iterdir():
        made, kept = path.read_bytes(), shipped.joinpath(path.name).read_bytes()
        if path.suffix == ".gz":  # compressors differ
            made, kept = gzip.decompress(made), gzip.decompress(kept)
        assert made == kept, path.name
    assert json.loads((tmp_path / "registry.json").read_text())["flickr-249"]["count"] == 249
