"""How far a native op may be from the reference: one table, each number with its reason.

Differences are of float32 results unless a reason says otherwise. Inputs in the tests are of
magnitude SIZE at most where a tolerance depends on it.
"""

import torch

SIZE = 4.0  # feature maps in the tests lie within -SIZE … SIZE, a few standard deviations

# crop_regions, in normalised units. A position is rounded to 2⁻²⁴ of an image coordinate of up to
# some thousands, once in the product and twice in the sums, and a pixel's neighbours differ by up
# to 255 levels; the reference and the compiled code round in the same order, so only the order in
# which the samples are added (up to 64 × 64) and the form of the interpolation differ: some 2⁻²⁴
# of 255 for each of about 16 roundings, over 255 · std with std ≥ 0.2.
CROP = 16 * 2.0**-24 / 0.2

# crop_regions, a view that is a part of its face's first one: it takes that one's pixels, whose
# positions were rounded apart from its own, in either of two directions by 2⁻²⁴ of three numbers of
# up to 300 pixels; neighbours differ by up to 255 levels.
COPIED = CROP + 2 * 3 * 300 * 2.0**-24 / 0.2

# landmark_crop: the reference adds in another order, so that after rounding to float32 each number
# of a transform may differ in its last place. A position is the sum of three such terms of up to
# 1500 pixels in the tests, and neighbours differ by up to 255 levels in each of two directions.
LANDMARKS = CROP + 2 * 3 * 1500 * 2.0**-23 / 0.2

# stitch_regions: four products and the sums of two interpolations against one after the other:
# each of about 8 roundings is 2⁻²⁴ of SIZE; the position itself is rounded at a size of up to 300
# pixels, and the neighbours differ by up to 2 · SIZE.
STITCH = 8 * 2.0**-24 * SIZE + 300 * 2.0**-22 * 2 * SIZE


# decode_faces: exponentials are rounded from float64, where two libraries may differ in the last
# place. So a float32 number differs in its own last place once in 2²⁸ times, and else not at all.
FACES = 2.0**-22


def warp(theta: torch.Tensor, side: int) -> float:
    """warp_add: what θ's rounding may move a position by, times what the map may change there.

    A normalised position is the sum of three products of numbers up to max |θ|, each rounded to
    2⁻²⁴ of its size, and grid_sample turns it into pixels with two roundings more; the reference
    adds in another order. A pixel is 2 / (side - 1) wide, and neighbours, or the zeros outside,
    differ by up to 2 · SIZE in each of two directions.
    """
    finite = theta[torch.isfinite(theta)].abs()
    largest = max(1.0, float(finite.max()) if finite.numel() else 0.0)
    position = 8 * 2.0**-24 * 3 * largest * max(1, side - 1) / 2
    return min(position, 1.0) * 4 * SIZE + 8 * 2.0**-24 * SIZE


# The native ops compute in float32 and round once. They are compared with the float32 reference
# of the same inputs, so what remains is half a unit in the last place: 2⁻¹¹ of the value in
# float16, 2⁻⁸ in bfloat16, none in float32; float16 has steps of 2⁻²⁴ at the smallest.
LAST_PLACE = {torch.float32: 0.0, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}

# Gradients come from the reference itself, on the same inputs: they must be equal.
GRADIENT = 0.0

# Another engine adds a layer's products in another order and folds scales in elsewhere: some 2⁻²⁴
# of the terms for each of about forty layers, on logits and vectors of order 1 to 10.
ENGINE = {"rtol": 1e-4, "atol": 5e-5}

# bfloat16 has 8 bits: each of some forty layers rounds to 2⁻⁹ of its values, which moves the logits
# by some hundredths and a probability by no more.
BFLOAT16 = 0.05


def assert_near(native: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Hold a native result of any element type against the float32 reference; NaN equals NaN."""
    assert native.shape == expected.shape
    torch.testing.assert_close(
        native.float(),
        expected,
        atol=tolerance + 2.0**-25,
        rtol=LAST_PLACE[native.dtype] * 1.001,
        equal_nan=True,
    )
