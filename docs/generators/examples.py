"""Examples of public names whose docstrings have none: full name → doctest.

In these and in the docstrings' own examples `recognizer` is a `pcnn.Recognizer()`, and the public
names of `pcnn` and of the name's own module are imported, as are torch, `Path`, and NumPy as `np`.
"""

from __future__ import annotations

EXAMPLES = {
    "pcnn.Detection": """\
>>> landmarks = np.float32([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]])
>>> round(Detection((0, 0, 100, 120), 0.98, landmarks).angle)
0
""",
    "pcnn.Expression": """\
>>> expression = recognizer.predict_crops("docs/images/astronaut.png")
>>> expression.label, max(expression.scores, key=expression.scores.get)
('happiness', 'happiness')
""",
    "pcnn.Face": """\
>>> face = recognizer.predict("docs/images/astronaut.png").faces[0]
>>> face.label, len(face.box), face.landmarks.shape
('happiness', 4, (5, 2))
""",
    "pcnn.Prediction": """\
>>> prediction = recognizer.predict("docs/images/astronaut.png")
>>> len(prediction.faces), prediction.width, prediction.height
(1, 512, 512)
>>> prediction.draw().save("annotated.png")
""",
    "pcnn.Explanation": """\
>>> [explanation] = recognizer.explain("docs/images/astronaut.png")
>>> explanation.label, explanation.decisive
('happiness', 'mouth')
>>> explanation.draw().save("why.png")
""",
}
