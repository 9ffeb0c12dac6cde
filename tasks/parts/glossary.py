r"""The glossary of metrics: each name that a task of ours writes to metrics.json, its unit and which way is better.

Capitals in a name stand for a part that varies: NAME for a class, a sampler or a trainer, MODEL and OTHER for models,
NET for the features in which samples are compared, SDE and SCORE for those of task=work_precision. The tests refuse a
metric of a task of ours that the table lacks; a task of your own has its own metrics. ``python -m benchmarks.glossary``
writes docs/glossary.md from the table.
"""

import re
from dataclasses import dataclass
from functools import cache, cached_property

ALL = "all"  # in the place of the tasks, of metrics that are the same in every task


@dataclass(frozen=True)
class Metric:
    """A metric, or the metrics of one form.

    Attributes:
        tasks: the tasks that write it, as ``task=`` takes them; ``ALL`` for every task.
        name: as in metrics.json, with capitals for the parts that vary.
        unit: such as ``nats``; ``words`` for a text.
        better: ``lower``, ``higher``, a target such as ``1``, or ``-`` where neither way is better.
        what: says what it is, in one sentence.
    """

    tasks: tuple[str, ...]
    name: str
    unit: str
    better: str
    what: str

    @cached_property
    def parts(self) -> list[str]:
        """The fixed parts of the name, in their order."""
        return re.split("[A-Z]+", self.name)

    def is_called(self, name: str) -> bool:
        """Returns whether a key of metrics.json is this metric's."""
        return re.fullmatch(".+".join(map(re.escape, self.parts)), name) is not None


@cache
def metrics() -> tuple[Metric, ...]:
    """Returns the metrics of ``TABLE``, in its order."""
    found, tasks = [], ()
    for line in TABLE.replace("\n    ", " ").split("\n"):  # a line that begins with blanks goes on with the one above
        if line.startswith("["):
            tasks = tuple(line.strip("[]").split())
        elif line:
            found.append(Metric(tasks, *line.split(" | ", 3)))
    return tuple(found)


def lookup(name: str, task: str) -> Metric | None:
    """Returns the metric that a task writes under a name, the one with the longest fixed parts; None if the table lacks
    it.

    Arguments:
        name: a key of metrics.json.
        task: as ``task=`` takes it.
    """
    own = [each for each in metrics() if {task, ALL} & set(each.tasks) and each.is_called(name)]
    return max(own, key=lambda each: len("".join(each.parts)), default=None)


