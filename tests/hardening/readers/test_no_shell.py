"""No text reaches a shell, and no file that is read can run code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = sorted(path for folder in ("sslosses", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
#: Calls that run a command line or code, or unpickle, with any arguments.
NEVER = {
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn", "eval", "exec"),
    *("commands.getoutput", "asyncio.create_subprocess_shell", "create_subprocess_shell"),
    *("pickle.load", "pickle.Unpickler", "marshal.loads", "shelve.open", "joblib.load"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "xml.etree.ElementTree.parse", "ElementTree.fromstring"),
}
RUNS = ("subprocess.run", "subprocess.Popen", "subprocess.call", "subprocess.check_call", "subprocess.check_output")


def findings(source: str) -> Iterator[str]:
    """Forbidden calls in a source file."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in NEVER or name.endswith((".getoutput", ".create_subprocess_shell")):
            yield name
        if options.get("shell", "False") != "False":
            yield f"{name}(shell=…)"
        # Only a list is safe: a text would be a command line.
        if name in RUNS and isinstance(node.args[0], ast.Constant | ast.JoinedStr | ast.BinOp):
            yield f"{name} with a text"
        if name in ("torch.load", "trainer.fit") and options.get("weights_only") != "True":
            yield f"{name} without weights_only=True"
        if name in ("np.load", "numpy.load", "np.lib.format.read_array") and options.get("allow_pickle") != "False":
            yield f"{name} without allow_pickle=False"
        if name == "yaml.load" and [ast.unparse(a) for a in node.args[1:]] not in (["yaml.SafeLoader"], ["_Loader"]):
            yield "yaml.load with another loader"
        if "trust_remote_code" in options and options["trust_remote_code"] != "False":
            yield f"{name}(trust_remote_code=…)"


def test_there_are_files() -> None:
    assert {"sslosses", "examples", "benchmarks"} == {path.relative_to(ROOT).parts[0] for path in FILES}
    assert len(FILES) > 150


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_file(path: Path) -> None:
    assert list(findings(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "os.system(x)",
        "os.popen(x)",
        "subprocess.run(x, shell=True)",
        "subprocess.run(f'ls {x}')",
        "subprocess.run('ls ' + x)",
        "eval(x)",
        "pickle.load(file)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, yaml.Loader)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_findings(source: str) -> None:
    assert list(findings(source))


def test_the_loader_of_yaml_is_a_safe_one() -> None:
    import yaml
    from avsl.yaml_files import _Loader

    assert issubclass(_Loader, yaml.SafeLoader)
