"""The difference of two arms over seeds: estimate, interval, tests, and what n could have found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize, stats

EXACT = 16  # seeds up to which all 2^n sign flips are taken
SAMPLES = 2**EXACT - 1
DRAWS = 1000  # of the bootstrap


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
        half = float(stats.t.ppf((1 + level) / 2, self.df)) * self.error
        return self.difference - half, self.difference + half

    def p(self) -> float:
        """The two-sided p of a t test of the difference 0."""
        if self.error == 0:
            return float(self.difference == 0)
        return 2 * float(stats.t.sf(abs(self.difference) / self.error, self.df))

    def p_equivalence(self, bound: float) -> float:
        """The larger p of two one-sided t tests, of a difference ≤ −bound and of one ≥ bound.

        If it is below 5 %, the 90 % interval lies within ± bound (Schuirmann 1987).
        """
        if self.error == 0:
            return float(abs(self.difference) >= bound)
        t = (bound - abs(self.difference)) / self.error
        return float(stats.t.sf(t, self.df))

    def detectable(self, power: float = 0.8) -> float:
        """The true difference that the two-sided test at 5 % finds with this power.

        By the noncentral t, squared: an F of one degree. It depends on error and df alone, not on
        the difference that was seen.
        """
        critical = stats.f.isf(0.05, 1, self.df)

        def found(errors: float) -> float:
            return power - float(stats.ncf.sf(critical, 1, self.df, errors**2))

        return float(optimize.brentq(found, 0.1, 100)) * self.error


def paired(differences: np.ndarray) -> Estimate:
    """The mean of differences of pairs (n,), n ≥ 2: the paired t test."""
    return Estimate(
        float(differences.mean()), float(stats.sem(differences)), float(len(differences) - 1)
    )


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


def over_images(differences: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a mean difference over seeds and images, both drawn anew.

    The bootstrap of Owen (Annals of Applied Statistics 1, 2007) for crossed factors: each draw
    weighs seeds and images by how often each is drawn, and the interval is that of percentiles.

    Args:
        differences: of two arms, by seed and image (n, M): 1 where the first alone is right, −1
            where the other alone is.
    """
    n, images = differences.shape
    by_seed = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), DRAWS)  # (D, n)
    means = differences @ _image_weights(images) / images  # (n, D)
    drawn = (by_seed.T * means).sum(axis=0) / n  # (D,)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


@cache
def _image_weights(images: int) -> np.ndarray:
    """How often each image is drawn (M, D), the same for every comparison."""
    random = np.random.default_rng(1)
    drawn = random.integers(0, images, (DRAWS, images))
    return np.stack([np.bincount(row, minlength=images) for row in drawn], axis=1).astype(float)


def holm(p: Sequence[float]) -> list[float]:
    """The p of a family of tests, adjusted so that one false finding in it has 5 % (Holm 1979)."""
    order = np.argsort(p)
    adjusted = np.asarray(p)[order] * np.arange(len(p), 0, -1)
    result = np.empty(len(p))
    result[order] = np.minimum(np.maximum.accumulate(adjusted), 1)
    return result.tolist()
