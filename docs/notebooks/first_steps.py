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
# # First steps
#
# Start this notebook in the folder of the repository. It reads the portrait that lies there; put
# the path of a photograph of your own in its place.

# %%
from pcnn import Recognizer

recognizer = Recognizer()  # loads the weights: make one and keep it
prediction = recognizer.predict("docs/images/astronaut.png")
prediction

# %% [markdown]
# A notebook shows a prediction as the annotated picture with a table. In Python it is a tuple of
# faces, by falling detection score:

# %%
face = prediction.faces[0]
print(face.label, f"{face.confidence:.1%}")
print("box", [round(edge) for edge in face.box])
print("turned by", round(face.angle), "degrees")

# %% [markdown]
# `scores` has a calibrated probability for each expression: of the faces given 0.7, about 70 % bear
# that label.

# %%
for name, score in sorted(face.scores.items(), key=lambda item: -item[1]):
    print(f"{name:10} {score:7.2%}")

# %% [markdown]
# Each region answers by itself, too. Her mouth is as sure as the whole face, her cheeks are not.

# %%
for region, scores in face.regions.items():
    best = max(scores, key=scores.get)
    print(f"{region:12} {best:10} {scores[best]:.0%}")

# %% [markdown]
# ## Several pictures
# A list gives a list. A picture that cannot be read does not end the run if `on_error="return"`
# asks for its error instead.

# %%
results = recognizer.predict(["docs/images/astronaut.png", "missing.jpg"], on_error="return")
for result in results:
    print(result if isinstance(result, Exception) else len(result.faces))

# %% [markdown]
# ## Pictures that already are faces
# `predict_crops` takes faces as data sets have them: cut out, one in each picture.

# %%
from pcnn import load_image

pixels = load_image("docs/images/astronaut.png")
recognizer.predict_crops(pixels[40:190, 150:300]).label
