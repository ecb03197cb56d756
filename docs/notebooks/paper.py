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
# # How the figures of the paper are reproduced
#
# The paper (Tian et al., *A Perception CNN for Facial Expression Recognition*, arXiv 2512.06422)
# reports accuracies, confusions, and what its maps see. This notebook makes figures of these kinds
# from a part of FER+ valid, in less than a minute. The pages have them for all faces:
# [results](../../results.md), [what feature maps detect](../../deconvnet.md).
#
# It needs `pip install '.[train]'` and FER+, which is not ours to give: [data](../../data.md) says
# where to get it and how it must lie in the folder `ferplus`.

# %%
from pcnn.datasets import load_faces
from pcnn.weights import load_expression

valid = load_faces("ferplus", "valid")
some = valid.subset(range(0, len(valid), len(valid) // 150)[:150])
loaded = load_expression("pcnn-ferplus-only")  # the paper's network, trained on nothing but FER+
print(len(some), "faces:", ", ".join(some.classes))

# %% [markdown]
# ## Accuracy and its interval
# So few faces tell little, as the interval shows. The paper has 85.6 % on FER+ test, with copies of
# test faces in its training set; this network has 84.7 % on all of valid, without copies.

# %%
from pcnn.evaluation.evaluate import evaluate

evaluation = evaluate(loaded, some, bootstrap=500)
accuracy = evaluation.scores.overall["accuracy"]
print(f"{accuracy.value:.1%} ({accuracy.low:.1%} … {accuracy.high:.1%}) of {len(some)} faces")

# %% [markdown]
# ## Which expressions are taken for which
# Rows are the votes, columns the answers.

# %%
from PIL import Image

from pcnn.evaluation.charts import draw_confusion

draw_confusion(evaluation.scores, "confusion.png")
Image.open("confusion.png")

# %% [markdown]
# ## What the regions bring
# Each region has an answer of its own. None is as good as all of them together with the face.

# %%
from pcnn.evaluation.logits import predict_logits
from pcnn.evaluation.metrics import accuracy as share_right
from pcnn.faces.alignment import suited_faces

pixels, size = suited_faces(loaded, some.faces)
whole, regions = predict_logits(loaded.network, pixels, native_size=size)
print(f"{'whole':12} {share_right(whole, some.votes):.0%}")
for region, logits in regions.items():
    print(f"{region:12} {share_right(logits, some.votes):.0%}")

# %% [markdown]
# ## What a map sees
# The nine faces of these to which a map of the mouth responds most, as a mean, and what in them
# made it respond.

# %%
from pcnn.analysis.deconvnet import parse_map, project_top
from pcnn.analysis.deconvnet_pictures import draw_mosaic

chosen = parse_map("mouth/layer3/66", loaded.network)
top, projection = project_top(loaded.network, pixels, chosen, native_size=size)
squares = [pixels[place].numpy() for place in top]
layout = loaded.network.config.layout
draw_mosaic(chosen, squares, projection, layout, faces=len(pixels), show_faces=False)

# %% [markdown]
# ## Ablations
# The paper's tables of parts left out need trainings, which take hours:
# `python benchmarks/ablations.py` makes small ones ([results](../../results.md)).
