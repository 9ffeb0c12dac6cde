"""Latent-variable models: closed forms of the bound and its terms, both priors against exact scores, every shape."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch.distributions import Normal, kl_divergence

from scoresde.latent import (
    GAN,
    VAE,
    WAE,
    Adversarial,
    Bound,
    Categorical,
    CodeMatching,
    Convolutional,
    Dense,
    DiscretisedLogistic,
    Gaussian,
    MixedScore,
    ScorePrior,
    StandardNormal,
    WassersteinLoss,
)
from scoresde.latent.prior import entropy
from scoresde.likelihood import Likelihood
from scoresde.models import MLP, Noise, Oracle, ScoreModel
from scoresde.samplers import EulerMaruyama, PredictorCorrector, ProbabilityFlow, Uniform
from scoresde.sde_lib import VP, Draws

from .conftest import SDES, GaussianScore, draw_mixture, make_sde, mixture

EXACT = Likelihood(start="plain", prior="standard", control_variate=False, moments=None)
SHAPES = [(1,), (5,), (1, 5, 7), (3, 8, 6), (2, 1, 9), (1, 16, 16)]


WIDE = VP(beta_max=2.0, eps=0.3)  # whose ends are far from data and from noise, so that each of them counts


def prior_of(sde, score, dim: int = 2) -> ScorePrior:
    """A score prior with a given score in the place of its network."""
    prior = ScorePrior(sde, MLP((dim,), width=8, depth=1), Noise(), mixed=False)
    prior.score = score if isinstance(score, torch.nn.Module) else Wrapped(score)
    return prior


class Wrapped(torch.nn.Module):
    def __init__(self, score):
        super().__init__()
        self.score = score

    def forward(self, x, t):
        return self.score(x, t)


# The linear-Gaussian VAE is probabilistic PCA, whose bound is tight


def ppca(dim: int = 6, latent: int = 2, std: float = 0.4) -> tuple[VAE, torch.Tensor, torch.Tensor]:
    """A VAE with affine networks whose q(z|x) is the posterior of x = W z + m + noise; W and m."""
    model = VAE((dim,), latent, Dense(depth=0), Gaussian(std), StandardNormal()).double()
    W, m = torch.randn(dim, latent, dtype=torch.float64), torch.randn(dim, dtype=torch.float64)
    W = W @ torch.linalg.svd(W)[2].T  # its columns orthogonal: the posterior is diagonal, as q is
    covariance = torch.linalg.inv(W.T @ W / std**2 + torch.eye(latent, dtype=torch.float64))
    gain = covariance @ W.T / std**2
    decoder, encoder = model.decoder[0], model.encoder[1]
    with torch.no_grad():
        decoder.weight.copy_(W), decoder.bias.copy_(m)
        encoder.weight.zero_()
        encoder.weight[:latent] = gain
        encoder.bias[:latent], encoder.bias[latent:] = -gain @ m, 0.5 * covariance.diagonal().log()
    return model, W, m


def noises(model, dtype=torch.float64):
    return torch.randn_like, lambda: torch.rand(400, 1, dtype=dtype)


def test_the_bound_of_a_linear_vae_is_the_likelihood_of_probabilistic_pca():
    model, W, m = ppca()
    covariance = W @ W.T + 0.4**2 * torch.eye(6, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(m, covariance)
    x = exact.sample((400,))
    found = model.terms(x, *noises(model), samples=5)
    # the weights p(x|z) p(z)/q(z|x) are p(x), whatever z is: so the weighted bound is exact for each draw
    torch.testing.assert_close(found.importance, exact.log_prob(x))
    error = found.bound - exact.log_prob(x)
    assert abs(float(error.mean())) < 4 * float(error.std()) / 20
    torch.testing.assert_close(found.divergence, found.denoising)
    with torch.no_grad():
        model.encoder[1].bias[2:] += 0.3  # any other encoder loses its own divergence from the posterior
    loss = kl_divergence(Normal(0.0, math.exp(0.3)), Normal(0.0, 1.0)) * 2
    worse = model.terms(x, *noises(model), samples=200).bound - exact.log_prob(x)
    assert float(worse.mean()) == pytest.approx(-float(loss), abs=0.03)


def test_the_best_linear_vae_is_probabilistic_pca():
    """At the closed form of the largest likelihood (principal directions, the mean of the other variances) the bound is
    that likelihood, and no parameter has a gradient; a little way off each has.
    """
    x = torch.randn(2000, 5, dtype=torch.float64) * torch.tensor([2.0, 1.0, 0.4, 0.4, 0.4])
    x = x - x.mean(0)
    variances, directions = torch.linalg.eigh(x.T @ x / len(x))
    rest = variances[:3].mean()
    model = VAE((5,), 2, Dense(depth=0), Gaussian(None), StandardNormal()).double()
    W = directions[:, 3:] * (variances[3:] - rest).sqrt()
    spread = rest / variances[3:]  # of the posterior
    with torch.no_grad():
        for linear in (model.encoder[1], model.decoder[0]):
            linear.weight.zero_(), linear.bias.zero_()
        model.decoder[0].weight.copy_(W)
        model.encoder[1].weight[:2] = spread[:, None] / rest * W.T
        model.encoder[1].bias[2:] = 0.5 * spread.log()
        model.observation.log_std.copy_(0.5 * rest.log())
    best = -0.5 * (5 * math.log(2 * math.pi) + variances[3:].log().sum() + 3 * rest.log() + 5)
    found = model.terms(x, torch.randn_like, lambda: torch.rand(len(x), 1), samples=2)
    assert float(found.importance.mean()) == pytest.approx(float(best), abs=1e-9)

    def slopes() -> list[float]:
        torch.manual_seed(1)
        loss = Bound()(None, model, x.repeat(30, 1)).mean()
        return [float(g.norm()) for g in torch.autograd.grad(loss, list(model.parameters()))]

    assert max(slopes()) < 0.018
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    assert min(slopes()) > 0.02


# The fit to the prior


def test_the_divergence_from_the_standard_normal():
    mean, log_std = torch.randn(50, 3, dtype=torch.float64), 0.5 * torch.randn(50, 3, dtype=torch.float64)
    found = StandardNormal().divergence(mean, log_std)
    exact = kl_divergence(Normal(mean, log_std.exp()), Normal(torch.zeros_like(mean), 1.0)).sum(1)
    torch.testing.assert_close(found, exact)
    z = mean + log_std.exp() * torch.randn(4000, 50, 3, dtype=torch.float64)
    drawn = Normal(mean, log_std.exp()).log_prob(z).sum(2) - StandardNormal().log_prob(z.flatten(0, 1)).reshape(-1, 50)
    assert float(((drawn.mean(0) - found) / (drawn.std(0) / 4000**0.5)).abs().max()) < 4.5
    torch.testing.assert_close(entropy(log_std), Normal(mean, log_std.exp()).entropy().sum(1))


@pytest.mark.parametrize("name", [*SDES, "wide"])
def test_the_cross_entropy_of_the_exact_score_is_the_closed_form(name):
    """For codes N(0, s^2 I) it is their entropy at eps plus the divergence of their law at T from the prior there."""
    sde, std, dim = WIDE if name == "wide" else make_sde(name), 0.6, 3
    prior = prior_of(sde, GaussianScore(sde, 0.0, std), dim)
    z = std * torch.randn(20_000, dim, dtype=torch.float64)
    found = prior.cross_entropy(z)
    ends = torch.tensor([sde.eps, sde.T], dtype=torch.float64)
    at_eps, at_T = (sde.alpha(ends) * std).square() + sde.sigma(ends).square()
    ratio = at_T / sde.sigma(ends)[1].square()
    exact = 0.5 * dim * (math.log(2 * math.pi * math.e) + (at_eps / sde.alpha(ends)[0] ** 2).log())
    exact = exact + 0.5 * dim * (ratio - 1 - ratio.log())
    assert float(found.mean()) == pytest.approx(float(exact), abs=4.5 * float(found.std()) / len(z) ** 0.5)
    unit = (torch.arange(len(z)) + 0.5) / len(z)
    again = prior.cross_entropy(z[torch.randperm(len(z))], unit.double(), torch.randn_like(z))
    assert float(again.mean()) == pytest.approx(float(exact), abs=4.5 * float(again.std()) / len(z) ** 0.5)


def flowing(sde, std: float) -> Normal:
    """The law of codes at the end of the probability flow from the prior at T, with the score of codes N(0, std^2)."""
    ends = torch.tensor([sde.eps, sde.T], dtype=torch.float64)
    at_eps, at_T = (sde.alpha(ends) * std).square() + sde.sigma(ends).square()
    return Normal(torch.zeros((), dtype=torch.float64), sde.prior_std * (at_eps / at_T).sqrt() / sde.alpha(ends)[0])


def test_codes_are_x_at_eps_over_alpha():
    """Their density has the factor's Jacobian, and their start the prior's width."""
    prior, z = prior_of(WIDE, GaussianScore(WIDE, 0.0, 0.6), 3), torch.randn(40, 3, dtype=torch.float64)
    exact = flowing(WIDE, 0.6).log_prob(z).sum(1)
    torch.testing.assert_close(prior.log_prob(z, EXACT), exact, atol=1e-3, rtol=0)
    start = prior.draw(lambda sde, score, x, noise, on_step: x, lambda: z, torch.randn_like)
    torch.testing.assert_close(start, z * float(WIDE.sigma(torch.tensor(WIDE.T, dtype=torch.float64))))


def test_both_fits_to_a_score_prior_are_closed_forms():
    """For posteriors N(m, 0.5^2) whose codes together are N(0, 1): the cross-entropy of the flow, and of the SDE, both
    less the entropy of the blurred posterior; the noise levels of a point are stratified.
    """
    model = VAE((3,), 3, Dense(depth=0), Gaussian(0.1), prior_of(WIDE, GaussianScore(WIDE, 0.0, 1.0), 3)).double()
    with torch.no_grad():
        model.encoder[1].weight.zero_(), model.encoder[1].bias.zero_()
        model.encoder[1].weight[:3] = torch.eye(3)
        model.encoder[1].bias[3:] = math.log(0.5)
    x, u, units = 0.75**0.5 * torch.randn(2000, 3, dtype=torch.float64), torch.rand(2000, 1).double(), []
    asked = model.prior.divergence
    model.prior.divergence = lambda *given: units.append(given[3]) or asked(*given)
    found = model.terms(x, torch.randn_like, lambda: u, EXACT, levels=4)
    torch.testing.assert_close(torch.stack(units), (torch.arange(4)[:, None] + u[:, 0]) / 4)
    k = model.prior.blur
    own = 1.5 * math.log(2 * math.pi * math.e * (0.25 + k**2))
    law = flowing(WIDE, 1.0)
    by_flow = 3 * (0.5 * (1 + k**2) / law.variance + (law.stddev * (2 * math.pi) ** 0.5).log())
    ratio = 1 / WIDE.prior_std**2  # at T the codes' variance is 1
    by_sde = 1.5 * (math.log(2 * math.pi * math.e * (1 + k**2)) + ratio - 1 - math.log(ratio))
    for values, exact in ((found.divergence, by_flow - own), (found.denoising, by_sde - own)):
        assert float(values.mean()) == pytest.approx(float(exact), abs=4.5 * float(values.std()) / 2000**0.5)


@pytest.mark.parametrize("name", ["ve", "vp"])
def test_the_cross_entropy_of_a_mixture(name):
    """For the oracle's own codes it is minus their log-density, as by the ODE; N(0, I) is a worse prior."""
    sde, components = make_sde(name), mixture((2,))
    oracle = Oracle(sde, components).double()
    prior = prior_of(sde, oracle)
    z = draw_mixture(components, 20_000, (2,))
    found = prior.cross_entropy(z)
    blurred = z + prior.blur * torch.randn_like(z)
    t = torch.full((len(z),), sde.eps, dtype=torch.float64)
    exact = oracle.log_prob(prior.at_eps * blurred, t) + 2 * math.log(prior.at_eps)
    stderr = float((found + exact).std()) / len(z) ** 0.5
    assert float(found.mean()) == pytest.approx(-float(exact.mean()), abs=4.5 * stderr + 2e-3)
    few = blurred[:50]
    torch.testing.assert_close(
        prior.log_prob(few, EXACT), exact[:50], atol=0.03, rtol=0
    )  # N(0, sigma(T)^2 I) is not quite p_T
    assert float((StandardNormal().log_prob(blurred) - exact).mean()) < -0.5


