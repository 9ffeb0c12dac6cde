"""``scoresde`` is the one name that is imported, whatever a user's own files are called and however it is installed."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from scoresde.checkout import FORMER, PACKAGES
from scoresde.cli import run

from .conftest import ROOT, compose

TRAP = "raise RuntimeError('the file of the user was imported')\n"

PROJECTS = {
    "data": {"data/points.csv": "a,b\n1,2\n"},
    "modules": {
        **dict.fromkeys(["models.py", "data/__init__.py", "metrics.py", "training.py", "run.py", "tasks.py"], TRAP),
        "conf/config.yaml": "defaults: [nothing]\n",
        "conf/__init__.py": TRAP,
        "conf/sde/vp.yaml": "_target_: x\n",
    },
}
"""Files of a user that might be taken for ours; the error of a module that was imported names its file."""

SCRIPT = """
import sys, time

started = time.perf_counter()
import scoresde
assert time.perf_counter() - started < 5 and "torch" not in sys.modules
from scoresde import conf, data, figures, latent, likelihood, metrics, models, samplers, sde_lib, tasks, training
assert data.Moons.__module__ == "scoresde.data.curves" and sde_lib.VP is __import__("scoresde.sde_lib.vp").sde_lib.VP
print("imported", scoresde.__file__, flush=True)
sde, score, points = scoresde.load(sys.argv[1])
assert isinstance(sde, sde_lib.VP) and isinstance(points, data.Moons)
print("loaded", flush=True)
from importlib.metadata import entry_points
(script,) = entry_points(group="console_scripts", name="scoresde")
sys.argv[:] = ["scoresde", *sys.argv[2:]]
script.load()()
assert "sympy" not in sys.modules, "half a second of every run"
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the checkout, in which installing leaves its traces."""
    return copied(tmp_path_factory.mktemp("source"))


def copied(folder: Path) -> Path:
    """Copies what an install needs into the folder; the tree of the tests need not be a git checkout."""
    paths = [ROOT / name for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "run.py")]
    for name in ("scoresde", *PACKAGES):
        paths += [path for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".yaml")]
    for path in paths:
        place = folder / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module", params=["editable", "wheel"])
def python(request, source, tmp_path_factory) -> str:
    """The Python of an environment in which the project is installed so; other packages are those of the tests."""
    folder = tmp_path_factory.mktemp(request.param)
    venv.create(folder / "venv", symlinks=True)
    binary = folder / "venv" / "bin" / "python"
    site = Path(
        subprocess.run(
            [binary, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()
    )  # fmt: skip
    hook = "build_editable" if request.param == "editable" else "build_wheel"
    code = f"from setuptools import build_meta; build_meta.{hook}({str(folder)!r})"
    built = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return str(binary)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """A network's folder."""
    folder = tmp_path_factory.mktemp("network")
    words = ["data=moons", "sde=vp", "training.steps=2", "training.batch=8", "training.evaluate=0", "model.width=8"]
    choices = dict.fromkeys(("task", "data", "sde", "sampler", "model"), "x")
    run(compose("task=train", *words, f"store={folder}/store"), choices, folder / "run")
    return next((folder / "store").iterdir())


