"""How far rows are from a reference: effect sizes, and how large chance alone makes them.

An effect size says how much has changed, whatever the number of rows; with few rows, chance
reaches any limit. So each comes with what it exceeds with a given probability when nothing has
changed: reference of `m` rows and current of `n` rows, both drawn from one and the same source.
"""

import numpy as np
from scipy.spatial import distance
from scipy.special import chdtri, ndtri
from scipy.stats import wasserstein_distance

PSEUDO_COUNT = 0.5


def smoothed(counts: np.ndarray) -> np.ndarray:
    """Turn counts into shares above 0, so that an empty bin has a finite effect.

    Source: half a count is added to each bin, Krichevsky and Trofimov, "The performance of
    universal encoding" (1981), which is the posterior mean under Jeffreys' prior.
    """
    raised = np.asarray(counts, np.float64) + PSEUDO_COUNT
    return raised / raised.sum()


def population_stability_index(reference: np.ndarray, current: np.ndarray) -> float:
    """Measure in nats how far counts have moved from a reference; 0 when the shares are equal.

    Both take shape (n_bins,), counts of the same bins.

    Source: the divergence J of Kullback and Leibler, "On Information and Sufficiency" (1951).
    The usual limits, 0.1 and 0.25, are a habit, not a test: with few rows, noise exceeds them.
    """
    p, q = smoothed(reference), smoothed(current)
    return float(np.sum((q - p) * np.log(q / p)))


def stability_noise(n_bins: int, m: int, n: int, chance: float) -> float:
    """Give what the population stability index exceeds by chance.

    Source: Yurdakul and Naranjo, "Statistical properties of the population stability index"
    (2020): PSI / (1/n + 1/m) follows a chi-square distribution of n_bins - 1 degrees of freedom;
    its mean is the well known (n_bins - 1)(1/n + 1/m).
    """
    return float(chdtri(n_bins - 1, chance)) * (1 / n + 1 / m) if n_bins > 1 else 0.0


def jensen_shannon_distance(reference: np.ndarray, current: np.ndarray) -> float:
    """Measure from 0 (equal shares) to 1 (nothing in common) how far apart two counts are.

    Source: Endres and Schindelin, "A new metric for probability distributions" (2003): the
    square root of the divergence of Lin (1991), in bits.
    """
    return float(distance.jensenshannon(smoothed(reference), smoothed(current), base=2))


def shannon_noise(n_bins: int, m: int, n: int, chance: float) -> float:
    """Give what the Jensen-Shannon distance exceeds by chance.

    Near equality the divergence is an eighth of the population stability index, as both are
    f-divergences with the same second derivative but for a factor: Menéndez et al., "Some
    statistical applications of generalized Jensen difference divergence measures" (1997).
    """
    return float(np.sqrt(stability_noise(n_bins, m, n, chance) / (8 * np.log(2))))


def normalised_wasserstein(
    reference_values: np.ndarray,
    current_values: np.ndarray,
    reference: np.ndarray,
    current: np.ndarray,
    std: float,
) -> float:
    """Measure how far values must be carried to make one of the other, in reference deviations.

    Takes the middles of bins and the counts in them, of shape (n_bins,) each; within a bin
    nothing counts as moved, so it is exact to a bin's width.

    Source: Kantorovich (1942), Vaserstein (1969); of first order, by scipy.
    """
    moved = wasserstein_distance(reference_values, current_values, reference, current)
    return float(moved) / std


def wasserstein_noise(
    values: np.ndarray, reference: np.ndarray, std: float, m: int, n: int, chance: float
) -> float:
    """Give what the normalised Wasserstein distance exceeds by chance at the most.

    Its mean is at most the integral of sqrt(F (1 - F)) over the values, times sqrt(1/n + 1/m):
    Bobkov and Ledoux, "One-dimensional empirical measures, order statistics, and Kantorovich
    transport distances" (2019), theorem 3.2. Round its mean it deviates by a standard deviation
    of at most sqrt(1/n + 1/m), by the inequality of Efron and Stein (1981).
    """
    below = np.cumsum(reference)[:-1] / np.sum(reference)
    mean = float(np.sum(np.sqrt(below * (1 - below)) * np.diff(values))) / std
    return float((mean - ndtri(chance)) * np.sqrt(1 / n + 1 / m))


def difference_of_means(reference: float, current: float, std: float) -> float:
    """Measure the shift of a mean in standard deviations of the reference, with its sign.

    Source: Glass's delta, "Primary, secondary, and meta-analysis of research" (1976): Cohen's d,
    where the deviation is that of the reference alone. Of a category, which is there (1) or not
    (0), the mean is its share p and the deviation sqrt(p (1 - p)).
    """
    return (current - reference) / std


def means_noise(m: int, n: int, chance: float) -> float:
    """Give what a difference of means exceeds, up or down, by chance: the central limit theorem."""
    return float(-ndtri(chance / 2) * np.sqrt(1 / n + 1 / m))


def unseen_noise(m: int, n: int, chance: float) -> float:
    """Give the share of values that a reference of `m` rows may lack by chance.

    Source: the permutation argument of Fisher's exact test: were k values alike among all rows,
    the chance that all k are current ones would be (n / (n + m))^k.
    """
    return float(np.log(chance) / np.log(n / (n + m)) / n)


def share_noise(k_reference: int, m: int, k_current: int, n: int, chance: float) -> float:
    """Give what the difference of two shares, such as those of gaps, exceeds by chance.

    Source: Agresti and Caffo, "Simple and effective confidence intervals for proportions" (2000):
    with one success and one failure added on each side, which also holds where there is none.
    """
    p = (k_reference + 1) / (m + 2), (k_current + 1) / (n + 2)
    variance = p[0] * (1 - p[0]) / (m + 2) + p[1] * (1 - p[1]) / (n + 2)
    return float(-ndtri(chance / 2) * np.sqrt(variance))


def correlation_noise(correlation: float, m: int, n: int, chance: float) -> float:
    """Give what the change of a correlation exceeds by chance.

    Source: Fisher, "On the probable error of a coefficient of correlation" (1921): atanh r has
    the variance 1 / (n - 3), for values that are about normal.
    """
    if min(m, n) <= 3:
        return 2.0  # the greatest change there is
    reach = -ndtri(chance / 2) * np.sqrt(1 / (n - 3) + 1 / (m - 3))
    z = np.arctanh(np.clip(correlation, -1 + 1e-9, 1 - 1e-9))
    return float(max(np.tanh(z + reach) - np.tanh(z), np.tanh(z) - np.tanh(z - reach)))
