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
# # A film
#
# Start this notebook in the folder of the repository; it needs `pip install '.[video]'`. It makes
# a short film first: a camera that moves over the portrait for two seconds. Give the name of a film
# of your own instead.

# %%
import av
import numpy as np
from PIL import Image

portrait = Image.open("docs/images/astronaut.png").convert("RGB")
with av.open("film.mp4", "w") as film:
    stream = film.add_stream("libx264", rate=15)
    stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
    for number in range(30):
        left = 60 + 2 * number
        picture = np.asarray(portrait.crop((left, 20, left + 320, 260)))
        film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    film.mux(stream.encode())

# %% [markdown]
# `predict_video` gives one frame after another. `every=0.2` reads five frames of each second.

# %%
from pcnn import Recognizer

recognizer = Recognizer("small")
with recognizer.predict_video("film.mp4", every=0.2) as film:
    frames = list(film)
for frame in frames:
    for face in frame.faces:
        left = round(face.box[0])
        print(f"{frame.time:.1f} s  person {face.track}  {face.label}  left edge at {left}")

# %% [markdown]
# A person keeps the number `track` through the film. `scores` are steady over time, and `raw` has
# those of the frame alone.

# %%
tracks = {face.track for frame in frames for face in frame.faces}
print("people:", len(tracks))

# %% [markdown]
# `frame.rows()` gives flat dictionaries, for tables:

# %%
rows = [row for frame in frames for row in frame.rows()]
rows[0]["time"], rows[0]["track"], rows[0]["label"], rows[0]["raw_happiness"]

# %% [markdown]
# On the command line the same, with a timeline of each person as a picture and a page:
#
# ```sh
# pcnn-predict film.mp4 --timeline drawn
# ```
