"""Solving A x = b for a symmetric, positive definite A, the same to the last bit on every machine. Pure.

LAPACK is faster, but picks its kernels by the processor, so its last bits differ from machine to machine, and
`broker-coordinator tasks verify` compares versions bit for bit. Here every number comes from single float64
multiplications, subtractions, divisions and roots, in one order.
"""

import numpy as np

from fleet_protocol.codec.class_statistics import Table

BLOCK = 64
"""Rows and columns of a tile: 32 KiB. It changes no bit."""


def factor(matrix: Table) -> Table:
    """The lower triangle L float64[D, D] with L L^T = `matrix`, by columns (Golub and Van Loan, Matrix Computations,
    4.2.5); what a block of columns takes from the rest is taken tile by tile, so that a tile stays in the cache.

    Raises:
        ArithmeticError: the matrix is not positive definite.
    """
    rest = matrix.copy()
    size = len(rest)
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        for column in range(start, end):
            pivot = rest[column, column]
            if not pivot > 0:
                raise ArithmeticError(f"pivot {column} of {size} is {pivot:g}: the matrix is not positive definite")
            rest[column:, column] /= np.sqrt(pivot)
            below = rest[column + 1 :, column]
            rest[column + 1 :, column + 1 : end] -= np.multiply.outer(below, below[: end - column - 1])
        for top in range(end, size, BLOCK):
            rows = slice(top, top + BLOCK)
            for left in range(end, top + 1, BLOCK):
                columns = slice(left, left + BLOCK)
                for column in range(start, end):
                    rest[rows, columns] -= np.multiply.outer(rest[rows, column], rest[columns, column])
    return np.tril(rest)


def solve(matrix: Table, right: Table) -> Table:
    """x float64[D, C] with `matrix` x = `right` float64[D, C].

    Raises:
        ArithmeticError: the matrix is not positive definite.
    """
    lower = factor(matrix)
    found = right.copy()
    for row in range(len(lower)):
        found[row] /= lower[row, row]
        found[row + 1 :] -= np.multiply.outer(lower[row + 1 :, row], found[row])
    for row in reversed(range(len(lower))):
        found[row] /= lower[row, row]
        found[:row] -= np.multiply.outer(lower[row, :row], found[row])
    return found