def test_the_cross_entropy_trains_an_encoder():
    """Its gradient in the codes is that of the closed form, for codes N(0, s^2 I) and s the parameter."""
    sde, dim = make_sde("vp"), 2
    prior = prior_of(sde, GaussianScore(sde, 0.0, 1.0), dim)
    s = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(prior.cross_entropy(s * torch.randn(100_000, dim, dtype=torch.float64)).mean(), s)
    # -E log N(z; 0, 1) = s^2 D/2 + ...
    assert float(slope) == pytest.approx(0.5 * dim, abs=0.05)


def test_the_score_prior_wins_where_codes_are_no_gaussian():
    """A VAE that hands on its data as codes, whose law is a mixture: with the exact prior the bound is better."""
    components, sde = mixture((2,)), make_sde("vp")
    x = draw_mixture(components, 300, (2,))
    bounds = {}
    for name, prior in (("normal", StandardNormal()), ("score", prior_of(sde, Oracle(sde, components).double()))):
        model = VAE((2,), 2, Dense(depth=0), Gaussian(0.1), prior).double()
        with torch.no_grad():
            for linear in (model.encoder[1], model.decoder[0]):
                linear.weight.zero_(), linear.bias.zero_()
                linear.weight[:2] = torch.eye(2)
            model.encoder[1].bias[2:] = math.log(0.1)
        bounds[name] = model.terms(x, torch.randn_like, lambda: torch.rand(300, 1, dtype=torch.float64), EXACT)
    gain = bounds["score"].bound - bounds["normal"].bound
    assert float(gain.mean()) > 0.5 + 4 * float(gain.std()) / 300**0.5
    gap = bounds["score"].denoising - bounds["score"].divergence  # two estimates of one number: the score is exact
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / 300**0.5 + 2e-3


