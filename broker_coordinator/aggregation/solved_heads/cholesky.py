"""Solving A x = b for a symmetric, positive definite A, the same to the last bit on every machine. Pure.

LAPACK is faster, but picks its kernels by the processor, so its last bits differ from machine to machine, and
`broker-coordinator tasks verify` compares versions bit for bit. Here every number comes from single float64
multiplications, subtractions, divisions and roots, in one order.
"""

import numpy as np

from fleet_protocol.codec.class_statistics import Table


def factor(matrix: Table) -> Table:
    """The lower triangle L float64[D, D] with L L^T = `matrix`, by columns (Golub and Van Loan, Matrix Computations,
    4.2.5).

    Raises:
        ArithmeticError: the matrix is not positive definite.
    """
    rest = matrix.copy()
    for column in range(len(rest)):
        pivot = rest[column, column]
        if not pivot > 0:
            raise ArithmeticError(f"pivot {column} of {len(rest)} is {pivot:g}: the matrix is not positive definite")
        below = rest[column:, column]
        below /= np.sqrt(pivot)
        tail = below[1:]
        rest[column + 1 :, column + 1 :] -= np.multiply.outer(tail, tail)
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