TABLE = r"""
[all]
count | number | - | How many samples were drawn, points scored, paths drawn or classes judged: what the other metrics
    are over.
nfe | evaluations | lower | The evaluations of the network for one sample or one point.
seconds | seconds | lower | The wall time of drawing or scoring all of them, without training and pictures.

[sample]
samples_per_second | 1/second | higher | `count` over `seconds`.
samples_out_of_range | number | 0 | The samples with a value further outside the training part's range than that range
    is wide, or not finite.

[train export train_classifier]
parameters | number | - | The number of the network's weights.

[export]
tensors | number | - | The number of tensors that were written.

[sample evaluate generators work_precision]
distance_unit | words | - | The unit of sliced Wasserstein distances: `data` for data units, `std` for standard
    deviations where columns have units of their own.

[likelihood ema overfitting]
bound | words | - | Which bound on log P of integers `bits_per_dim` is.

[likelihood bound elbo ema overfitting work_precision]
repeated_share | share in [0, 1] | 0 | The share of the examples with a value that repeats among continuous data,
    which then have no density.
repeated_nats_per_decade | nats | 0 | How much a tenfold smaller noise at `sde.eps` lowers the negative log-likelihood
    of data whose values repeat.

[train]
steps | updates | - | The updates of the training.
loss | the loss's own | lower | The training's last loss, over the batches since the one before.

[train ema]
held_out_loss | the loss's own | lower | The loss on held-out data, of the averaged weights.

[sample evaluate]
sliced_wasserstein | `distance_unit` | its floor | The sliced Wasserstein distance of samples to held-out data.
sliced_wasserstein_floor | `distance_unit` | - | `sliced_wasserstein` of real data in the place of the samples.
label_accuracy | share in [0, 1] | that of real data | The share of samples that a classifier assigns to the class for
    which they were drawn.

[sample]
label_accuracy_real | share in [0, 1] | - | `label_accuracy` of held-out data.
label_accuracy_NAME | share in [0, 1] | that of real data | `label_accuracy` of the samples of one class.

[evaluate]
fd-NET | features, squared | its floor | The Frechet distance of samples to held-out data in features; NET names these
    and the hash of their network's weights.
fd-NET_floor | features, squared | - | `fd-NET` of real data in the place of the samples.
kd-NET | kernel units | its floor | The kernel distance of samples to held-out data in features.
kd-NET_floor | kernel units | - | `kd-NET` of real data in the place of the samples.
precision | share in [0, 1] | higher | The share of samples within a ball of the held-out data.
precision_floor | share in [0, 1] | - | `precision` of real data in the place of the samples.
recall | share in [0, 1] | higher | The share of held-out data within a ball of the samples.
recall_floor | share in [0, 1] | - | `recall` of real data in the place of the samples.
density | balls, from 0 | its floor | The mean number of balls of held-out data round a sample, over the mean for data
    of one law: about 1 for real data.
density_floor | balls, from 0 | - | `density` of real data in the place of the samples.
coverage | share in [0, 1] | higher | The share of held-out data with a sample in their ball.
coverage_floor | share in [0, 1] | - | `coverage` of real data in the place of the samples.
confident | share in [0, 1] | its floor | The share of samples that the classifier assigns to a class with a
    probability of more than 90 %.
confident_floor | share in [0, 1] | - | `confident` of real data in the place of the samples.
is-NET | score, from 1 | its floor | The classifier score, an inception score with the features' network.
is-NET_floor | score, from 1 | - | `is-NET` of real data in the place of the samples.
class_ratio_least | ratio | 1 | The smallest `class_ratio_NAME`.
class_ratio_least_floor | ratio | - | `class_ratio_least` of real data in the place of the samples.
class_ratio_most | ratio | 1 | The largest `class_ratio_NAME`.
class_ratio_most_floor | ratio | - | `class_ratio_most` of real data in the place of the samples.
class_variation | share in [0, 1] | 0 | The total variation between the classes' shares among the samples and in the
    training set.
class_variation_floor | share in [0, 1] | - | `class_variation` of real data in the place of the samples.
fid | FID | lower | The FID of samples against the training data, with Inception's features.
fid_floor | FID | - | `fid` of the held-out data.
kd-NET_stderr | kernel units | lower | The standard error of `kd-NET`.
is-NET_stderr | score | lower | The standard error of `is-NET`.
fid_floor_count | number | - | The number of held-out data in `fid_floor`.
class_ratio_NAME | ratio | 1 | The share of a class among the samples over its share in the training set.
features | words | - | The features in which samples are compared.
compared | number | - | How many samples, and how many data, each distance takes.
reference | number | - | How many held-out data the samples are compared with.
drawn_now | number | - | How many of the samples this run drew; the cache had the others.
label_accuracy_floor | share in [0, 1] | - | `label_accuracy` of held-out data.

[evaluate generators]
classifier_accuracy | share in [0, 1] | higher | The share of held-out data that the classifier, which judges the
    samples, assigns to their class.

[likelihood]
nll_nats | nats | lower | Minus the mean of log p over the points, in data units; of integers the bound on -log P.
bits_per_dim | bits/dim | lower | `nll_nats` in bits a dimension.
nll_stderr | nats | lower | The standard error of `nll_nats`.
bits_per_dim_stderr | bits/dim | lower | `nll_stderr` in bits a dimension.
nll_uncertainty_nats | nats | lower | The error of `nll_nats` from the points, the probes, the solver, the start and
    the prior together.
bits_per_dim_uncertainty | bits/dim | lower | `nll_uncertainty_nats` in bits a dimension.
ode_error_nats | nats | lower | The solver's error of log p: its root mean square change at a tenth of the tolerance.
probe_stderr_nats | nats | lower | The random probes' share of `nll_stderr`.
start_term_nats | nats | - | The mean part of log p that corrects for the noise at eps.
start_error_nats | nats | lower | The error of that correction.
start_unresolved_share | share in [0, 1] | below 0.01 | The share of points where the data have detail finer than the
    noise of eps.
prior_term_nats | nats | - | The mean part of log p from the Gaussian of the data's moments in place of the prior.
prior_error_nats | nats | lower | The error of that Gaussian, which stands for p_T.
prior_cost_nats | nats | 0 | How far the prior lowers the mean of log p against the exact p_T; of an exact score.
ode_error_mean_nats | nats | lower | The size of the solver's mean error against the exact log p; of an exact score.
ode_error_max_nats | nats | lower | The solver's largest error against the exact log p.
sampling_gain_nats | nats | higher | What several points of each integer's bin gain over the bound from one.
likelihood_error_asked_nats_per_dim | nats a dimension | - | The error that `likelihood.error` asks for.
likelihood_error_reached_nats_per_dim | nats a dimension | lower | The error that is left of it.
likelihood_error_asked_bits_per_dim | bits/dim | - | The error that `likelihood.error` asks for.
likelihood_error_reached_bits_per_dim | bits/dim | lower | The error that is left of it.
crosscheck_nll_nats | nats | lower | `nll_nats` as `task/crosscheck` estimates it, without an ODE.
crosscheck_stderr | nats | lower | The standard error of `crosscheck_nll_nats`.
crosscheck_pull | standard errors | between -3 and 3 | How far the ODE's mean log p exceeds the cross-check's.
gap_nats | nats | 0 | The mean of the data's own log p less the model's, a Kullback-Leibler divergence.
gap_stderr | nats | lower | The standard error of `gap_nats`, with the errors of the solver and of the start.

[bound]
gap_nats | nats | 0 | `bound_nats` less `ode_nats`: for an exact score the cost of the chain's steps.
gap_bits_per_dim | bits/dim | 0 | `gap_nats` in bits a dimension.
gap_stderr | nats | lower | The standard error of `gap_nats`.
gap_bits_per_dim_stderr | bits/dim | lower | `gap_stderr` in bits a dimension.
bound_nats | nats | lower | The mean of the variational bound on -log p.
bound_bits_per_dim | bits/dim | lower | `bound_nats` in bits a dimension.
bound_stderr | nats | lower | The standard error of `bound_nats`.
bound_bits_per_dim_stderr | bits/dim | lower | `bound_stderr` in bits a dimension.
prior_nats | nats | lower | The bound's term L_N, of the prior.
prior_bits_per_dim | bits/dim | lower | `prior_nats` in bits a dimension.
prior_stderr | nats | lower | The standard error of `prior_nats`.
prior_bits_per_dim_stderr | bits/dim | lower | `prior_stderr` in bits a dimension.
diffusion_nats | nats | lower | The bound's terms of the chain's steps, all together.
diffusion_bits_per_dim | bits/dim | lower | `diffusion_nats` in bits a dimension.
diffusion_stderr | nats | lower | The standard error of `diffusion_nats`.
diffusion_bits_per_dim_stderr | bits/dim | lower | `diffusion_stderr` in bits a dimension.
reconstruction_nats | nats | lower | The bound's term L_0, of the decoder.
reconstruction_bits_per_dim | bits/dim | lower | `reconstruction_nats` in bits a dimension.
reconstruction_stderr | nats | lower | The standard error of `reconstruction_nats`.
reconstruction_bits_per_dim_stderr | bits/dim | lower | `reconstruction_stderr` in bits a dimension.
bound_gap_nats | nats | 0 | `bound_nats` less `floor_nats`: the cost of the network and of the chain's steps.
bound_gap_stderr | nats | lower | The standard error of `bound_gap_nats`.
ode_nats | nats | lower | The negative log-likelihood of the same points by the ODE.
ode_stderr | nats | lower | The standard error of `ode_nats`.
ode_bits_per_dim | bits/dim | lower | `ode_nats` in bits a dimension.
noise_stderr_nats | nats | lower | The part of `bound_stderr` that comes from the bound's noise.
decoder | words | - | The decoder of integers, `gaussian` or `discretised`.

[overfitting ema]
nll_nats | nats | lower | Minus the mean of log p over held-out points: after the last update, or of the best average.
nll_stderr | nats | lower | The standard error of `nll_nats`.
bits_per_dim | bits/dim | lower | `nll_nats` in bits a dimension.

[likelihood bound]
floor_nats | nats | - | Minus the mean of the data's own log p at the points, an estimate of their entropy: the least
    that `nll_nats` can be.

[ema]
best_sigma_rel | shares of the training | - | The best length of the weights' average, the standard deviation of its
    profile.
profile_error | share in [0, 1] | below 0.05 | How far the best average's profile is from the one asked for.
network | words | - | The folder of the best network, which `checkpoint=` reads.
own_nll_nats | nats | lower | `nll_nats` of the training's own average.
own_bits_per_dim | bits/dim | lower | `own_nll_nats` in bits a dimension.
gain_nats | nats | higher | `own_nll_nats` less `nll_nats`, point by point.
gain_bits_per_dim | bits/dim | higher | `gain_nats` in bits a dimension.
gain_stderr | nats | lower | The standard error of `gain_nats`.
gain_bits_per_dim_stderr | bits/dim | lower | `gain_stderr` in bits a dimension.
held_out_loss_stderr | the loss's own | lower | The standard error of `held_out_loss`.
own_loss | the loss's own | lower | `held_out_loss` of the training's own average.
loss_gain | the loss's own | higher | `own_loss` less `held_out_loss`, point by point.
loss_gain_stderr | the loss's own | lower | The standard error of `loss_gain`.

[overfitting]
train_nll_nats | nats | lower | `nll_nats` of training points.
train_bits_per_dim | bits/dim | lower | `train_nll_nats` in bits a dimension.
generalisation_gap_nats | nats | 0 | `nll_nats` less `train_nll_nats`.
best_step | updates | - | The update after which held-out points are likeliest.
best_nll_nats | nats | lower | `nll_nats` after that update.
best_bits_per_dim | bits/dim | lower | `best_nll_nats` in bits a dimension.
overfitting_nats | nats | 0 | `nll_nats` less `best_nll_nats`: what the rest of the training lost.
overfitting_stderr | nats | lower | The standard error of `overfitting_nats`.
overfitting_bits_per_dim | bits/dim | 0 | `overfitting_nats` in bits a dimension.

[encode]
round_trip_rms_data_units | data units | lower | The root mean square error of a value after data were encoded and
    decoded.
round_trip_worst_data_units | data units | lower | The largest error of a value after data were encoded and decoded.
round_trip_rms_model_units | model units | lower | The root mean square error of a value after data were encoded and
    decoded.
round_trip_worst_model_units | model units | lower | The largest error of a value after data were encoded and decoded.
round_trip_rms_stds | stds of the data | lower | The root mean square error of a value after data were encoded and
    decoded.
round_trip_worst_stds | stds of the data | lower | The largest error of a value after data were encoded and decoded.
code_mean | stds of the prior | 0 | The mean of all numbers in the codes.
code_std | stds of the prior | 1 | The standard deviation of all numbers in the codes.
code_ks | share in [0, 1] | its floor | The Kolmogorov-Smirnov distance of all numbers in the codes to N(0, 1).
code_ks_floor | share in [0, 1] | - | The mean of `code_ks` for as many independent normal numbers.
other_distance | stds of the prior | 0 | The root mean square distance of a number in the codes of two networks.
other_distance_unrelated | stds of the prior | - | The same distance of codes of different points.
other_distance_share | ratio | 0 | `other_distance` over `other_distance_unrelated`.
other_correlation | correlation | 1 | The mean correlation of a coordinate in the codes of two networks.
other_correlation_worst | correlation | 1 | The least of these correlations.

[interpolate]
frames | number | - | The number of points on a path.
end_error_rms_data_units | data units | lower | The root mean square difference of a path's ends from the data.
end_error_worst_data_units | data units | lower | The largest of these differences.
end_error_worst_stds | stds of the data | lower | The largest of these differences, in standard deviations.
code_radius_ends | stds of the prior | 1 | The root mean square number in the codes of the ends.
code_radius_between | stds of the prior | 1 | The same of the codes between the ends.
ends_nll_nats | nats | - | Minus the mean of the data's own log p at the ends.
between_nll_nats | nats | `ends_nll_nats` | The same at the points between the ends.

[impute restore]
draws | number | - | The number of draws for each point.
draws_out_of_range | number | 0 | The draws with an unknown value further outside the training part's range than that
    range is wide.
known_deviation_data_units | data units | 0 | The largest change of a value that a mask left known.
misfit | stds of the noise | 1 | The root mean square of y - A x over the noise's standard deviation; without noise in
    data units, and best 0.
spread_data_units | data units | - | The mean standard deviation of an unknown value over its draws.
spread_stds | stds of the data | - | The same in standard deviations of the value's column.
rmse_of_mean_data_units | data units | lower | The root mean square error of the draws' mean.
rmse_of_mean_stds | stds of the data | lower | The same in standard deviations of the value's column.
coverage | share in [0, 1] | `coverage_nominal` | How often the truth lies in the central interval of the draws.
coverage_nominal | share in [0, 1] | - | How often it does for draws from the posterior, about 0.8.
sliced_wasserstein_to_exact | data units | its floor | The mean distance of a point's draws to as many exact draws.
sliced_wasserstein_floor | data units | - | The mean distance between two sets of exact draws.
times_the_floor | ratio | 1 | `sliced_wasserstein_to_exact` over `sliced_wasserstein_floor`.

[memorisation]
verdict | words | no copying seen | What the C_T test and its controls together say.
copying | stds of the test | between -3 and 3 | The C_T test of the samples: below -3 they lie nearer to the training
    data than held-out data do.
copying_positive_control | stds of the test | below -3 | The test of training examples with a little noise, which it
    must catch.
copying_negative_control | stds of the test | between -3 and 3 | The test of held-out data, which it must let pass.
caught_from_share | share in [0, 1] | lower | The smallest share of copies that the test catches.
c_t | test statistic | 0 | The statistic of the C_T test before its division by `c_t_std`.
c_t_std | test statistic | - | Its standard deviation where nothing is copied.
cells | number | - | The cells of the test with enough points of both kinds.
ratio_median | ratio | that of held-out data | The median over the samples of the distance to the nearest training
    example over that to the nearest held-out one.
ratio_median_held_out | ratio | - | The same of held-out data.
ratio_least | ratio | that of held-out data | The smallest of these ratios of samples.
ratio_least_held_out | ratio | - | The same of held-out data.
near_duplicates | share in [0, 1] | that of held-out data | The share of samples that are three times nearer to one
    training example than to the next.
near_duplicates_held_out | share in [0, 1] | - | The same share of held-out data.
distance_median | model units | that of held-out data | The median distance of a sample to the nearest training
    example.
distance_median_held_out | model units | - | The same of held-out data.

[binary]
bound_bits | bits a row | lower | The mean of the bound on -log2 P of a row.
bound_stderr | bits a row | lower | The standard error of `bound_bits`.
prior_bits | bits a row | lower | The bound's part of the prior.
diffusion_bits | bits a row | lower | The bound's part of the diffusion.
reconstruction_bits | bits a row | lower | The bound's part of the reconstruction.
noise_stderr_bits | bits a row | lower | The part of `bound_stderr` that comes from the noise.
floor_bits | bits a row | - | The mean of -log2 P under the data's own distribution.
gap_bits | bits a row | 0 | `bound_bits` less `floor_bits`.
gap_stderr | bits a row | lower | The standard error of `gap_bits`.
valid_share | share in [0, 1] | 1 | The share of drawn rows that the data's own distribution can give.
valid_stderr | share in [0, 1] | lower | The standard error of `valid_share`.
bits_per_dim | bits/dim | lower | `bound_bits` over the number of bits in a row.

[train_classifier]
label_accuracy | share in [0, 1] | higher | The share of held-out data that the classifier assigns to their class, at
    eps.
label_accuracy_stderr | share in [0, 1] | lower | The standard error of `label_accuracy`.
cross_entropy_nats | nats | lower | The mean of -log p(y | x) over held-out data, at eps.
cross_entropy_noise_nats | nats | `cross_entropy_of_shares_nats` | The same on pure noise, at T.
cross_entropy_of_shares_nats | nats | - | The entropy of the classes' shares in the training part.

[elbo]
MODEL_nll_nats | nats | lower | Minus the mean of the evidence lower bound.
MODEL_bits_per_dim | bits/dim | lower | `MODEL_nll_nats` in bits a dimension.
MODEL_nll_stderr | nats | lower | The standard error of `MODEL_nll_nats`.
MODEL_bits_per_dim_stderr | bits/dim | lower | `MODEL_nll_stderr` in bits a dimension.
MODEL_denoising_nll_nats | nats | lower | `MODEL_nll_nats` with the bound on the prior by denoising.
MODEL_denoising_bits_per_dim | bits/dim | lower | `MODEL_denoising_nll_nats` in bits a dimension.
MODEL_denoising_nll_stderr | nats | lower | The standard error of `MODEL_denoising_nll_nats`.
MODEL_denoising_bits_per_dim_stderr | bits/dim | lower | `MODEL_denoising_nll_stderr` in bits a dimension.
MODEL_importance_nll_nats | nats | lower | Minus the mean of the importance-weighted bound, from several draws of each
    code.
MODEL_importance_bits_per_dim | bits/dim | lower | `MODEL_importance_nll_nats` in bits a dimension.
MODEL_importance_nll_stderr | nats | lower | The standard error of `MODEL_importance_nll_nats`.
MODEL_importance_bits_per_dim_stderr | bits/dim | lower | `MODEL_importance_nll_stderr` in bits a dimension.
MODEL_gain_nats | nats | higher | How far the bound exceeds that of the first model.
MODEL_gain_bits_per_dim | bits/dim | higher | `MODEL_gain_nats` in bits a dimension.
MODEL_gain_stderr | nats | lower | The standard error of `MODEL_gain_nats`.
MODEL_gain_bits_per_dim_stderr | bits/dim | lower | `MODEL_gain_stderr` in bits a dimension.
MODEL_gain_over_OTHER_nats | nats | higher | How far the bound exceeds that of another model.
MODEL_gain_over_OTHER_bits_per_dim | bits/dim | higher | `MODEL_gain_over_OTHER_nats` in bits a dimension.
MODEL_gain_over_OTHER_stderr | nats | lower | The standard error of `MODEL_gain_over_OTHER_nats`.
MODEL_gain_over_OTHER_bits_per_dim_stderr | bits/dim | lower | `MODEL_gain_over_OTHER_stderr` in bits a dimension.
MODEL_reconstruction_nats | nats | higher | The mean of E log p(x | z).
MODEL_reconstruction_stderr | nats | lower | The standard error of `MODEL_reconstruction_nats`.
MODEL_divergence_nats | nats | lower | The mean divergence of the codes from the prior.
MODEL_divergence_stderr | nats | lower | The standard error of `MODEL_divergence_nats`.
MODEL_gap_nats | nats | 0 | The data's own mean log p less the bound.
MODEL_gap_stderr | nats | lower | The standard error of `MODEL_gap_nats`.
MODEL_seconds | seconds | lower | The wall time of scoring by this model.
entropy_nats | nats | - | Minus the mean of the data's own log p at the points.

[generators]
modes | number | - | The number of modes: components of the mixture, or classes.
MODEL_collapsed_runs | number | 0 | The trainings whose samples miss a mode.
MODEL_modes_found | number | `modes` | The modes with at least a fifth of their true share of the samples, mean over
    the trainings.
MODEL_modes_found_std | number | lower | The standard deviation of `MODEL_modes_found` over the trainings.
floor_modes_found | number | - | `MODEL_modes_found` of as many training data.
MODEL_variation | share in [0, 1] | 0 | The total variation between the modes' shares and the true ones, mean over the
    trainings.
MODEL_variation_std | share in [0, 1] | lower | The standard deviation of `MODEL_variation` over the trainings.
floor_variation | share in [0, 1] | - | `MODEL_variation` of as many training data.
MODEL_good | share in [0, 1] | its floor | The share of samples within the radius that holds 99 % of their mode, mean
    over the trainings.
MODEL_good_std | share in [0, 1] | lower | The standard deviation of `MODEL_good` over the trainings.
floor_good | share in [0, 1] | - | `MODEL_good` of as many training data.
MODEL_sliced_wasserstein | `distance_unit` | its floor | The sliced Wasserstein distance to held-out data, mean over
    the trainings.
MODEL_sliced_wasserstein_std | `distance_unit` | lower | The standard deviation of `MODEL_sliced_wasserstein` over the
    trainings.
floor_sliced_wasserstein | `distance_unit` | - | `MODEL_sliced_wasserstein` of as many training data.
MODEL_precision | share in [0, 1] | higher | The share of samples within a ball of the held-out data, mean over the
    trainings.
MODEL_precision_std | share in [0, 1] | lower | The standard deviation of `MODEL_precision` over the trainings.
floor_precision | share in [0, 1] | - | `MODEL_precision` of as many training data.
MODEL_recall | share in [0, 1] | higher | The share of held-out data within a ball of the samples, mean over the
    trainings.
MODEL_recall_std | share in [0, 1] | lower | The standard deviation of `MODEL_recall` over the trainings.
floor_recall | share in [0, 1] | - | `MODEL_recall` of as many training data.

[modes]
true_share_of_the_heaviest | share in [0, 1] | - | The true share of the heaviest mode.
NAME_share_of_the_heaviest | share in [0, 1] | the true share | The share of a sampler's samples in that mode.
NAME_share_std | share in [0, 1] | lower | The standard deviation of `NAME_share_of_the_heaviest` over the seeds.
NAME_nfe | evaluations | lower | The evaluations of the network for one sample of a sampler.

[low_density]
NAME_error_at_the_data | share in [0, 1] | 0 | The mean of |s - s*| / (|s| + |s*|) of a trainer's score s and the
    exact s* at held-out data.
NAME_error_in_the_plane | share in [0, 1] | 0 | The same over a grid around the data.

[manifold]
NAME_final_loss | the loss's own | - | The last loss of a trainer; without noise it falls without end.
NAME_score_off_the_line | 1/model units | the exact one | The size of a trainer's score across the line,
    `task.distance` away from it.
NAME_exact_score_off_the_line | 1/model units | - | The exact score there.

[work_precision]
nfe_to_floor_SDE | evaluations | lower | The fewest evaluations for one sample with which a sampler of the exact score
    reaches the floor.
SCORE_nfe_to_floor_SDE | evaluations | lower | The same of a trained score.
likelihood_nfe_to_0.01_nats_SDE | evaluations | lower | The fewest evaluations for one point with which a likelihood
    has a mean error of 0.01 nats.
"""
"""The metrics, by the tasks that write them: name, unit, which way is better, what it is."""
