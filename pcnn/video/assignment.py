"""Rows and columns paired so that the pairs cost least together: the Hungarian method."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def assign(costs: NDArray[np.float64], *, most: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of the least sum of costs, each row and column in one at most.

    costs: (N, M), finite. most: pairs that cost more are no pairs; as many as can be are made.
    Returns pairs by row; N = 0 or M = 0 gives none.
    Source: Kuhn 1955, in the form with shortest paths and potentials (Jonker and Volgenant 1987).
    """
    if not costs.size:
        return []
    # What is no pair costs more than all pairs together, so that none is made for its sake.
    bounded = np.where(costs > most, 1 + 2 * min(costs.shape) * (1 + abs(most)), costs)
    if costs.shape[0] > costs.shape[1]:
        pairs = [(row, column) for column, row in enumerate(_columns(bounded.T))]
    else:
        pairs = list(enumerate(_columns(bounded)))
    return sorted((row, column) for row, column in pairs if costs[row, column] <= most)


def _columns(costs: NDArray[np.float64]) -> list[int]:
    """The column of each row; costs: (N, M), N ≤ M."""
    rows, columns = costs.shape
    of_row, of_column = np.zeros(rows), np.zeros(columns)  # potentials
    owner = np.full(columns, -1)  # the row of each column
    for start in range(rows):
        distance = np.full(columns, np.inf)
        previous = np.full(columns, -1)  # the column before, on the shortest path
        done = np.zeros(columns, bool)
        row, column = start, -1
        while True:
            reduced = costs[row] - of_row[row] - of_column
            base = 0.0 if column < 0 else distance[column]
            nearer = ~done & (base + reduced < distance)
            distance[nearer], previous[nearer] = base + reduced[nearer], column
            column = int(np.where(done, np.inf, distance).argmin())
            done[column] = True
            if owner[column] < 0:
                break
            row = int(owner[column])
        # Potentials keep the reduced costs of all pairs made at 0, and of no pair below it.
        length = distance[column]
        before = done & (owner >= 0)
        of_row[owner[before]] += length - distance[before]
        of_row[start] += length
        of_column[done] -= length - distance[done]
        while column >= 0:
            earlier = int(previous[column])
            owner[column] = start if earlier < 0 else owner[earlier]
            column = earlier
    found = np.empty(rows, int)
    found[owner[owner >= 0]] = np.flatnonzero(owner >= 0)
    return [int(column) for column in found]
