"""The figures for LQR are drawn from what is passed in, for one run and for many, and stay readable."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from entroflow.commands.lqr import figures
from entroflow.commands.lqr.figures import Curve, Picture
from entroflow.lqr import systems
from entroflow.plotting import save

FIGURES = {"returns": "figure1", "errors": "figure2", "learning": "figure3", "policies": "policies"}


def curve(alpha, seed, returns, errors=None):
    returns = np.asarray(returns, dtype=float)
    errors = np.geomspace(1.0, 0.01, len(returns)) * (1 + seed) if errors is None else np.asarray(errors)
    return Curve(alpha, seed, 1000 * np.arange(1, len(returns) + 1), returns, errors, 2 * errors)


def run(alpha, seed, scale=1.0):
    """An entry of results.json whose relative errors are 1 % and 4 % for seed 0, more for others."""
    entry = {"alpha": alpha, "seed": seed, "mean_scale": 2.0 * scale, "covariance_scale": 0.5 * alpha * scale}
    for name, share in {"mean": 0.01, "covariance": 0.04}.items():
        error = share * (1 + seed) * entry[f"{name}_scale"]
        entry |= {f"{name}_error": error, f"{name}_error_std": error / 2, f"{name}_error_floor": error / 4}
        entry[f"{name}_error_relative"] = share * (1 + seed)
    return entry


def pictures(alphas, actions, generator, count=500):
    for alpha in alphas:
        root = np.tril(np.ones((actions, actions))) * np.sqrt(alpha)
        mean = np.arange(1.0, actions + 1)
        samples = mean + generator.standard_normal((count, actions)) @ root.T
        yield Picture(alpha, np.array([-1.0, -0.0]), samples.astype(np.float32), mean, root @ root.T)


def panels(figure) -> list[Any]:
    return figure.axes


def lines(ax, style) -> list[Any]:
    return [line for line in ax.lines if line.get_linestyle() == style and len(line.get_xdata())]


@pytest.mark.parametrize(
    ("alphas", "seeds", "actions", "evaluations"), [([0.5], 1, 1, 1), ([1e-6, 0.1, 0.5, 1, 2, 5], 10, 4, 5)]
)
def test_every_figure_is_a_png_and_a_pdf(tmp_path, alphas, seeds, actions, evaluations):
    """One run or sixty, one action or four: eight files that open, whatever characters the title has."""
    curves = [curve(a, s, -1 - a * np.ones(evaluations)) for a in alphas for s in range(seeds)]
    title = "costs $5 and 50% of_{it"
    optimal = {(c.alpha, c.seed): -1.0 for c in curves}
    save(tmp_path, "figure1", figures.returns_figure(curves, optimal, title))
    runs = [run(a, s, 1e-9) for a in alphas for s in range(seeds)]
    save(tmp_path, "figure2", figures.errors_figure(runs, title))
    save(tmp_path, "figure3", figures.learning_figure(curves, title))
    shown = list(pictures(alphas, actions, np.random.default_rng(0)))
    save(tmp_path, "policies", figures.policies_figure(shown, title))
    assert {path.name for path in tmp_path.iterdir()} == {f"{f}.{k}" for f in FIGURES.values() for k in ("png", "pdf")}
    for name in FIGURES.values():
        image = imread(tmp_path / f"{name}.png")
        assert image.shape[1] >= 5.2 * 150 - 1 and image[..., :3].std() > 0.01, "empty"
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF-")


def test_returns_show_mean_range_and_optimum():
    """The solid line is the mean over seeds, the band their range, the dashed line the mean optimum."""
    curves = [curve(2.0, 0, [-90, -12, -10.5]), curve(2.0, 1, [-70, -14, -11.5]), curve(0.1, 0, [-9, -6, -4.9])]
    optimal = {(2.0, 0): -10.0, (2.0, 1): -11.0, (0.1, 0): -5.0}
    small, large = panels(figures.returns_figure(curves, optimal, ""))[:2]
    assert [ax.get_title(loc="left") for ax in (small, large)] == ["α = 0.1", "α = 2"]
    for ax, mean, optimum in [(small, [-9, -6, -4.9], -5.0), (large, [-80, -13, -11], -10.5)]:
        assert lines(ax, "-")[0].get_ydata().tolist() == mean
        assert list(lines(ax, "--")[0].get_ydata()) == [optimum] * 2
    band = large.collections[0].get_paths()[0].vertices
    assert {(1000, -90), (1000, -70), (3000, -11.5), (3000, -10.5)} <= {tuple(vertex) for vertex in band}
    assert small.get_title(loc="right") == "ends 2 % above optimum"
    assert large.get_title(loc="right") == "ends 4.8 % below optimum"


def test_untrained_returns_do_not_set_the_axis():
    """However bad the first returns, and whatever one seed of three does, the axis stays near the optimum."""
    early = [np.nan, -np.inf, -1e300, -1e6]
    good = [*early, -10.4, -10.2, -10.3, -10.1]
    lost = [*early, -1e200, -np.inf, -1e9, np.nan]
    curves = [curve(1.0, 0, good), curve(1.0, 1, good), curve(1.0, 2, lost)]
    figure = figures.returns_figure(curves, {(1.0, s): -10.0 for s in range(3)}, "")
    figure.draw_without_rendering()
    (ax,) = figure.axes
    low, high = ax.get_ylim()
    assert -11 < low < -10.4 and -10 < high < -9.5
    assert [text.get_text()[:12] for text in ax.texts] == ["1 of 3 seeds"]
    assert not np.isfinite(lines(ax, "-")[0].get_ydata()[-1]), "a mean that leaves out the failed seed"


def test_a_policy_that_never_gets_close_is_on_the_axis():
    """If all late returns are bad, they are shown together with the optimum, not cut off."""
    (ax,) = panels(figures.returns_figure([curve(1.0, 0, [-900, -800, -700, -600])], {(1.0, 0): -1.0}, ""))
    low, high = ax.get_ylim()
    assert low < -700 and high > -1 and not ax.texts
    (ax,) = panels(figures.returns_figure([curve(1.0, 0, [-np.inf] * 3)], {(1.0, 0): 0.0}, ""))
    assert np.isfinite(ax.get_ylim()).all() and ax.texts


def test_errors_show_values_deviations_floor_and_shares():
    """Marker, bar and floor carry the given numbers above; below, the same divided by the scale."""
    runs = [run(alpha, seed) for alpha in (2.0, 0.1) for seed in (0, 1)]
    axes = panels(figures.errors_figure(runs, ""))
    for column, name in enumerate(["mean", "covariance"]):
        for ax, relative in ((axes[column], False), (axes[2 + column], True)):
            for place, alpha in enumerate([0.1, 2.0]):
                group = [entry for entry in runs if entry["alpha"] == alpha]
                scale = np.array([entry[f"{name}_scale"] if relative else 1.0 for entry in group])
                error, std, floor = (
                    np.array([entry[f"{name}_error{part}"] for entry in group]) / scale
                    for part in ("", "_std", "_floor")
                )
                marker, _, (bar,) = ax.containers[place].lines
                np.testing.assert_allclose(marker.get_ydata(), error)
                ends = np.array([segment[:, 1] for segment in bar.get_segments()])
                np.testing.assert_allclose(ends, np.column_stack([error - std, error + std]))
                stroke = [line for line in ax.lines if line.get_linewidth() == 2][place]
                np.testing.assert_allclose(stroke.get_ydata(), floor.mean())
                assert abs(stroke.get_xdata().mean() - place) < 1e-12
        assert [text.get_text() for text in axes[2 + column].texts] == [["1.5 %", "6 %"][column]] * 2
        target = lines(axes[2 + column], ":")[0]
        assert target.get_ydata()[0] == [0.03, 0.05][column]
    assert [label.get_text() for label in axes[2].get_xticklabels()] == ["0.1", "2"]


def test_errors_of_a_diverged_run_are_named_not_drawn():
    """Missing and infinite errors (JSON null) leave the other temperatures readable and say so."""
    bad = run(1.0, 0) | {"mean_error": None, "mean_error_relative": float("inf"), "covariance_error_std": float("nan")}
    figure = figures.errors_figure([run(0.5, 0), bad], "")
    figure.draw_without_rendering()
    assert [text.get_text() for text in figure.axes[2].texts] == ["1 %", "not finite"]
    assert figure.axes[2].get_ylim()[1] < 0.1


def test_learning_curves_show_relative_errors_on_logarithmic_axes():
    """A line per temperature, the mean over seeds of the mean's and the covariance's error, with both targets."""
    errors = np.array([1.0, 0.1, 0.01])
    curves = [curve(a, s, np.zeros(3), errors * factor) for a in (0.1, 1.0) for s, factor in enumerate((1.0, 3.0))]
    curves[0].mean_error_relative[0] = 0.0  # has no logarithm
    for ax, factor, target in zip(panels(figures.learning_figure(curves, "")), (2, 4), (0.03, 0.05), strict=True):
        assert ax.get_xscale() == ax.get_yscale() == "log"
        (one,) = [line for line in ax.lines if line.get_label() == "α = 1"]
        np.testing.assert_allclose(one.get_ydata(), errors * factor)
        assert one.get_xdata().tolist() == [1000, 2000, 3000] and one not in lines(ax, "-")
        assert lines(ax, ":")[0].get_ydata()[0] == target


def test_one_action_is_a_histogram_under_the_exact_density():
    """Both have mass one, and the density's peak is at −K*s."""
    (picture,) = pictures([0.5], 1, np.random.default_rng(0))
    (ax,) = panels(figures.policies_figure([picture], ""))
    np.testing.assert_allclose(sum(bar.get_height() * bar.get_width() for bar in ax.patches), 1)
    x, density = ax.lines[0].get_data()
    np.testing.assert_allclose(np.trapezoid(density, x), 1, atol=1e-3)
    np.testing.assert_allclose(np.trapezoid(density * (x - 1) ** 2, x), 0.5, rtol=5e-3)
    np.testing.assert_allclose(x[density.argmax()], picture.mean[0])


