"""Estimates and tests against scipy's, statsmodels' and enumeration, and by simulation."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from eqco.report.statistics import Estimate, holm, over_images, paired, sign_flip, welch

RANDOM = np.random.default_rng(0)
NUMBERS = st.lists(st.floats(-5, 5), min_size=2, max_size=9).filter(lambda x: np.std(x) > 1e-3)


@given(NUMBERS)
def test_paired_is_scipys(values):
    d = np.array(values)
    found, expected = paired(d), stats.ttest_1samp(d, 0)
    assert found.p() == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert found.interval() == pytest.approx((interval.low, interval.high))


@given(NUMBERS, NUMBERS)
def test_welch_is_scipys(first, second):
    a, b = np.array(first), np.array(second)
    found, expected = welch(a, b), stats.ttest_ind(a, b, equal_var=False)
    assert found.p() == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert found.interval() == pytest.approx((interval.low, interval.high))


@given(NUMBERS, st.floats(0.1, 6))
def test_equivalence_is_statsmodels(values, bound):
    d = np.array(values)
    p, _, _ = ttost_paired(d, np.zeros(len(d)), -bound, bound)
    assert paired(d).p_equivalence(bound) == pytest.approx(p, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 12])
def test_holm_is_statsmodels(n):
    p = RANDOM.uniform(0, 0.2, n).round(2).tolist()  # with ties
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


@given(NUMBERS)
def test_sign_flips_are_all_taken(values):
    d = np.array(values)
    sums = [abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in flips(len(d))]
    expected = np.mean([x >= abs(d.sum()) * (1 - 1e-12) - 1e-12 for x in sums])
    assert sign_flip(d) == pytest.approx(expected)


def flips(n: int):
    return product((1, -1), repeat=n)


def test_many_sign_flips_are_sampled_the_same_each_time():
    d = RANDOM.normal(0.4, 1, 40)
    expected = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=20_000, rng=0
    )
    assert sign_flip(d) == pytest.approx(expected.pvalue, abs=0.01)
    assert sign_flip(d) == sign_flip(d.copy())


@pytest.mark.parametrize("n", [3, 8, 30])
def test_what_is_detectable_is_found_with_its_power(n):
    true = Estimate(0.0, 1 / np.sqrt(n), n - 1).detectable()  # deviation 1
    draws = RANDOM.normal(true, 1, (20_000, n))
    found = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert found == pytest.approx(0.8, abs=0.012)


def rejected(p: np.ndarray) -> bool:
    """Whether the share of p < 5 % is more than chance makes of 5 %, at 1 in 10,000."""
    return stats.binom.sf((p < 0.05).sum() - 1, len(p), 0.05) < 1e-4


@pytest.mark.parametrize("n", [2, 5, 20])
def test_under_no_difference_one_in_twenty_is_found(n):
    draws = RANDOM.normal(0, 1, (2000, n))
    p = np.array([paired(d).p() for d in draws])
    assert not rejected(p)
    assert stats.binom.cdf((p < 0.05).sum(), 2000, 0.05) > 1e-4  # and not fewer


@pytest.mark.parametrize("n", [5, 20])
def test_at_its_bound_equivalence_is_found_in_one_of_twenty(n):
    draws = RANDOM.normal(3, 1, (2000, n))
    p = np.array([paired(d).p_equivalence(3) for d in draws])
    assert not rejected(p)
    assert stats.binom.cdf((p < 0.05).sum(), 2000, 0.05) > 1e-4


def test_arms_that_are_one_have_an_interval_of_no_width():
    same = paired(np.zeros(4))
    assert (same.interval(), same.p(), same.p_equivalence(0.1)) == ((0, 0), 1, 0)
    assert same.detectable() == 0
    assert sign_flip(np.zeros(4)) == 1


def crossed(random: np.random.Generator, n: int, seed_sd: float, image_sd: float) -> np.ndarray:
    """Differences of no mean by seed and image (n, 200), each with effects of its own."""
    effects = seed_sd * random.normal(0, 1, (n, 1)) + image_sd * random.normal(0, 1, 200)
    return effects + random.normal(0, 0.5, (n, 200))


def test_over_images_is_the_bootstrap_of_seeds_and_images_where_both_are_many():
    """By drawing both anew (Owen, arXiv 0712.1111), which needs many of both."""
    random = np.random.default_rng(3)
    d = crossed(random, 60, 0.2, 0.4)
    drawn = [
        d[random.integers(0, 60, 60)][:, random.integers(0, 200, 200)].mean() for _ in range(4000)
    ]
    found = over_images(d)
    assert found.error == pytest.approx(np.std(drawn), rel=0.1)
    assert found.difference == pytest.approx(d.mean())


def test_over_images_is_the_paired_test_where_images_have_no_effect():
    random = np.random.default_rng(4)
    d = np.tile(random.normal(0, 1, (7, 1)), (1, 50))
    assert over_images(d).interval() == pytest.approx(paired(d.mean(axis=1)).interval())


@pytest.mark.parametrize("n", [3, 5, 20])
@pytest.mark.parametrize(("seed_sd", "image_sd"), [(0.1, 0.1), (0.02, 0.4), (0.3, 0.05)])
def test_over_images_covers_the_truth(n, seed_sd, image_sd):
    """In 95 of 100 intervals or more; few seeds and few effects make it wider."""
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        low, high = over_images(crossed(random, n, seed_sd, image_sd)).interval()
        covered += low <= 0 <= high
    assert covered >= stats.binom.ppf(1e-3, 400, 0.95)
