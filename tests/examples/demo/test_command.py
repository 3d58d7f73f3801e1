"""The command ``demo.py``: its arguments, and what stops it before a model is opened."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from avsl.commands import demo
from avsl.commands.demo import build_parser, listening, main


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PACKAGES", ())


def test_it_serves_this_machine_only_by_default() -> None:
    options = build_parser().parse_args(["runs/x"])
    assert (options.host, options.port, options.open) == ("127.0.0.1", 8321, False)
    assert (options.max_megabytes, options.max_seconds) == (100, 120)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--port", "65536"], "expected a port from 0 to 65535, got '65536'"),
        (["--port", "-1"], "expected a port from 0 to 65535, got '-1'"),
        (["--max-megabytes", "0"], "expected a number above 0, got '0'"),
        (["--max-seconds", "nan"], "expected a number above 0, got 'nan'"),
        (["--max-sec", "3"], "unrecognized arguments"),
        (["--share"], "unrecognized arguments"),
    ],
)
def test_bad_arguments(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["runs/x", *arguments])
    assert reason in capsys.readouterr().err


def test_a_port_in_use(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["runs/x", "--port", str(port)]) == 2
    assert f"Expected `port` to be free, but {port} on 127.0.0.1 is in use. Choose another with --port" in caplog.text
    with listening("127.0.0.1", port) as listener:
        assert listener.getsockname()[1] == port


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_a_host_that_is_not_here(host: str, caplog: pytest.LogCaptureFixture) -> None:
    assert main(["runs/x", "--host", host]) == 2
    assert f"Expected `host` to be an address of this machine, but got '{host}'" in caplog.text


def test_no_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    assert main([str(tmp_path), "--port", "0"]) == 2
    assert "no checkpoints/last.ckpt" in caplog.text


def test_missing_packages(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(demo, "PACKAGES", ("no_such_package",))
    assert main(["runs/x"]) == 2
    assert "not installed: no_such_package. Run in the checkout: pip install '.[demo]'" in caplog.text
