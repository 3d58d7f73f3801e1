import json

import pytest
import towers
from avsl.model.encoders import Features
from avsl.model.encoders.audioclip.sizes import SMALL

pytestmark = pytest.mark.filterwarnings("ignore:.*did not converge.*", "ignore:.*not reach.*")


@pytest.mark.parametrize("name", towers.CASES)
def test_every_case_runs(name):
    found = towers.measure(name, 2, 1, "cpu", SMALL)
    assert len(found["elapsed"]) == len(found["processor"]) == 1
    assert found["memory"] > 0


def test_what_is_read_from_the_disk_has_the_shape_of_features():
    model = towers._model(SMALL)
    plain, kept = (towers._batch(model, 2, 1, kinds) for kinds in ((), ("frames", "sounds")))
    for encoder, inputs, features in (
        (model.visual, plain.frames, kept.frames),
        (model.audio, plain.waveforms, kept.waveforms),
    ):
        assert isinstance(features, Features)
        assert features.values.shape == encoder.features(inputs).shape
    mixed = towers._batch(model, 2, 2, ("frames",))
    assert mixed.frames.values.shape == model.visual.features(towers._batch(model, 2, 2, ()).frames).shape


def test_a_run_resumes(tmp_path, monkeypatch, capsys):
    started = []

    def run(command, **_):
        started.append(command[command.index("--case") + 1])
        if len(started) == 3:
            raise KeyboardInterrupt
        output = json.dumps({"elapsed": [1.0, 3.0, 3.0], "processor": [2.0, 2.0], "memory": 1.5e3})
        return towers.subprocess.CompletedProcess(command, 0, output)

    monkeypatch.setattr(towers.subprocess, "run", run)
    with pytest.raises(KeyboardInterrupt):
        towers.main(["--output", str(tmp_path)])
    towers.main(["--output", str(tmp_path)])
    assert started == [*list(towers.CASES)[:3], *list(towers.CASES)[2:]]
    text = (tmp_path / "towers.md").read_text()
    assert text.count("| 2 s | 3 s (1 s) | 1.50 GB |") == 4
    towers.main(["--table", "--output", str(tmp_path)])
    assert (tmp_path / "towers.md").read_text() == text
