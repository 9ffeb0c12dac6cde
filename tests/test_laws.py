"""The laws of docs/design.md that a program can check: who imports whom, and that a class and a yaml are all that
a new part needs.
"""

import ast
import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from scoresde import data, likelihood, models, samplers, sde_lib
from scoresde.checkout import PACKAGES
from scoresde.conf import schema

from .conftest import ROOT, compose, standard

FLOOR_1 = {"sde_lib", "data", "metrics", "figures"}
FLOOR_2 = {"models", "training", "samplers", "likelihood"}
MAY_IMPORT = {
    **{name: set() for name in FLOOR_1},
    **dict.fromkeys(FLOOR_2, FLOOR_1),
    "tasks": FLOOR_1 | FLOOR_2,
    "latent": FLOOR_1 | FLOOR_2,
    "conf": FLOOR_1 | FLOOR_2 | {"tasks", "latent"},  # with scoresde/cli.py the place where everything is put together
    "scoresde": FLOOR_1 | FLOOR_2 | {"tasks", "latent", "conf", "cli", "checkout"},
    "run": {"cli", "checkout"},
}
OURS = set(MAY_IMPORT)
DOORS = {
    "hydra": ("scoresde/cli.py", "conf/"),
    "omegaconf": ("scoresde/cli.py", "conf/"),
    "wandb": ("tasks/parts/record.py",),
    "torchdiffeq": ("sde_lib/ode.py",),
}
FILES = sorted(path.relative_to(ROOT) for name in OURS for path in (ROOT / name).rglob("*.py")) + [
    (ROOT / "run.py").relative_to(ROOT)
]


def imports(path) -> set[str]:
    """The first names of all imports in a file, wherever they stand; ``samplers`` for ``scoresde.samplers``.

    Relative imports are the package's own.
    """
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1, f"{path} climbs out of its package"
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.level == 0 else []
        else:
            continue
        assert not [name for name in names if name.split(".")[0] in OURS - {"scoresde"}], (
            f"{path} imports a former name"
        )
        found |= {name.removeprefix("scoresde.").split(".")[0] for name in names}
    return found - ({"checkout"} if path.name == "__init__.py" else set())  # of their former names


def package(path) -> str:
    return path.parts[0].removesuffix(".py")


# --- law 1: import order is theory order ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_down(path):
    strangers = (imports(path) & OURS) - MAY_IMPORT[package(path)] - {package(path)}
    assert not strangers, f"{path} imports {', '.join(sorted(strangers))}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_doors(path):
    for name, doors in DOORS.items():
        if name in imports(path):
            assert str(path).startswith(doors), f"{path} imports {name}; only {' and '.join(doors)} may"


def test_every_package_is_known():
    """A new package gets its floor here."""
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert packages | {"run"} == OURS
    assert packages == {"scoresde", *PACKAGES}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_module_opens_with_its_text(path):
    assert ast.get_docstring(ast.parse((ROOT / path).read_text())), f"{path} has no docstring"


LONGEST = 80  # lines of a function
FUNCTIONS = [
    (path, node)
    for path in FILES
    for node in ast.walk(ast.parse((ROOT / path).read_text()))
    if isinstance(node, ast.FunctionDef)
]


def test_no_function_is_long():
    long = [
        f"{path}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path, node in FUNCTIONS
        if node.end_lineno - node.lineno >= LONGEST
    ]
    assert not long, long


def test_a_run_is_read_on_one_screen():
    (found,) = (node for path, node in FUNCTIONS if str(path) == "scoresde/cli.py" and node.name == "run")
    assert found.end_lineno - found.lineno < 40


def test_no_file_is_called_utils():
    assert not [path for path in FILES if path.stem.lower() in ("utils", "util", "helpers", "misc", "common")]


# --- law 2: no names of SDEs; one class and one yaml ------------------------------------------------------------------

SDE_CLASSES = {
    name for name, value in vars(sde_lib).items() if isinstance(value, type) and issubclass(value, sde_lib.SDE)
}
SDE_NAMES = SDE_CLASSES | {path.stem for path in (ROOT / "conf/sde").glob("*.yaml")}