@pytest.mark.parametrize("project", PROJECTS)
def test_a_users_files_are_left_alone(tmp_path, python, network, project):
    """Imports, loads and runs the command line in a folder of the user, which stands first on the path."""
    for name, text in PROJECTS[project].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    words = ["data=mixture", "model=oracle", "sde=vp", "sampler=ddim", "sampler.steps=2", "count=8", "threads=1"]
    words += ["data.count=200", "data.test_count=200"]
    words += ["data.means=[[0,0,0],[3,3,3]]", "data.weights=[1,1]", "data.stds=[1,2]"]  # no pictures of a plane
    done = subprocess.run(
        [python, "-c", SCRIPT, str(network), *words], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = tmp_path.glob("outputs/sample/mixture-vp-ddim/*")
    assert json.loads((folder / "metrics.json").read_text())["count"] == 8
    assert str(ROOT) not in done.stdout, "the installed copy is the one that is used"


def test_a_checkout_is_whole_beside_an_install_of_another(tmp_path, python):
    """In a second checkout every module is its own, and none is the installed one's."""
    copied(tmp_path)
    code = (
        "import sys, scoresde\nfrom scoresde import cli, conf, data, sde_lib, tasks\n"
        "ours = [m.__file__ for k, m in sys.modules.items() if k.split('.')[0] == 'scoresde' and m.__file__]\n"
        "assert len(ours) > 50 and all(each.startswith(sys.argv[1]) for each in ours), ours"
    )
    done = subprocess.run([python, "-c", code, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_help_names_the_script(tmp_path, python):
    code = "from scoresde.cli import command; import sys; sys.argv = ['/usr/bin/scoresde', '--help']; command()"
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "scoresde -m sde=ve,vp,subvp" in done.stdout and "run.py" not in done.stdout


APPLICATION = """
import hydra
import scoresde

@hydra.main(config_path="conf", config_name="mine", version_base="1.3")
def main(cfg):
    print("value", scoresde.run(cfg))

main()
"""

OWN = """
defaults: [config, override data: mixture, override model: oracle, override sampler: ddim, _self_]
hydra: {searchpath: ["pkg://scoresde.conf"], run: {dir: here}}
sampler: {steps: 2}
data: {count: 200, test_count: 200}
count: 8
mine: 3
"""


def test_it_runs_inside_a_users_own_hydra_application(tmp_path, python):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "mine.yaml").write_text(OWN)
    (tmp_path / "app.py").write_text(APPLICATION)
    done = subprocess.run([python, "app.py", "count=9"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "value" in done.stdout and "mine" in done.stdout, done.stdout
    assert json.loads((tmp_path / "here" / "metrics.json").read_text())["count"] == 9


def python_here(code: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "always::DeprecationWarning", "-c", code, *words],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip


@pytest.mark.parametrize("first", ["former", "today"])
def test_the_former_names_are_the_same_modules(first):
    """In a checkout, whichever is imported first; never a second copy of a class."""
    former = "from sde_lib import VP as A\nfrom sde_lib.vp import VP as B\nimport data.curves, run\n"
    today = "from scoresde.sde_lib import VP as C\nfrom scoresde import data as D, cli\n"
    both = former + today if first == "former" else today + former
    code = (
        "import sys\n" + both + "assert A is B is C and data.curves is D.curves and data is D and run is cli\n"
        "assert sys.modules['data.curves'] is sys.modules['scoresde.data.curves']\n"
        "assert C.__module__ == 'scoresde.sde_lib.vp' and D.curves.__spec__.name == 'scoresde.data.curves'\n"
        "files = [m.__file__ for k, m in sys.modules.items() if k.startswith('scoresde.') and hasattr(m, '__file__')]\n"
        "assert len(files) == len(set(files))"
    )
    done = python_here(code)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("DeprecationWarning") == 3 and "write from scoresde.sde_lib import" in done.stderr


EACH = """
import json, os, sys, traceback, torch, hydra

code, names = sys.argv[1], sys.argv[2:]
for name in names:
    reader, writer = os.pipe()
    if not os.fork():
        os.dup2(writer, 2)
        try:
            exec(code.replace("NAME", name))
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        print(json.dumps(file.read()), flush=True)
    os.wait()
"""


def test_each_former_name_warns_once_and_says_what_to_write():
    """Each in a process of its own, forked after the import of torch."""
    code = f"import NAME, sys\nassert NAME is sys.modules[{FORMER}['NAME']]\nimport NAME"
    done = python_here(EACH, code, *FORMER)
    assert done.returncode == 0, done.stderr
    for (name, today), text in zip(FORMER.items(), map(json.loads, done.stdout.splitlines()), strict=True):
        assert "Error" not in text, text
        (line,) = [line for line in text.splitlines() if "DeprecationWarning" in line]
        assert line.startswith("<string>:1:") and (today if name != "run" else "from scoresde import") in line, line


def test_the_package_is_not_inside_itself():
    done = python_here("import scoresde.scoresde")
    assert done.returncode == 1 and "No module named 'scoresde.scoresde'" in done.stderr
    for name in ("tests", "benchmarks", "run"):
        assert python_here(f"import scoresde.{name}").returncode == 1, "a second copy"


def test_the_public_names_are_there_and_others_are_refused():
    code = (
        "import scoresde\nfor name in scoresde.__all__: getattr(scoresde, name)\n"
        "assert set(scoresde.__all__) <= set(dir(scoresde))\nscoresde.samplerz"
    )
    done = python_here(code)
    assert "has no attribute 'samplerz'; it has fit, load, run, Model, ScoreDensity, sde_lib" in done.stderr


def test_the_packages_of_a_wheel_are_those_of_a_checkout():
    """setup.cfg names each of them."""
    from setuptools.config.setupcfg import read_configuration

    options = read_configuration(ROOT / "setup.cfg")["options"]
    found = [path.parent.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("__init__.py")]
    names = ["scoresde", *(f"scoresde.{'.'.join(path.parts)}" for path in found)]
    assert sorted(options["packages"]) == sorted(names)
    assert options["package_dir"] == {"scoresde": "scoresde", **{f"scoresde.{name}": name for name in PACKAGES}}
