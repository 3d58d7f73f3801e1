"""Makes the registry of the public clip lists and the ids that the package ships, from the published files.

    python benchmarks/make_clip_lists.py --metadata DIR

The folder holds AVGN's lists of MUSIC and VGGSound, vggss.json, and below lists/<owner>+<repository>/ the files of the
other repositories, each with a file COMMIT. Takes seconds. Writes sslosses/annotations/clip_lists/registry.json and
ids.txt.gz.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from result_files import ROOT, write_bytes, write_text
from studies.study import metadata_folder, study_parser

from sslosses.annotations import lists

FOLDER = ROOT / "sslosses" / "annotations" / "clip_lists"
SLAVC, EZ_VSL, AVGN = "stoneMo/SLAVC", "stoneMo/EZ-VSL", "stoneMo/AVGN"
HTF, SSL_TIE, DSOL = "denfed/heartheflow", "jinxiang-liu/SSL-TIE", "DTaoo/Discriminative-Sounding-Objects-Localization"
LICENSES = {SLAVC: "Apache-2.0", EZ_VSL: "Apache-2.0", AVGN: "Apache-2.0", HTF: "MIT", SSL_TIE: "MIT", DSOL: "MIT"}
FOLDERS = {DSOL: "DTaoo+DSOL"}  # others are named as the repository
AT_TOP = ("music_", "vggsound_")  # AVGN's files that lie in the metadata folder itself


class Wanted(NamedTuple):
    """A list: its name, data set and part, files with these ids as (repository, file), and a note."""

    name: str
    data: str
    part: str
    files: tuple[tuple[str, str], ...]
    note: str = ""


WANTED = (
    Wanted(
        "vggss-5158",
        "VGG-SS",
        "test",
        ((EZ_VSL, "vggss_test.csv"), (AVGN, "vggsound_single_test.csv")),
        "All clips of vggss.json; the VGGSound-Single test list is the same.",
    ),
    Wanted("vggss-4911", "VGG-SS", "test", ((SSL_TIE, "test_vggss_4911.txt"),)),
    Wanted("vggss-4670", "VGG-SS", "test", ((HTF, "vggss_test_trimmed.csv"),)),
    Wanted("vggss-heard-2564", "VGG-SS", "test", ((EZ_VSL, "vggss_heard_test.csv"),), "110 classes of EZ-VSL."),
    Wanted("vggss-unheard-2575", "VGG-SS", "test", ((EZ_VSL, "vggss_unheard_test.csv"),), "110 classes of EZ-VSL."),
    Wanted(
        "vggss-heard-2425",
        "VGG-SS",
        "test",
        ((SSL_TIE, "openset_test_110_heard_2425.txt"),),
        "110 classes of SSL-TIE, 52 of which are heard ones of EZ-VSL.",
    ),
    Wanted(
        "vggss-unheard-2463",
        "VGG-SS",
        "test",
        ((SSL_TIE, "openset_test_110_unheard_2463.txt"),),
        "110 classes of SSL-TIE.",
    ),
    Wanted(
        "vggss-extended-10316",
        "Extended VGG-SS",
        "test",
        ((EZ_VSL, "vggss_test.csv"), (SLAVC, "vggss_test_plus_silent.csv")),
        "vggss-5158 and 5,158 pairs without a source, whose ids are frame+sound.",
    ),
    Wanted("flickr-250", "Flickr-SoundNet", "test", ((SLAVC, "flickr_test.csv"),)),
    Wanted(
        "flickr-249",
        "Flickr-SoundNet",
        "test",
        ((EZ_VSL, "flickr_test.csv"), (SSL_TIE, "test_flickr_250.txt")),
        "SSL-TIE's file is named 250. The missing id is 3908875350.",
    ),
    Wanted("flickr-178", "Flickr-SoundNet", "test", ((HTF, "flickr_test_trimmed.csv"),)),
    Wanted("flickr-1666", "Flickr-SoundNet", "test", ((HTF, "flickr_test_expanded.csv"),), "Called expanded."),
    Wanted(
        "flickr-extended-500",
        "Extended Flickr",
        "test",
        ((SLAVC, "flickr_test.csv"), (SLAVC, "flickr_test_plus_silent.csv")),
        "flickr-250 and 250 pairs without a source, whose ids are frame+sound.",
    ),
    Wanted("music-solo-2124", "MUSIC-Solo", "test", ((AVGN, "music_solo_test.csv"),)),
    Wanted("music-duet-1020", "MUSIC-Duet", "test", ((AVGN, "music_duet_test.csv"),)),
    Wanted("dsol-solo-12356", "MUSIC-Solo", "test", ((DSOL, "solotest.json"),), "The frames with a box."),
    Wanted("dsol-duet-10284", "MUSIC-Duet", "test", ((DSOL, "duettest.json"),), "The frames with a box."),
    Wanted(
        "dsol-audioset-4473",
        "AudioSet-instrument",
        "test",
        ((DSOL, "audioset_box.json"),),
        "The frames with a box.",
    ),
    Wanted(
        "vggsound-duet-5158",
        "VGGSound-Duet",
        "test",
        ((AVGN, "vggsound_duet_test.csv"),),
        "The ids join two clips by +.",
    ),
    Wanted("vgginstruments-446", "VGGSound-Instruments", "test", ((AVGN, "vgginstruments_test.csv"),)),
    Wanted(
        "vggsound-144k-slavc",
        "VGGSound",
        "training",
        ((SLAVC, "vggss_144k.txt"),),
        "Also the list of this name of EZ-VSL and SSLalignment. The commonest 'VGG-Sound 144k'.",
    ),
    Wanted("vggsound-144k-heartheflow", "VGGSound", "training", ((HTF, "vgg_train_144k.txt"),)),
    Wanted("vggsound-144k-seen-ssl-tie", "VGGSound", "training", ((SSL_TIE, "train_seen_144k_list.txt"),)),
    Wanted("vggsound-144k-ssl-tie", "VGGSound", "training", ((SSL_TIE, "train_vggss_train_144k.txt"),)),
    Wanted("vggsound-10k-slavc", "VGGSound", "training", ((SLAVC, "vggss_10k.txt"),), "Also EZ-VSL's."),
    Wanted("vggsound-10k-heartheflow", "VGGSound", "training", ((HTF, "vgg_train_10k.txt"),)),
    Wanted("vggsound-heard-59468", "VGGSound", "training", ((EZ_VSL, "vggss_heard.txt"),), "For vggss-heard-2564."),
    Wanted(
        "vggsound-heard-70k", "VGGSound", "training", ((SSL_TIE, "openset_train_110_70k.txt"),), "For vggss-heard-2425."
    ),
    Wanted("flickr-144k", "Flickr-SoundNet", "training", ((EZ_VSL, "flickr_144k.txt"),)),
    Wanted("flickr-10k", "Flickr-SoundNet", "training", ((EZ_VSL, "flickr_10k.txt"),)),
    Wanted("flickr-supervised-4750", "Flickr-SoundNet", "training", ((SLAVC, "flickr_sup_train.txt"),)),
    Wanted("music-solo-train-44532", "MUSIC-Solo", "training", ((AVGN, "music_solo_train.txt"),)),
    Wanted("music-duet-train-48348", "MUSIC-Duet", "training", ((AVGN, "music_duet_train.txt"),)),
)
#: The licenses of the repositories whose ids are shipped.
LICENSE_FILES = {"LICENSE-Apache-2.0": EZ_VSL, "LICENSE-MIT-heartheflow": HTF, "LICENSE-MIT-SSL-TIE": SSL_TIE}
#: Test lists that an annotation file holds itself, so that the ids are not needed in the package.
NOT_SHIPPED = ("vggss-extended-", "flickr-extended-", "dsol-", "vggsound-duet-")


def path_of(metadata: Path, repository: str, file: str) -> Path:
    if repository == AVGN and file.startswith(AT_TOP):
        return metadata / file
    return metadata / "lists" / FOLDERS.get(repository, repository.replace("/", "+")) / file


def source(metadata: Path, repository: str, file: str) -> list[str]:
    commit = path_of(metadata, repository, "COMMIT").read_text().strip()
    return [repository, commit, LICENSES[repository], file]


def ids_of(path: Path) -> tuple[str, ...]:
    """The ids of a published file: pairs are joined by +, and DSOL's frames without a box are left out."""
    if path.suffix == ".json":
        frames = json.loads(path.read_text(encoding="utf-8"))
        return tuple(_dsol_id(frame) for frame, content in frames.items() if content["bbox"])
    if path.name.endswith("_plus_silent.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            return tuple(f"{row['video']}+{row['audio']}" for row in csv.DictReader(file))
    if path.name == "vggsound_duet_test.csv":
        return tuple("+".join(line.split(",")[::2]) for line in path.read_text(encoding="utf-8").splitlines())
    return lists.read_ids(path)


def _dsol_id(frame: str) -> str:
    video, *parts = frame.removesuffix(".jpg").split("/")
    return "_".join([video.removesuffix("_0_1000"), *(part.removeprefix("frame_") for part in parts)])


def entry(metadata: Path, wanted: Wanted) -> tuple[dict[str, object], set[str]]:
    """An entry of the registry, and its ids."""
    sets = [set(ids_of(path_of(metadata, *file))) for file in wanted.files]
    ids = set().union(*sets)
    if wanted.data.startswith("Extended"):
        assert sum(map(len, sets)) == len(ids), wanted.name
    else:
        assert all(other == ids for other in sets), f"the files of {wanted.name} differ"
    content = {
        "data": wanted.data,
        "part": wanted.part,
        "count": len(ids),
        "digest": lists.digest(ids),
        "sources": [source(metadata, *file) for file in wanted.files],
        "shipped": wanted.part == "test" and not wanted.name.startswith(NOT_SHIPPED),
        "note": wanted.note,
    }
    return content, ids


def without_files() -> dict[str, dict[str, object]]:
    """Lists that are known by their count only."""
    return {
        "vggss-4655": {
            "data": "VGG-SS",
            "part": "test",
            "count": 4655,
            "digest": None,
            "sources": [["kaistmm/SSLalignment", "", "", "ours_vggss.txt"]],
            "shipped": False,
            "note": "SSLalignment's repository has no license, so neither ids nor hash are here: it is not recognized.",
        }
    }


def lines_of(shipped: dict[str, set[str]]) -> Iterable[str]:
    """One line per clip: its id and the names of the lists that hold it."""
    for clip in sorted(set().union(*shipped.values())):
        yield " ".join([clip, *(name for name, ids in shipped.items() if clip in ids)])


def main() -> None:
    parser = study_parser(__doc__, metadata=True)
    parser.set_defaults(output=FOLDER)
    options = parser.parse_args()
    metadata = metadata_folder(parser, options)
    entries, shipped = without_files(), {}
    for wanted in WANTED:
        entries[wanted.name], ids = entry(metadata, wanted)
        if entries[wanted.name]["shipped"]:
            shipped[wanted.name] = ids
    rows = ",\n".join(f" {json.dumps(name)}: {json.dumps(content)}" for name, content in sorted(entries.items()))
    write_text(options.output / "registry.json", f"{{\n{rows}\n}}\n")
    text = "".join(f"{line}\n" for line in lines_of(shipped))
    write_bytes(options.output / "ids.txt.gz", gzip.compress(text.encode(), 9, mtime=0))
    for name, repository in LICENSE_FILES.items():
        write_bytes(options.output / name, path_of(metadata, repository, "LICENSE").read_bytes())
    print(f"{len(entries)} lists, {len(shipped)} of them with their ids")


if __name__ == "__main__":
    main()
