"""A word that Hydra refuses gets one message that says what was meant, and no advice to append it."""

import os
import subprocess
import sys

import hydra
import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from scoresde.conf.typos import explained

from .conftest import ROOT


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("smapler=em", "smapler=em: there is no key or group smapler; did you mean sampler=em?"),
        ("cuont=3", "did you mean count=3?"),
        ("data=arrays data.pth=x", "data.pth=x: data has no key pth; did you mean data.path=x?"),
        ("data=arrays data.name=x", "data.name=x: data has no key name; there are path, key,"),
        ("sde=vpp", "sde=vpp: sde has no such choice; did you mean sde=vp? There are binary,"),
        ("task=smaple", "did you mean task=sample?"),
        ("task=zzz", "task=zzz: task has no such choice. There are binary,"),
        ("sampler.stpes=5", "did you mean sampler.steps=5?"),
        ("sampler=ode sampler.rtool=5", "did you mean sampler.rtol=5?"),
        ("sampler.predictor.x=1", "sampler.predictor has no key x; leave it out"),
        ("sampler.steps.x=1", "sampler.steps is a value and has no keys"),
        ("smapler/predictor=em", "there is no group smapler/predictor; did you mean sampler/predictor=em?"),
        ("sampler/predictor=ancestrla", "did you mean sampler/predictor=ancestral?"),
        ("sampler=ode sampler/predictor=ancestral", "the sampler of this run has no predictor to choose"),
        ("classifier.width=3", "there is no classifier in this run; choose one as well, with classifier=NAME"),
        ("steps=5", " or sampler.steps=5?"),
        ("em", "em is neither GROUP=CHOICE nor KEY=VALUE; did you mean sampler=em?"),
        ("count", "count is neither GROUP=CHOICE nor KEY=VALUE; type for example"),
        ("sampler=em,pcc", "sampler=pcc: sampler has no such choice; did you mean sampler=pc?"),
        ("sampler=em,pc sampler.stpes=5", "did you mean sampler.steps=5?"),
        ("experiment=score_sde/ve/cifar10_ncsnp", "did you mean experiment=score_sde/ve/cifar10_ncsnpp?"),
        ("+sampler.steps=5", "+sampler.steps=5: there is such a key already; type sampler.steps=5"),
        ("~sampler.stpes", "did you mean ~sampler.steps?"),
        ("task=elbo +latent@task.models.x=gna", "did you mean +latent@task.models.x=gan?"),
        ("hydra.rnu.dir=x", "did you mean hydra.run.dir=x?"),
        ("hydra/launcher=basci", "did you mean hydra/launcher=basic?"),
    ],
)  # fmt: skip
def test_what_was_meant_is_said(line, says):
    words = line.split()
    with hydra.initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        first = [word.split(",")[0] if "=em," not in word else word.replace("em,", "") for word in words]
        with pytest.raises((HydraException, OmegaConfBaseException)) as caught:
            hydra.compose("config", overrides=first)
    message = explained(words, caught.value)
    assert says in message and "\n" not in message and "append" not in message


def test_another_refusal_is_hydras_own_without_its_advice():
    error = HydraException("Could not do it.\nTo append to your config use +x=1")
    assert explained(["sampler=em", "count=3"], error) == "Could not do it."


@pytest.mark.parametrize("words", [["smapler=em"], ["-m", "sampler=em,pcc"], ["--cfg", "job", "sampler.stpes=5"]])
def test_the_command_line_says_it_and_ends_with_1(words, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    words = [*words, f"hydra.sweep.dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, ROOT / "run.py", *words], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "did you mean sampler" in line