def test_the_mixed_score_is_between_the_two():
    sde = make_sde("vp")
    model = ScoreModel(sde, MLP((3,), width=8, depth=1), Noise())
    torch.nn.init.normal_(model.net.last.weight)
    mixed, x, t = MixedScore(model, 3), torch.randn(5, 3), torch.rand(5) * 0.9 + 0.05
    normal = GaussianScore(sde)(x, t)
    with torch.no_grad():
        mixed.logit.copy_(torch.tensor([-40.0, 40.0, 0.0]))
    found, own = mixed(x, t), model(x, t)
    torch.testing.assert_close(found, torch.stack([normal[:, 0], own[:, 1], 0.5 * (normal + own)[:, 2]], dim=1))


@pytest.mark.parametrize("sampler", [ProbabilityFlow(), PredictorCorrector(Uniform(), 50, EulerMaruyama())])
def test_codes_are_drawn_from_the_prior_whatever_the_batch(sampler):
    sde, components = make_sde("vp"), mixture((2,))
    model = VAE((1, 5, 7), 2, Convolutional((4,), 8), Gaussian(0.1), prior_of(sde, Oracle(sde, components).float()))
    z, x = model.draw_codes(sampler, 3, 0, 200), model.draw(sampler, 3, 0, 200)
    for whole, function in ((z, model.draw_codes), (x, model.draw)):
        parts = torch.cat([function(sampler, 3, first, size) for first, size in ((0, 70), (70, 130))])
        torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)
    near = torch.cdist(z.double(), components[1]).argmin(1)
    assert torch.bincount(near, minlength=3) / 200 == pytest.approx(components[0].numpy(), abs=0.12)


