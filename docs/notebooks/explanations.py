# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Why was this face read so?
#
# Start this notebook in the folder of the repository. `explain` hides the regions of a face one
# after another, and asks what the answer becomes without each.

# %%
from pcnn import Recognizer

recognizer = Recognizer()
explanation = recognizer.explain("docs/images/astronaut.png")[0]
explanation

# %% [markdown]
# The face glows where something speaks for the answer. Each line hides a region: the bar is what
# the answer keeps, the white tick what the whole face has.

# %%
print(explanation.label, f"{explanation.confidence:.0%}", "decided by:", explanation.decisive)
for region, drop in sorted(explanation.drops.items(), key=lambda item: -item[1]):
    print(f"without {region:12} {100 * drop:6.1f} points less")

# %% [markdown]
# Without her mouth the network is less sure that she looks happy:

# %%
round(explanation.without["mouth"]["happiness"], 2)

# %% [markdown]
# ## Test it by another way of hiding
# The decisive region was found by a flat fill. If it matters, a blur over the mouth has to change
# the answer more than a blur over the eyes. The lines below blur each in the photograph itself.

# %%
import numpy as np
from PIL import Image, ImageFilter

photograph = Image.open("docs/images/astronaut.png").convert("RGB")
face = recognizer.predict(photograph).faces[0]
left_eye, right_eye, _, mouth_left, mouth_right = np.asarray(face.landmarks)
reach = float(np.linalg.norm(right_eye - left_eye)) / 2


def happiness_with_blur(begin, end):
    """The score of happiness with a blur from one landmark to another."""
    left, top = np.minimum(begin, end) - reach
    right, bottom = np.maximum(begin, end) + reach
    box = tuple(int(edge) for edge in (left, top, right, bottom))
    blurred = photograph.copy()
    blurred.paste(photograph.crop(box).filter(ImageFilter.GaussianBlur(reach / 2)), box)
    return recognizer.predict(blurred).faces[0].scores["happiness"]


print(f"eyes blurred:  happiness {happiness_with_blur(left_eye, right_eye):.1%}")
print(f"mouth blurred: happiness {happiness_with_blur(mouth_left, mouth_right):.1%}")

# %% [markdown]
# An explanation says what the network's answer hangs on. It does not say that the answer is right,
# nor what the person feels.
