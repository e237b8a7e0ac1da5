"""The difference of two arms over seeds: estimate, interval, tests, and what n could have found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import special  # scipy.stats has all of this too, and takes a second to import

EXACT = 16  # seeds up to which all 2^n sign flips are taken
SAMPLES = 2**EXACT - 1


@dataclass(frozen=True)
class Estimate:
    """A difference of means with its standard error, in points, and its degrees of freedom.

    An error of 0, as of two arms that are one, gives an interval of no width.
    """

    difference: float
    error: float
    df: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The t interval: difference ± t · error."""
        half = float(special.stdtrit(self.df, (1 + level) / 2)) * self.error
        return self.difference - half, self.difference + half

    def p(self) -> float:
        """The two-sided p of a t test of the difference 0."""
        if self.error == 0:
            return float(self.difference == 0)
        return 2 * float(special.stdtr(self.df, -abs(self.difference) / self.error))

    def p_equivalence(self, bound: float) -> float:
        """The larger p of two one-sided t tests, of a difference ≤ −bound and of one ≥ bound.

        If it is below 5 %, the 90 % interval lies within ± bound (Schuirmann 1987).
        """
        if self.error == 0:
            return float(abs(self.difference) >= bound)
        t = (bound - abs(self.difference)) / self.error
        return float(special.stdtr(self.df, -t))

    def detectable(self, power: float = 0.8) -> float:
        """The true difference that the two-sided test at 5 % finds with this power.

        By the noncentral t, squared: an F of one degree. It depends on error and df alone, not on
        the difference that was seen.
        """
        critical = special.stdtrit(self.df, 0.975) ** 2
        noncentrality = special.ncfdtrinc(1, self.df, 1 - power, critical)
        return math.sqrt(noncentrality) * self.error


def paired(differences: np.ndarray) -> Estimate:
    """The mean of differences of pairs (n,), n ≥ 2: the paired t test."""
    n = len(differences)
    return Estimate(float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(n), n - 1)


def welch(first: np.ndarray, second: np.ndarray) -> Estimate:
    """The difference of the means of two samples, each n ≥ 2, of unequal variances (Welch 1947)."""
    a, b = (float(np.var(x, ddof=1)) / len(x) for x in (first, second))
    df = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1)) if a + b else 1.0
    return Estimate(float(first.mean() - second.mean()), math.sqrt(a + b), df)


def sign_flip(differences: np.ndarray) -> float:
    """The two-sided p of the sign-flip test: under no difference each sign is as likely as not.

    Args:
        differences: of pairs (n,). All 2^n flips are taken for n ≤ 16, else a fixed sample.
    """
    sums = np.abs(_signs(len(differences)) @ differences)
    seen = abs(differences.sum())
    extreme = int((sums >= seen * (1 - 1e-12) - 1e-12).sum())
    exact = len(differences) <= EXACT
    return extreme / len(sums) if exact else (extreme + 1) / (len(sums) + 1)


@cache
def _signs(n: int) -> np.ndarray:
    """Rows of n signs: all 2^n, or SAMPLES random ones."""
    if n <= EXACT:
        return 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    return np.random.default_rng(0).choice([-1.0, 1.0], (SAMPLES, n))


def over_images(differences: np.ndarray) -> Estimate:
    """The mean difference over seeds and images, which are both a sample: two crossed factors.

    With seed effects, image effects and what is left (two-way analysis of variance, Searle,
    Casella and McCulloch, Variance Components, 1992, chapter 4):

        error² = (MS_seeds + max(MS_images − MS_rest, 0)) / (n M)

    The first part is the paired t test's; the second is what other test images would change. df is
    Satterthwaite's.

    Args:
        differences: of two arms, by seed and image (n, M), n, M ≥ 2: 1 where the first alone is
            right, −1 where the other alone is.
    """
    n, images = differences.shape
    by_seed, by_image = differences.mean(axis=1), differences.mean(axis=0)  # (n,), (M,)
    mean = float(differences.mean())
    rest = differences - by_seed[:, None] - by_image + mean
    seeds = float(by_seed.var(ddof=1)) / n
    left = float((rest**2).sum()) / ((n - 1) * (images - 1)) / (n * images)
    drawn = float(by_image.var(ddof=1)) / images
    others = max(drawn - left, 0.0)
    parts = [(seeds, n - 1)]
    if others:
        parts += [(drawn, images - 1), (left, (n - 1) * (images - 1))]
    below = sum(part**2 / df for part, df in parts)
    error = seeds + others
    return Estimate(mean, math.sqrt(error), error**2 / below if below else float(n - 1))


def holm(p: Sequence[float]) -> list[float]:
    """The p of a family of tests, adjusted so that one false finding in it has 5 % (Holm 1979)."""
    order = np.argsort(p)
    adjusted = np.asarray(p)[order] * np.arange(len(p), 0, -1)
    result = np.empty(len(p))
    result[order] = np.minimum(np.maximum.accumulate(adjusted), 1)
    return result.tolist()
