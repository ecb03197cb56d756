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
# # Your own labels from fifty pictures
#
# Start this notebook in the folder of the repository; it needs `pip install '.[train]'`. You would
# begin with a folder for each of your labels:
#
# ```
# faces/
#   bare/…
#   sunglasses/…
# ```
#
# Here the pictures are made of one portrait: fifty parts of it, in other light, half of them with
# sunglasses drawn on it.

# %%
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageEnhance

from pcnn import Recognizer

recognizer = Recognizer("small")
portrait = Image.open("docs/images/astronaut.png").convert("RGB")
left_eye, right_eye, *_ = recognizer.predict("docs/images/astronaut.png").faces[0].landmarks

worn = portrait.copy()
draw = ImageDraw.Draw(worn)
for x, y in (left_eye, right_eye):
    draw.ellipse((x - 16, y - 12, x + 16, y + 12), fill=(20, 20, 25))
draw.line((*left_eye, *right_eye), fill=(20, 20, 25), width=5)

chance = random.Random(0)
for label, source in (("bare", portrait), ("sunglasses", worn)):
    folder = Path("faces", label)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(25):
        left, top, side = chance.randint(90, 130), chance.randint(0, 25), chance.randint(190, 230)
        picture = source.crop((left, top, left + side, top + side)).resize((160, 160))
        picture = ImageEnhance.Brightness(picture).enhance(chance.uniform(0.7, 1.3))
        picture.rotate(chance.uniform(-8, 8), fillcolor=(128, 128, 128)).save(
            folder / f"{number}.png"
        )
worn.crop((110, 10, 330, 230))

# %% [markdown]
# ## Train
# The network stays as it is. A linear map from its features to your labels is fitted, and tested on
# faces that it has not learnt. On the command line this is
#
# ```sh
# pcnn-train head faces --weights small --output mine.safetensors
# ```

# %%
from pcnn.training.head.run import HeadOptions, train_head

report = train_head(HeadOptions(Path("faces"), Path("mine.safetensors")), recognizer)
print(*report.lines(), sep="\n")

# %% [markdown]
# Fifty pictures of one person are too much alike, so this accuracy says nothing of other people.
# With your own pictures, give the person of each one in a CSV, in a column `group`: then no person
# is learnt and asked ([your own labels](../../own-labels.md)).
#
# ## Use it
# Your labels stand in the place of the expressions.

# %%
own = Recognizer("small", head="mine.safetensors")
for picture in ("faces/bare/0.png", "faces/sunglasses/0.png", "docs/images/astronaut.png"):
    face = own.predict(picture).faces[0]
    print(f"{picture:26} {face.label:11} {face.confidence:.0%}")

# %% [markdown]
# ## Which pictures look mislabelled?
# The table beside the head has all pictures, the least likely label first. A picture in the wrong
# folder shows there. Move one and train again: only what is new is computed.

# %%
Path("faces/bare/3.png").rename("faces/sunglasses/moved.png")
report = train_head(HeadOptions(Path("faces"), Path("mine.safetensors")), recognizer)
[report.pictures.names[place] for place in report.suspects]
