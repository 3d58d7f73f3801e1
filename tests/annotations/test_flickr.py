import pytest

from sslosses.annotations import AnnotationError, rasterize_annotators, read_flickr


def bbox(xmin, ymin, xmax, ymax):
    return f"<bbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bbox>"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "Annotations"
    path.mkdir()
    return path


def annotated(*boxes):
    return f"<annotation><filename>f.jpg</filename>{''.join(boxes)}</annotation>"


def test_boxes_of_annotators(folder):
    (folder / "20.xml").write_text(annotated(bbox(0, 0, 128, 128), bbox(64, 64, 256, 256), bbox(64, 0, 128, 256)))
    (folder / "10.xml").write_text(annotated(bbox(0, 0, 256, 256)))
    (folder / "readme.txt").write_text("not looked at")
    annotations = read_flickr(folder)
    assert [record.clip for record in annotations] == ["10", "20"]
    assert annotations["20"].classes == ()
    assert annotations["20"].boxes[0][1] == (0.25, 0.25, 1.0, 1.0)
    assert (annotations.report.entries, annotations.report.boxes) == (2, 4)
    assert rasterize_annotators(annotations["20"].boxes[0], 4).tolist() == [
        [0.5, 1.0, 0.0, 0.0],
        [0.5, 1.0, 0.5, 0.5],
        [0.0, 1.0, 0.5, 0.5],
        [0.0, 1.0, 0.5, 0.5],
    ]
    assert rasterize_annotators(annotations["10"].boxes[0], 4).unique().tolist() == [0.5]


def test_form_of_the_published_readers(folder):
    """A level for every annotator, and the first child of a box no corner; pixels as these readers compute them."""
    (folder / "1.xml").write_text(
        "<annotations><a><name>x</name></a>"
        "<a><bbox><label>dog</label><a>5</a><b>17</b><c>201</c><d>251</d></bbox></a></annotations>"
    )
    (box,) = read_flickr(folder)["1"].boxes[0]
    assert [int(224 * v) for v in box] == [int(224 * v / 256) for v in (5, 17, 201, 251)]


def test_other_sides_and_invalid_boxes(folder):
    (folder / "a.xml").write_text(annotated(bbox(0, 0, 50, 100), bbox(60, 0, 50, 100)))
    (folder / "b.xml").write_text(annotated())
    kept = read_flickr(folder, side=100)
    assert kept["a"].boxes[0][0] == (0.0, 0.0, 0.5, 1.0)
    assert [str(box) for box in kept.report.invalid] == ["entry 0 (a), bbox[1]: [60.0, 0.0, 50.0, 100.0]"]
    assert kept.report.without_box == ("b",)
    assert [record.clip for record in read_flickr(folder, "drop", side=100)] == ["a"]
    with pytest.raises(AnnotationError, match=r"(?s)entry 0 \(a\), bbox\[1\].*no usable box: b"):
        read_flickr(folder, on_invalid="error", side=100)
    with pytest.raises(ValueError, match="on_invalid"):
        read_flickr(folder, "ignore")
    with pytest.raises(ValueError, match="side"):
        read_flickr(folder, side=0)


BOMB = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "ha"}">' for i in range(10))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"<!DOCTYPE a [{BOMB}]><annotation>&e9;</annotation>", "without a document type"),
        (
            '<!DOCTYPE a [<!ENTITY s SYSTEM "file:///etc/hostname">]><annotation>&s;</annotation>',
            "without a document type",
        ),
        ('<!DOCTYPE a SYSTEM "http://localhost/a.dtd"><annotation/>', "without a document type"),
        ('<!DOCTYPE a [<!ENTITY % p SYSTEM "file:///etc/hostname"> %p;]><annotation/>', "without a document type"),
        (annotated(bbox(0, 0, 1, 1))[:-20], "expected well-formed XML, but it cannot be read"),
        ("", "well-formed XML"),
        ("<annotation>&undeclared;</annotation>", "well-formed XML"),
        (annotated("<bbox><xmin>1</xmin><ymin>2</ymin></bbox>"), "but it holds xmin, ymin"),
        (annotated("<bbox/>"), "but it holds nothing"),
        (annotated(bbox(0, 0, "wide", 1)), "to be finite numbers, but got .*'wide'"),
        (annotated(bbox(0, 0, "nan", 1)), "to be finite numbers"),
        (annotated(bbox(0, 0, "", 1)), "to be finite numbers"),
        (annotated(" " * (1 << 20)), "expected at most 1,048,576 bytes"),
    ],
)
def test_malformed_files(folder, content, message):
    (folder / "good.xml").write_text(annotated(bbox(0, 0, 1, 1)))
    (folder / "odd.xml").write_text(content)
    with pytest.raises(AnnotationError, match=message) as error:
        read_flickr(folder)
    assert "odd.xml" in str(error.value)


def test_no_folder_and_no_file(folder):
    with pytest.raises(FileNotFoundError, match="holds none"):
        read_flickr(folder)
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_flickr(folder / "none")