@pytest.mark.parametrize("actions", [2, 3])
def test_several_actions_are_samples_and_ellipses(actions):
    """The ellipses at 1, 2, 3 std lie at these Mahalanobis distances, for the exact and the sampled Gaussian."""
    (picture,) = pictures([0.5], actions, np.random.default_rng(0))
    (ax,) = panels(figures.policies_figure([picture], ""))
    pair = picture.actions[:, :2].astype(float)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), pair)
    for style, mean, covariance in [
        ("-", picture.mean[:2], picture.covariance[:2, :2]),
        ("--", pair.mean(axis=0), np.cov(pair.T)),
    ]:
        rings = [line.get_xydata() - mean for line in lines(ax, style) if len(line.get_xdata()) > 1]
        distances = [np.sqrt(np.einsum("pi,ij,pj->p", ring, np.linalg.inv(covariance), ring)) for ring in rings]
        np.testing.assert_allclose(distances, np.outer([1, 2, 3], np.ones(181)))
    crosses = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "+"]
    np.testing.assert_allclose(crosses, [picture.mean[:2], pair.mean(axis=0)])
    assert ax.get_title(loc="left") == "s = (−1, 0)"


@pytest.mark.parametrize("actions", [1, 2])
def test_samples_that_are_not_finite_are_counted(actions):
    """A policy that diverged still gets its picture, with a remark."""
    (picture,) = pictures([0.5], actions, np.random.default_rng(0))
    picture.actions[::2, 0] = np.nan
    nothing = picture._replace(actions=np.full_like(picture.actions, np.inf))
    figure = figures.policies_figure([picture, nothing], "")
    figure.draw_without_rendering()
    notes = [ax.texts[0].get_text() for ax in figure.axes]
    assert notes == ["50% of the samples are not finite", "100% of the samples are not finite"]


def test_exact_samples_agree_with_their_ellipses_on_a_real_system():
    """With the exact policy's own samples, learned and exact ellipse coincide up to sampling error."""
    optimum = systems.coupled().optimal(0.5)
    state = np.array([1.0, -2.0])
    mean = -optimum.K @ state
    samples = np.random.default_rng(0).multivariate_normal(mean, optimum.covariance, 20_000)
    (ax,) = panels(figures.policies_figure([Picture(0.5, state, samples, mean, optimum.covariance)], ""))
    exact, learned = (lines(ax, style)[0].get_xydata() for style in ("-", "--"))
    deviation = np.sqrt(optimum.covariance.diagonal().max())
    # Standard errors: of a mean 1/√m, of a standard deviation 1/√(2m) deviations; five of each.
    np.testing.assert_allclose(learned, exact, atol=5 * deviation * (1 + 0.5**0.5) / np.sqrt(len(samples)))


def test_exact_answers_do_not_load_matplotlib():
    """`import entroflow.lqr` stays light: figures are imported by name."""
    code = "import sys, entroflow.lqr; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, entroflow.commands.lqr.figures; assert not {'jax', 'matplotlib.pyplot'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
