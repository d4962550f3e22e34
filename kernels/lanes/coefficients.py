#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The polynomial coefficients of functions.h and sigmoid_row.h, and the errors they reach.

Weighted least squares with Lawson's iteration: weights grow where the error is largest, until the
error is level, which is the minimax polynomial. Rounded to f32 afterwards. Needs NumPy:

    python3 kernels/lanes/coefficients.py
"""
import numpy as np

POINTS, ITERATIONS = 4000, 400


def fit(function, low, high, degree, weight):
  """Minimax coefficients (constant first) of `function` on [low, high], and the weighted error."""
  x = (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * (np.arange(POINTS) + 0.5) / POINTS)
  y, lawson = function(x), np.ones(POINTS)
  for _ in range(ITERATIONS):
    scale = weight(x) * np.sqrt(lawson)
    matrix = np.vander(x, degree + 1, increasing=True)
    coefficients = np.linalg.lstsq(matrix * scale[:, None], y * scale, rcond=None)[0]
    error = np.abs((matrix @ coefficients - y) * weight(x))
    lawson *= error / error.max() + 1e-3
    lawson /= lawson.sum()
  return coefficients, error.max()


def show(name, coefficients, error, factor=1.0):
  print(f"{name}: relative error {error:.1e} before rounding")
  for c in coefficients:
    bits = float(np.float32(np.float32(c) * np.float32(factor)))
    print(f"  {bits.hex()}  {bits:.9g}")


def near_zero(x, small, otherwise):
  return np.where(np.abs(x) < 1e-4, small(x), otherwise(np.where(x == 0, 1.0, x)))


half = np.log(2) / 2 * 1.004

for degree in (5, 6):
  # e^r = 1 + r + r^2 q(r); doubled, so that the power of two beside it is never subnormal
  q, error = fit(lambda r: near_zero(r, lambda r: 0.5 + r / 6, lambda r: (np.expm1(r) - r) / r**2),
                 -half, half, degree - 2, lambda r: r * r * np.exp(-r) + 1e-9)
  show(f"2 e^r, degree {degree}, |r| <= ln 2 / 2", [1, 1, *q], error, 2.0)

# log(1 + f) = f + f^2 q(f)
q, error = fit(lambda f: near_zero(f, lambda f: -0.5 + f / 3 - f * f / 4,
                                   lambda f: (np.log1p(f) - f) / f**2),
               -1 / 3, 1 / 3, 8,
               lambda f: np.abs(f * f / np.where(f == 0, 1, np.log1p(f))) + 1e-9)
show("log(1 + f) = f + f^2 q(f), |f| <= 1/3", q, error)

# log(1 + e) = e p(e)
p, error = fit(lambda e: np.log1p(e) / e, 1e-9, 1, 9, lambda e: e / np.log1p(e))
show("log(1 + e) = e p(e), 0 <= e <= 1", p, error)