@pytest.mark.parametrize("path", [path for path in FILES if package(path) != "conf"], ids=str)
def test_nobody_asks_which_sde_it_is(path):
    """No isinstance(sde, VP), no match on it, no comparison with a name: whatever differs is a method of the SDE."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} | {
            each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)
        }
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("isinstance", "issubclass")
        ):
            assert not names & SDE_CLASSES, f"{where} asks for an SDE's class"
        if isinstance(node, ast.MatchClass):
            assert not names & SDE_CLASSES, f"{where} matches an SDE's class"
        if isinstance(node, ast.Compare):
            texts = {
                each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)
            }
            schedule = "schedule" in names  # a rate that falls as a cosine is no SDE
            assert schedule or not texts & SDE_NAMES, f"{where} compares with an SDE's name"
            if names & {"type", "__class__", "__name__", "__qualname__"}:
                assert not names & ({"sde"} | SDE_CLASSES), f"{where} compares an SDE's type"


# --- one source of randomness -----------------------------------------------------------------------------------------

DRAWING = {
    *(
        "rand",
        "randn",
        "randint",
        "rand_like",
        "randn_like",
        "randint_like",
        "randperm",
        "normal",
        "bernoulli",
        "poisson",
    ),
    *("multinomial", "bernoulli_", "normal_", "uniform_", "exponential_", "cauchy_", "geometric_", "log_normal_"),
    *("random_", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "rrelu"),
    *(
        "Dropout",
        "Dropout1d",
        "Dropout2d",
        "Dropout3d",
        "AlphaDropout",
        "FeatureAlphaDropout",
        "RReLU",
        "native_dropout",
    ),
}
MAKES_WEIGHTS = ("__init__", "reset_parameters")


def global_draws(source: str) -> list[int]:
    """The lines that draw from torch's or numpy's global generator, but for the start of a network's weights."""
    tree, found = ast.parse(source), []
    exempt = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name in MAKES_WEIGHTS
        for inner in ast.walk(node)
        if isinstance(inner, ast.Call) and getattr(inner.func, "attr", "") not in {n for n in DRAWING if "rop" in n}
    }
    asked = {  # isinstance(layer, nn.Dropout) draws nothing
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in asked:
            parts = ast.unparse(node).split(".")
            owner = parts[:-1]
            library = owner and owner[0] in ("torch", "nn", "functional", "F") and parts[1:2] != ["init"]
            numpys = parts[:2] in (["np", "random"], ["numpy", "random"]) and parts[-1] not in (
                "get_state",
                "set_state",
            )
            method = owner and parts[-1].endswith("_") and parts[-1] in DRAWING and "init" not in owner
            if parts[-1] in DRAWING and (library or method) or numpys and parts[-1] not in ("random", "seed"):
                calls = [c for c in ast.walk(tree) if isinstance(c, ast.Call) and c.func is node]
                given = any(word.arg == "generator" for call in calls for word in call.keywords)
                if not given and not any(id(call) in exempt for call in calls):
                    found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", [path for path in FILES if package(path) in ("training", "models", "latent")], ids=str)
def test_nothing_draws_from_a_global_generator(path):
    """A training's numbers are sde_lib.Draws's and sde_lib.Dropout's; weights start under Trainer.seeded."""
    lines = global_draws((ROOT / path).read_text())
    assert not lines, f"{path} draws from a global generator in lines {lines}; take Draws, or sde_lib.Dropout"


@pytest.mark.parametrize(
    "line, drawn",
    [
        ("z = torch.randn_like(x)", True),
        ("z = torch.randn(3, generator=g)", False),
        ("f(torch.randn_like)", True),
        ("x.bernoulli_(0.5)", True),
        ("x.bernoulli_(0.5, generator=g)", False),
        ("nn.init.normal_(w)", False),
        ("layer = nn.Dropout(0.1)", True),
        ("layer = torch.nn.Dropout2d(0.1)", True),
        ("y = functional.dropout(x, 0.1)", True),
        ("order = torch.randperm(5)", True),
        ("z = np.random.normal(3)", True),
        ("def __init__(self):\n    self.w = torch.randn(3)", False),
        ("def __init__(self):\n    self.d = nn.Dropout(0.1)", True),
        ("def forward(self):\n    return torch.rand(3)", True),
        ("z = draws.normal('noise', x)", False),
        ("found = isinstance(layer, nn.Dropout)", False),
        ("layer = Dropout(0.1)", False),
    ],
)
def test_the_law_sees_what_draws(line, drawn):
    assert bool(global_draws(line)) == drawn


YAMLS = sorted(path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml") if "hydra" not in path.parts)
TARGETS = [path for path in YAMLS if "_target_" in (yaml.safe_load((ROOT / "conf" / path).read_text()) or {})]


def parents(group: str):
    """The overrides under which a nested group is there."""
    root = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())["defaults"]
    if "/" not in group or any(isinstance(each, dict) and group in each for each in root):
        return [[]]
    outer, inner = group.rsplit("/", 1)
    names = [path.stem for path in sorted((ROOT / "conf" / outer).glob("*.yaml"))]
    whose = [
        n
        for n in names
        if any(
            isinstance(d, dict) and inner in d
            for d in (yaml.safe_load((ROOT / "conf" / outer / f"{n}.yaml").read_text()) or {}).get("defaults", [])
        )
    ]
    assert whose, f"no choice of {outer} has a {inner}"
    return [[f"{outer}={whose[0]}"]]


def node_of(path, *more: str) -> dict:
    group = str(path.parent)
    if group == "latent":  # recipes have no place of their own: a task names them, and some look at others beside them
        names = dict.fromkeys(["vae", "lsgm", path.stem])
        words = [f"{'' if name == 'vae' else '+'}latent@task.models.{name}={name}" for name in names]
        return compose("task=elbo", *words, *more)["task"]["models"][path.stem]
    if group.startswith("latent/"):
        key, plus = group.removeprefix("latent/"), "+" if group.endswith("observation") else ""
        word = f"{plus}{group}@task.models.vae.model.{key}={path.stem}"
        return compose("task=elbo", word, *more)["task"]["models"]["vae"]["model"][key]
    (outer,) = parents(group)
    node = compose(*outer, f"{group}={path.stem}", *more)
    for part in group.split("/"):
        node = node[part]
    return node


def nodes(node, key=""):
    """Every node with a _target_ below one, with its key."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, node
        for name, value in node.items():
            yield from nodes(value, f"{key}.{name}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from nodes(value, f"{key}.{i}")


@pytest.mark.parametrize("path", TARGETS, ids=str)
def test_a_yaml_holds_every_key_of_its_constructor(path):
    """And none besides: what can be set is there to be seen. (A nested group that is null is in the defaults list.)"""
    written = yaml.safe_load((ROOT / "conf" / path).read_text())
    empty = {
        name
        for each in written.get("defaults", [])
        if isinstance(each, dict)
        for name, choice in each.items()
        if choice is None
    }
    for key, node in nodes(node_of(path), path.stem):
        parameters = inspect.signature(schema.locate(node["_target_"], key)).parameters
        null = {name for name, parameter in parameters.items() if parameter.default is None}
        keys = set(node) - {"_target_"} | (empty if key == path.stem else null)
        if str(path.parent) == "data":  # of every data set, and no constructor's: see conf/assemble.py
            keys.remove("condition")
        assert keys == set(parameters), f"{key} of {path}"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Something to read for the data sets that read files."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    np.save(folder / "points.npy", rng.normal(size=(200, 2)))
    (folder / "pictures").mkdir()
    from PIL import Image

    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (8, 6), dtype=np.uint8)).save(folder / "pictures" / f"{i}.png")
    for part in ("train", "validation", "test"):  # a copy of a data set of the Hub
        (folder / "hub" / part).mkdir(parents=True)
        for i in range(3):
            values = rng.integers(0, 256, (150, 142, 3), dtype=np.uint8)
            Image.fromarray(values).save(folder / "hub" / part / f"{i}.png")
    np.save(folder / "rows.npy", np.eye(2)[:1])  # as a matrix, one number of two; as a mask, one for one sample
    own = {name: [f"operator.path={folder}/rows.npy"] for name in ("matrix", "mask")}
    own["unseen"] = ["data.shape=[3,8,6]"]
    own |= {name: [f"data.path={folder}/hub"] for name in ("mnist", "fashion_mnist", "cifar10", "celeba", "imagenet32")}
    return own | {"arrays": [f"data.path={folder}/points.npy"], "images": [f"data.path={folder}/pictures"]}


@pytest.mark.parametrize("path", TARGETS, ids=str)
def test_every_yaml_builds(path, files):
    """The object of its class, each key checked against the constructor's annotation, whatever waits for data filled
    in.
    """
    more, group = [], str(path.parent)
    if group == "data":
        keys = yaml.safe_load((ROOT / "conf" / path).read_text())
        more = [
            f"data.{key}={count}" for key, count in (("count", 500), ("test_count", 100)) if key in keys
        ] + files.get(path.stem, [])
    if group == "operator":
        more = files.get(path.stem, [])
    node = node_of(path, *more)
    images_alone = ("UNet", "RefineNet", "FeatureCNN", "NCSNpp", "ADM", "DiT", "Diffusers")
    pictures = (*images_alone, "Box", "Colourise", "Superresolve", "Deblur")
    image = any(each["_target_"].split(".")[-1].startswith(pictures) for _, each in nodes(node))
    shape = (3, 8, 6) if image else (2,)
    integers = {"bins": [8.5, 8.5, 17]} if group == "latent/observation" else {}
    last = group.split("/")[-1]
    node = schema.settle({last: node}, shape, standard(shape) | integers)[last]
    schema.check(node, group)
    assert type(schema.build(node, group)) is schema.locate(node["_target_"], group)


NAMED = {
    schema.locate(node["_target_"], str(path))
    for path in TARGETS
    for _, node in nodes(yaml.safe_load((ROOT / "conf" / path).read_text()))
}
PARTS = [
    value
    for room, kinds in (
        (sde_lib, (sde_lib.SDE, sde_lib.BinaryChain, sde_lib.Betas, sde_lib.Probes)),
        (
            samplers,
            (
                samplers.Sampler,
                samplers.Step,
                samplers.Grid,
                samplers.Tempering,
                samplers.Operator,
                samplers.Conditioner,
            ),
        ),
        (
            likelihood,
            (likelihood.Likelihood, likelihood.VariationalBound, likelihood.BinaryBound, likelihood.Dequantisation),
        ),
        (models, (models.Parameterisation, torch.nn.Module)),
        (data, (data.Data,)),
    )
    for value in vars(room).values()
    if isinstance(value, type)
    and issubclass(value, kinds)
    and not inspect.isabstract(value)
    # those hold tensors, or other parts
    and value not in (data.Data, data.Conditional, data.Turned, data.Examples, data.Remembered)
    and value not in (samplers.Mask, samplers.Dense)
    and value not in (models.ScoreModel, models.Classifier, models.ConditionalScore, models.GuidedByClassifier)
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_part_has_a_yaml(part):
    assert part in NAMED, f"{part.__module__}.{part.__name__} cannot be chosen on the command line"


@pytest.mark.parametrize(
    "part", [part for part in PARTS if not issubclass(part, data.Data)], ids=lambda part: part.__name__
)
def test_a_concrete_class_is_not_subclassed_again(part):
    ours = [base for base in part.__mro__[1:] if base.__module__.split(".")[0] == "scoresde"]
    assert all(inspect.isabstract(base) for base in ours)


@pytest.mark.parametrize("room", [sde_lib, samplers, models, data, likelihood], ids=lambda room: room.__name__)
def test_the_table_of_contents_is_complete(room):
    assert set(room.__all__) == {
        name for name, value in vars(room).items() if not name.startswith("_") and not inspect.ismodule(value)
    }


# --- the front door ---------------------------------------------------------------------------------------------------


def test_help_does_not_load_torch():
    script = (
        "import runpy, sys\nsys.argv = ['run.py', '--help']\n"
        "try:\n    runpy.run_path('run.py', run_name='__main__')\nexcept SystemExit:\n    pass\n"
        "print('LOADED', [name for name in ('torch', 'matplotlib', 'wandb', 'sklearn') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "LOADED []" in found.stdout, found.stdout[-300:] + found.stderr[-2000:]
    assert "sampler" in found.stdout
