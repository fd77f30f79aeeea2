"""Means, spreads and co-movements of several columns of numbers, gathered chunk by chunk."""

import numpy as np


class Moments:
    """Sums over the rows that have both of two columns, for each two of k columns.

    Everything has shape (k, k): `n` rows that have both i and j, over these the `mean` and the sum
    of squared deviations `squares` of i, and the sum of products of deviations `products`.

    Source of the merging: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm
    for computing sample variances" (1979). It loses no digits to large means, as plain sums do.
    """

    def __init__(self, k: int) -> None:
        self.n = np.zeros((k, k))
        self.mean = np.zeros((k, k))
        self.squares = np.zeros((k, k))
        self.products = np.zeros((k, k))

    def add(self, X: np.ndarray) -> None:
        """Take in rows, float64 of shape (n_rows, k); NaN is a gap."""
        known = ~np.isnan(X)
        counts = np.maximum(known.sum(axis=0), 1)
        center = np.where(known, X, 0).sum(axis=0) / counts
        V, M = np.where(known, X - center, 0), known.astype(np.float64)
        n = M.T @ M
        sums = V.T @ M
        mean = sums / np.maximum(n, 1)
        squares = (V * V).T @ M - sums * mean
        products = V.T @ V - sums * mean.T
        self._merge(n, mean + center[:, None], np.maximum(squares, 0), products)

    def _merge(
        self, n: np.ndarray, mean: np.ndarray, squares: np.ndarray, products: np.ndarray
    ) -> None:
        total = self.n + n
        moved = np.where((self.n > 0) & (n > 0), mean - self.mean, 0)
        share = n / np.maximum(total, 1)
        weight = self.n * share
        self.squares += squares + moved**2 * weight
        self.products += products + moved * moved.T * weight
        self.mean = np.where(self.n > 0, self.mean + moved * share, mean)
        self.n = total

    def mean_of(self, i: int) -> float | None:
        return float(self.mean[i, i]) if self.n[i, i] else None

    def std_of(self, i: int) -> float | None:
        """Give the standard deviation with n - 1; None of fewer than 2 values."""
        return _root(self.squares[i, i], self.n[i, i])

    def correlation(self, i: int, j: int) -> float | None:
        """Give Pearson's correlation; None if one of the two does not vary."""
        scale = np.sqrt(self.squares[i, j] * self.squares[j, i])
        return float(np.clip(self.products[i, j] / scale, -1, 1)) if scale > 0 else None

    def difference(self, i: int, j: int) -> tuple[float | None, float | None]:
        """Give mean and standard deviation of i - j."""
        if not self.n[i, j]:
            return None, None
        squares = self.squares[i, j] + self.squares[j, i] - 2 * self.products[i, j]
        return float(self.mean[i, j] - self.mean[j, i]), _root(max(squares, 0), self.n[i, j])


def _root(squares: float, n: float) -> float | None:
    return float(np.sqrt(squares / (n - 1))) if n > 1 else None