# What data are given codes


@pytest.mark.parametrize("law", [DiscretisedLogistic, Categorical], ids=lambda law: law.__name__)
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_a_law_of_integers_sums_to_one(law, levels):
    shift, scale = levels / 2, levels / 2 if levels > 2 else [[1.5]]
    observation = law([shift, scale, levels]).double()
    params = 2 * torch.randn(1, observation.parameters, 3, 1, dtype=torch.float64)
    k = torch.arange(levels, dtype=torch.float64).reshape(-1, 1, 1).expand(-1, 3, 1)
    x = observation.centre(k)
    assert torch.equal(observation.index(x).double(), k)
    parts = [
        observation.log_prob(x[:, i : i + 1], params[:, :, i : i + 1].expand(levels, -1, -1, -1)) for i in range(3)
    ]
    for each in parts:
        assert float(each.exp().sum()) == pytest.approx(1, abs=1e-5)
    # samples by the inverse of its distribution function have the law
    law_of_k = torch.stack([each.exp() for each in parts], dim=1)[..., None]
    torch.testing.assert_close(observation.mean(params)[0], (law_of_k * x).sum(0))
    u = (torch.arange(2000, dtype=torch.float64)[:, None, None] + 0.5) / 2000
    drawn = observation.index(observation.sample(params.expand(2000, -1, -1, -1), u.expand(-1, 3, 1)))
    for i, each in enumerate(parts):
        shares = torch.bincount(drawn[:, i, 0], minlength=levels).double() / 2000
        torch.testing.assert_close(shares, each.exp(), atol=1.1e-3, rtol=0)


def test_a_gaussian_observation():
    observation = Gaussian(0.5).double()
    params, x = torch.randn(4, 1, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(observation.log_prob(x, params), Normal(params[:, 0], 0.5).log_prob(x).sum(1))
    u = torch.rand(4, 3, dtype=torch.float64)
    torch.testing.assert_close(observation.sample(params, u), Normal(params[:, 0], 0.5).icdf(u))


def test_a_logistic_bin_is_the_integral_of_its_density():
    observation = DiscretisedLogistic([8.5, 8.5, 17], mixture=1).double()
    params = torch.tensor([0.0, 0.2, 0.5], dtype=torch.float64).reshape(1, 3, 1)
    scale = math.exp(0.5 - 2)

    def density(x: float) -> float:
        return math.exp(-abs(x - 0.2) / scale) / scale / (1 + math.exp(-abs(x - 0.2) / scale)) ** 2

    for k in (0, 7, 12, 16):
        low, high = (k - 8.5) / 8.5 if k else -20, (k - 7.5) / 8.5 if k < 16 else 20
        x = observation.centre(torch.tensor([[float(k)]], dtype=torch.float64))
        mass = quad(density, low, high, points=[0.2] if low < 0.2 < high else None)[0]
        assert float(observation.log_prob(x, params).exp()) == pytest.approx(mass, abs=1e-7)


# Any shape, any precision, every model


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("integers", [False, True], ids=["continuous", "integers"])
def test_every_shape(shape, integers, dtype):
    networks = [Dense(16, 1), *([Convolutional((4, 6), 8)] if len(shape) == 3 else [])]
    for each in networks:
        observation = DiscretisedLogistic([8.5, 8.5, 17]) if integers else Gaussian()
        prior = ScorePrior(make_sde("vp"), MLP((3,), width=8, depth=1), Noise())
        models = [VAE(shape, 3, each, observation, StandardNormal()), VAE(shape, 3, each, observation, prior)]
        models += [GAN(shape, 3, each), WAE(shape, 3, each)]
        losses = [Bound(), Bound(), Adversarial(), WassersteinLoss()]
        x = torch.rand(4, *shape, dtype=dtype) * 2 - 1
        for model, loss in zip(models, losses, strict=True):
            model = model.to(dtype)
            value = loss(None, model, x)
            assert value.shape == (4,) and value.dtype == dtype
            value.mean().backward()
            grads = [p.grad is not None for p in model.parameters() if p.requires_grad]
            assert all(grads)
            assert model.draw(None, 0, 0, 5).shape == (5, *shape) if not model.prior.blur else True


def test_the_loss_is_the_bound_a_value():
    model, W, m = ppca()
    x = (torch.randn(400, 2, dtype=torch.float64) @ W.T) + m
    value = torch.stack([Bound()(None, model, x).mean() for _ in range(50)]).mean()
    terms = model.terms(x, *noises(model), samples=50)
    assert float(value.detach()) == pytest.approx(-float(terms.bound.mean()) / 6, abs=0.01)
    half = torch.stack([Bound(beta=0.5)(None, model, x).mean() for _ in range(50)]).mean()
    assert float((half - value).detach()) == pytest.approx(-0.5 * float(terms.divergence.mean()) / 6, abs=0.01)


def test_the_loss_under_a_score_prior():
    """The decoder is shown the blurred code, the prior's bound the code before."""
    model = VAE((2,), 2, Dense(8, 1), Gaussian(), prior_of(WIDE, GaussianScore(WIDE))).double()
    x = torch.randn(6, 2, dtype=torch.float64)
    draws = Draws(2, len(x))
    found = Bound(beta=0.5)(None, model, x, draws)
    mean, log_std = model.encode(x)
    z = mean + log_std.exp() * draws.normal("code", mean)
    reconstruction = model.reconstruction(x, z + model.prior.blur * draws.normal("blur", z))
    divergence = model.prior.cross_entropy(z, draws=draws) - Normal(
        mean, (log_std.exp() ** 2 + model.prior.blur**2).sqrt()
    ).entropy().sum(1)
    torch.testing.assert_close(found, (0.5 * divergence - reconstruction) / 2)


def test_a_prior_is_matched_to_codes_and_leaves_the_rest_alone():
    model = VAE((2,), 2, Dense(8, 1), Gaussian(), ScorePrior(make_sde("vp"), MLP((2,), width=8, depth=1), Noise()))
    CodeMatching()(None, model, torch.randn(8, 2)).mean().backward()
    touched = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {"prior"}
    quiet = VAE((2,), 2, Dense(8, 1, dropout=0.5), Gaussian(), model.prior)
    with torch.no_grad():
        quiet.encoder[-1].bias[2:] = -20.0  # no spread: the codes are the encoder's values
    codes, x = quiet.eval().encode(torch.ones(4, 2))[0], torch.ones(4, 2)
    quiet.train()
    draws = Draws(3, len(x))
    found = CodeMatching()(None, quiet, x, draws)
    z = codes + math.exp(-8) * draws.normal("code", codes)
    torch.testing.assert_close(found, model.prior.matching(model.prior.sde, model.prior.score, z, draws))
    assert quiet.encoder.training, "the codes are those of the encoder at work, without its dropout"
    with pytest.raises(ValueError, match=r"trains a score SDE as the prior, and this model's is N\(0, I\)"):
        CodeMatching()(None, VAE((2,), 2, Dense(8, 1), Gaussian(), StandardNormal()), torch.randn(8, 2))


# The game and the penalty


def test_the_game_has_the_gradients_of_both_players():
    """The gradient of the sum is that of L_D for the discriminator and that of L_G for the generator."""
    torch.manual_seed(1)
    model, x = GAN((2,), 3, Dense(8, 1)).double(), torch.randn(6, 2, dtype=torch.float64)
    draws = Draws(5, len(x))
    Adversarial(0.7)(None, model, x, draws).sum().backward()
    z = draws.normal("code", x, (3,))
    G, D = model.generator, model.discriminator
    real = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(D(real).sum(), real, create_graph=True)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    fake = G(z)[:, 0]
    one, zero = torch.ones(6, 1, dtype=torch.float64), torch.zeros(6, 1, dtype=torch.float64)
    own = bce(D(real), one, reduction="sum") + bce(D(fake.detach()), zero, reduction="sum")
    own = own + 0.35 * slope.square().sum()
    theirs = bce(D(fake), one, reduction="sum")
    for loss, player in ((own, D), (theirs, G)):
        expected = torch.autograd.grad(loss, list(player.parameters()), retain_graph=True, allow_unused=True)
        for parameter, grad in zip(player.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, torch.zeros_like(parameter) if grad is None else grad)


def test_the_game_is_looked_at_without_gradients():
    model = GAN((2,), 3, Dense(8, 1))
    with torch.no_grad():
        torch.nn.init.zeros_(model.discriminator[-1].weight), torch.nn.init.zeros_(model.discriminator[-1].bias)
        value = Adversarial()(None, model, torch.randn(4, 2))
    torch.testing.assert_close(value, torch.full((4,), 3 * math.log(2)))


def test_the_wasserstein_loss_is_the_error_and_the_penalty():
    from scoresde.metrics import mmd

    model, x = WAE((2,), 2, Dense(depth=0)).double(), torch.randn(50, 2, dtype=torch.float64)
    draws = Draws(4, len(x))
    found = WassersteinLoss(3.0)(None, model, x, draws)
    code = model.encoder(x)
    error = (model.decoder(code)[:, 0] - x).square().sum(1)
    torch.testing.assert_close(found, error + 3.0 * mmd(code, draws.normal("code", code)))
    assert np.isfinite(float(WassersteinLoss()(None, model, x[:1]).detach()))


# Mistakes


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Dense(width=0), "`width`=0 must be at least 1"),
        (lambda: Dense(depth=-1), "`depth`=-1 must be at least 0"),
        (lambda: Convolutional(()), "`channels`=.. must be numbers of at least 1"),
        (lambda: Convolutional().encoder((2,), 3), "takes images of shape"),
        (lambda: Gaussian(0.0), "`std`=0.0 must be positive"),
        (lambda: DiscretisedLogistic([0, 1, 1]), "at least 2 levels"),
        (lambda: DiscretisedLogistic([8.5, 8.5, 17], 0), "`mixture`=0 must be at least 1"),
        (lambda: VAE((2,), 0, Dense(), Gaussian(), StandardNormal()), "`latent`=0 must be at least 1"),
        (lambda: VAE((2,), 3, Dense(), Gaussian(), prior_of(make_sde("vp"), torch.nn.Identity())), "number of latents"),
        (lambda: Bound(beta=-1.0), "`beta`=-1.0 must be at least 0"),
        (lambda: Adversarial(-1.0), "`penalty`=-1.0 must be at least 0"),
        (lambda: WassersteinLoss(math.inf), "`penalty`=inf must be at least 0 and finite"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
