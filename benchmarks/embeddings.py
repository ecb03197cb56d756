"""What the embedding is good for beyond the labels the network was trained on.

    python benchmarks/embeddings.py [--train 2048] [--valid 1536] [--epochs 8]
        [--weights NAME_OR_PATH] [--data FOLDER] [--cache FOLDER] [--json FILE] [--page FILE]
        [--picture FILE]

The same linear heads (`pcnn.embeddings.Head`) on the embedding, on the pixels, on a network of
random numbers and on the network's logits; and, since the packaged network was trained with
contempt, on a small one that is trained here and never saw a face of it. That training and all
vectors are kept in the cache, so that a run that was stopped goes on. Writes the figures as JSON,
their tables into the page, and what few examples bring as a picture. Needs pcnn[train].
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from rich.progress import track
from shared import put_into_page
from torch import Tensor

from pcnn import weights
from pcnn.datasets.labels import FaceSet, relabel
from pcnn.datasets.loading import load_faces
from pcnn.embeddings.heads import Head, unit_norm
from pcnn.embeddings.triplets import triplet_accuracy
from pcnn.engines.folding import split_head
from pcnn.evaluation.logits import predict_logits
from pcnn.faces.alignment import suited_faces
from pcnn.faces.resampling import resample, to_planes
from pcnn.networks.pcnn import PCNN, FaceNet
from pcnn.networks.regions import normalise
from pcnn.training.expression.loop import ExpressionTraining
from pcnn.training.expression.options import ExpressionOptions
from pcnn.weights.expression import ExpressionWeights

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data" / "ferplus"
BLOCK = 128  # faces
SHOTS = (5, 20, 100)
DRAWS = 5
METHODS = ("means", "logistic")
CONTEMPT = 7
OTHERS = 100  # examples of each other class, where contempt is learnt
UNAWARE = "never saw contempt"
TRIPLETS = 5000
DECIDED = 0.4  # how much nearer, in shares of votes, the pair must be than the odd one

Array = NDArray[Any]
Sets = dict[str, Array]


def main() -> int:
    """Measure, print, write; returns the exit status."""
    arguments = _arguments()
    path = weights.locate(arguments.weights, kind="expression")
    sha256 = weights.sha256(path)
    loaded = weights.load_expression(path)
    network = loaded.network
    train, valid = load_faces(arguments.data, "train"), load_faces(arguments.data, "valid")
    seven = {
        split: load_faces(arguments.data, split, labels="fer2013") for split in ("train", "valid")
    }
    places = {
        "train": _chosen(train, arguments.train),
        "valid": _chosen(valid, arguments.valid),
    }
    unaware = _without_contempt(train, arguments)
    kinds = {
        "trained": network,
        "random": _random_network(network, train),
        f"unaware-{arguments.epochs:g}": unaware,
    }
    seen, _ = predict_logits(unaware, valid.faces)
    of_seven = valid.votes.argmax(1) != CONTEMPT
    found: dict[str, dict[str, Array]] = {"train": {}, "valid": {}}
    for split, faces in (("train", train), ("valid", valid)):
        chosen = places[split]
        for kind, each in kinds.items():
            stem = arguments.cache / f"{sha256[:8]}-{kind}-{split}"
            asking = loaded if each is network else None
            found[split][kind.partition("-")[0]] = _vectors(each, faces, chosen, stem, asking)
        found[split]["logits"] = _logits(network, found[split]["trained"])
        found[split]["unaware logits"] = _logits(unaware, found[split]["unaware"])
        found[split]["pixels"] = _pixels(faces, chosen)
    made = {split: _representations(each) for split, each in found.items()}
    labels = {
        "train": _seven(train, seven["train"])[places["train"]],
        "valid": _seven(valid, seven["valid"])[places["valid"]],
    }
    votes = {"train": train.votes.numpy()[places["train"]], "valid": valid.votes.numpy()}
    votes["valid"] = votes["valid"][places["valid"]]
    counts = (arguments.train, arguments.valid)
    record = {
        "weights_sha256": sha256,
        "train_faces": min(arguments.train, len(train)),
        "valid_faces": min(arguments.valid, len(valid)),
        "unaware": {
            "epochs": arguments.epochs,
            "accuracy": float((seen.argmax(1) == valid.votes.argmax(1))[of_seven].float().mean()),
        },
        "fer2013": _fer2013(made, labels, counts),
        "few": _few(made, labels, counts),
        "contempt": _contempt(made, votes),
        "contempt_faces": int((votes["valid"].argmax(1) == CONTEMPT).sum()),
        "triplets": _triplets(made["valid"], votes["valid"][: arguments.valid]),
    }
    arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    _chart(record, arguments.picture)
    text = _tables(record)
    print(text)
    put_into_page(arguments.page, text, "<!-- benchmarks/embeddings.py -->", "<!-- end -->")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--train", type=int, default=2048, help="training faces, besides those of contempt")
    add("--valid", type=int, default=1536, help="faces to score on, besides those of contempt")
    add("--epochs", type=float, default=8, help="of the training without contempt")
    add("--weights", default="pcnn-ferplus-only", help="a name or a path")
    add("--data", type=Path, default=DATA)
    add("--cache", type=Path, default=Path("/tmp/pcnn-embeddings"))
    add("--json", type=Path, default=ROOT / "benchmarks" / "embeddings.json")
    add("--page", type=Path, default=ROOT / "docs" / "embeddings.md")
    add("--picture", type=Path, default=ROOT / "docs" / "images" / "embeddings-few.png")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    return arguments


# --- networks and vectors ---


def _without_contempt(train: FaceSet, arguments: argparse.Namespace) -> FaceNet:
    """A small network that learns the seven others from faces that nobody took for contempt most.

    What votes for contempt those have are left out too. Trained where the cache lacks it.
    """
    options = ExpressionOptions(
        network="trunk",
        data="",
        output="",
        size=48,
        width=32,
        epochs=arguments.epochs,
        learning_rate=2e-3,
    )
    others = (train.votes.argmax(1) != CONTEMPT).nonzero()[:, 0].tolist()
    faces = relabel(train.subset(others), train.classes[:CONTEMPT])
    checkpoint = arguments.cache / f"unaware-{arguments.epochs:g}.pt"
    begun = checkpoint if checkpoint.is_file() else None
    training = ExpressionTraining(options, faces, checkpoint=begun)
    rest = range(training.step, training.steps)
    for step in track(rest, "training without contempt", disable=not rest):
        training.advance()
        if step % 100 == 0 or step + 1 == training.steps:
            training.save(checkpoint)
    return cast("FaceNet", training.average.eval())


def _chosen(faces: FaceSet, count: int) -> Array:
    """Places of `count` faces drawn at random, then of those of contempt not among them."""
    drawn = np.random.default_rng(0).permutation(len(faces))[:count]
    contempt = np.flatnonzero(faces.votes.argmax(1).numpy() == CONTEMPT)
    return np.concatenate((drawn, np.setdiff1d(contempt, drawn)))


def _random_network(like: PCNN, faces: FaceSet) -> PCNN:
    """He's random numbers, the batch norms settled on faces so that nothing dies or explodes."""
    torch.manual_seed(0)
    network = PCNN(like.config).train()
    drawn = np.random.default_rng(1).permutation(len(faces))[:320].reshape(10, 32)
    with torch.no_grad():
        for some in drawn:
            planes = to_planes(faces.faces[torch.from_numpy(some)], like.config.channels)
            network(normalise(resample(planes, like.config.size), like.config))
    return network.eval()


def _logits(network: PCNN | FaceNet, pooled: Array) -> Array:
    _, head = split_head(network)
    with torch.no_grad():
        logits: Tensor = head(torch.from_numpy(pooled))
    return logits.numpy()


def _vectors(
    network: PCNN | FaceNet,
    faces: FaceSet,
    places: Array,
    stem: Path,
    asking: ExpressionWeights | None,
) -> Array:
    """(places, D) pooled maps, not normalised; computed where the cache lacks them.

    asking: weights as which the faces are aligned or not; None: not.
    """
    bare, _ = split_head(network.eval())
    blocks = [places[start : start + BLOCK] for start in range(0, len(places), BLOCK)]
    rows = []
    for i, block in enumerate(track(blocks, stem.name)):
        file = stem.with_name(f"{stem.name}-{i:04d}.npz")
        if file.is_file():
            with np.load(file) as kept:
                if np.array_equal(kept["index"], block):
                    rows.append(kept["face"])
                    continue
        seen = faces.faces[torch.from_numpy(block)]
        if asking:
            seen, _ = suited_faces(asking, seen)
        pooled, _ = predict_logits(bare, seen, batch_size=64)
        rows.append(pooled.numpy())
        np.savez(file, face=rows[-1], index=block)
    return np.concatenate(rows)


def _pixels(faces: FaceSet, places: Array) -> Array:
    return faces.faces.numpy()[places].reshape(len(places), -1) / np.float32(255) - np.float32(0.5)


def _representations(found: dict[str, Array]) -> Sets:
    """What the heads are given, by name."""
    return {
        "embedding": unit_norm(found["trained"]),
        "logits": found["logits"],
        "logits but contempt's": np.delete(found["logits"], CONTEMPT, 1),
        UNAWARE: unit_norm(found["unaware"]),
        f"{UNAWARE}, logits": found["unaware logits"],
        "random network": unit_norm(found["random"]),
        "pixels": unit_norm(found["pixels"]),
    }


def _seven(faces: FaceSet, labelled: FaceSet) -> Array:
    """FER2013's label of every face of the FER+ set, as its name."""
    names = np.array(labelled.classes)[labelled.votes.argmax(1).numpy()]
    by_face = dict(zip(labelled.names, names, strict=True))
    return np.array([by_face[name] for name in faces.names])


# --- experiments ---


def _right(name: str, sets: dict[str, Sets], rows: Array, labels: dict[str, Array], **how: Any):
    """(valid,) whether a head fitted on these rows of the training faces names each right."""
    head = Head.fit(sets["train"][name][rows], list(labels["train"][rows]), weights="", **how)
    answers = np.array(head.predict(sets["valid"][name][: len(labels["valid"])]))
    return answers == labels["valid"]


def _fer2013(sets: dict[str, Sets], labels: dict[str, Array], counts: tuple[int, int]) -> Any:
    """Accuracy with all training faces, and how far the embedding is ahead."""
    rows = np.arange(min(counts[0], len(labels["train"])))
    scored = {"train": labels["train"], "valid": labels["valid"][: counts[1]]}
    names = [name for name in sets["train"] if "contempt" not in name]
    right = {
        name: _right(name, sets, rows, scored, method="logistic")[None]
        for name in track(names, "FER2013-7")
    }
    return _told(right)


def _few(sets: dict[str, Sets], labels: dict[str, Array], counts: tuple[int, int]) -> Any:
    """Accuracy with 5, 20, 100 examples of each of the seven, by method."""
    scored = {"train": labels["train"], "valid": labels["valid"][: counts[1]]}
    names = [name for name in sets["train"] if "contempt" not in name]
    told: dict[str, Any] = {}
    for shots in track(SHOTS, "few examples"):
        draws = [_draw(labels["train"], counts[0], shots, seed) for seed in range(DRAWS)]
        for method in METHODS:
            right = {
                name: np.stack([_right(name, sets, rows, scored, method=method) for rows in draws])
                for name in names
            }
            told[f"{shots} {method}"] = _told(right)
    return told


def _draw(labels: Array, among: int, shots: int, seed: int) -> Array:
    """Places of `shots` examples of each label among the first faces; of a rare one all."""
    draw = np.random.default_rng(seed)
    rows = [np.flatnonzero(labels[:among] == name) for name in np.unique(labels)]
    return np.concatenate([draw.permutation(each)[:shots] for each in rows])


def _contempt(sets: dict[str, Sets], votes: dict[str, Array]) -> Any:
    """Contempt beside the seven others: recall, and how surely it is told from them (AUC)."""
    names = {split: np.array(list("01234567"))[each.argmax(1)] for split, each in votes.items()}
    theirs = names["valid"] == str(CONTEMPT)
    told: dict[str, Any] = {}
    for shots in track(SHOTS, "contempt"):
        for method in (*METHODS, "balanced"):
            areas: dict[str, list[Array]] = {name: [] for name in sets["train"]}
            recalls: dict[str, list[Array]] = {name: [] for name in sets["train"]}
            for seed in range(DRAWS):
                rows = _draw(names["train"], len(names["train"]), OTHERS, seed)
                contempt = rows[names["train"][rows] == str(CONTEMPT)][:shots]
                rows = np.concatenate((rows[names["train"][rows] != str(CONTEMPT)], contempt))
                for name, given in sets["train"].items():
                    head = Head.fit(
                        given[rows], list(names["train"][rows]), weights="", method=method
                    )
                    scores = head.predict_proba(sets["valid"][name])
                    own = scores[:, CONTEMPT]
                    below = own[theirs][:, None] > own[~theirs][None]
                    level = own[theirs][:, None] == own[~theirs][None]
                    areas[name].append((below + 0.5 * level).mean(1))
                    recalls[name].append(scores[theirs].argmax(1) == CONTEMPT)
            told[f"{shots} {method}"] = {
                "auc": _told({name: np.stack(each) for name, each in areas.items()}, UNAWARE),
                "recall": _told({name: np.stack(each) for name, each in recalls.items()}),
            }
    return told


def _triplets(sets: Sets, votes: Array) -> Any:
    """Triplets of valid faces of which the crowd's votes make two the more alike."""
    draw = np.random.default_rng(0)
    members: list[Array] = []
    odd: list[int] = []
    while len(members) < TRIPLETS:
        three = draw.permutation(len(votes))[:3]
        a, b, c = votes[three]
        apart = np.array([abs(b - c).sum(), abs(a - c).sum(), abs(a - b).sum()]) / 2
        first, second = np.sort(apart)[:2]
        if second - first >= DECIDED:
            members.append(three)
            odd.append(int(apart.argmin()))
    return {
        name: triplet_accuracy(each[: len(votes)], members, odd)._asdict()
        for name, each in sets.items()
        if "contempt" not in name
    }


def _told(right: dict[str, Array], ahead: str = "embedding") -> Any:
    """Name → mean, its 95 % interval, and the interval of one name's lead over it.

    right: name → (draws, faces), the same faces throughout. Bootstrap over draws and faces.
    """
    draw = np.random.default_rng(0)
    shape = next(iter(right.values())).shape
    means: dict[str, list[float]] = {name: [] for name in right}
    for _ in range(1000):
        draws, faces = (draw.integers(0, size, size) for size in shape)
        for name, each in right.items():
            means[name].append(float(each[draws][:, faces].mean()))
    own = np.array(means[ahead])
    return {
        name: {
            "value": float(each.mean()),
            "interval": np.percentile(means[name], [2.5, 97.5]).tolist(),
            "lead": np.percentile(own - np.array(means[name]), [2.5, 97.5]).tolist(),
        }
        for name, each in right.items()
    }


# --- tables and the picture ---


def _tables(record: dict[str, Any]) -> str:
    lines = [
        f"Weights {record['weights_sha256'][:8]}, {record['train_faces']} faces of train, "
        f"{record['valid_faces']} of valid; percent, in brackets the 95 % interval.",
        "",
        "FER2013-7, all these training faces, logistic head:",
        "",
        "| given | accuracy | lead of the embedding |",
        "|---|---|---|",
    ]
    for name, each in record["fer2013"].items():
        low, high = (100 * value for value in each["lead"])
        lead = "" if name == "embedding" else f"{low:+.1f} … {high:+.1f}"
        lines.append(f"| {name} | {_cell(each)} | {lead} |")
    lines += ["", "FER2013-7, few examples of each of the seven:", ""]
    lines += _grid(record["few"])
    lines += [
        "",
        f"Contempt beside the other seven, from {OTHERS} examples of each, or fewer where there "
        f"are fewer. It is scored on {record['contempt_faces']} faces of contempt, by the area "
        "under the ROC curve in percent; 50 is chance. The network that never saw contempt "
        f"({record['unaware']['epochs']:g} epochs) names "
        f"{100 * record['unaware']['accuracy']:.1f} % of valid's other faces right:",
        "",
    ]
    lines += _grid({key: each["auc"] for key, each in record["contempt"].items()})
    lines += ["", f'Lead of "{UNAWARE}" in area, logistic head:', ""]
    lines += ["| over | " + " | ".join(f"{shots} examples" for shots in SHOTS) + " |"]
    lines += ["|---" * (len(SHOTS) + 1) + "|"]
    for name in (f"{UNAWARE}, logits", "random network", "pixels"):
        leads = [record["contempt"][f"{shots} logistic"]["auc"][name]["lead"] for shots in SHOTS]
        cells = [f"{100 * low:+.1f} … {100 * high:+.1f}" for low, high in leads]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "Recall of contempt:", ""]
    lines += _grid({key: each["recall"] for key, each in record["contempt"].items()})
    lines += [
        "",
        f"{TRIPLETS} triplets of valid faces decided by the crowd's votes; chance is 33:",
        "",
        "| given | triplet accuracy |",
        "|---|---|",
    ]
    for name, each in record["triplets"].items():
        cell = {"value": each["accuracy"], "interval": (each["low"], each["high"])}
        lines.append(f"| {name} | {_cell(cell)} |")
    return "\n".join(lines)


def _grid(told: dict[str, Any]) -> list[str]:
    """A line for what the head is given and its method, a column for each number of examples."""
    names = next(iter(told.values()))
    lines = ["| given | head | " + " | ".join(f"{shots} examples" for shots in SHOTS) + " |"]
    lines.append("|---" * (len(SHOTS) + 2) + "|")
    methods = dict.fromkeys(key.split()[1] for key in told)
    for name in names:
        for method in methods:
            cells = [_cell(told[f"{shots} {method}"][name]) for shots in SHOTS]
            lines.append(f"| {name} | {method} | " + " | ".join(cells) + " |")
    return lines


def _chart(record: dict[str, Any], path: Path) -> None:
    """What a logistic head makes of few examples, by what it is given, with 95 % intervals."""
    few = {f"{shots} logistic": record["few"][f"{shots} logistic"] for shots in SHOTS}
    contempt = {name: record["contempt"][name]["auc"] for name in few}
    panels = (
        (
            "FER2013's seven labels",
            "accuracy, %",
            "examples of each label",
            few,
            ("embedding", "logits"),
        ),
        (
            "Contempt beside the seven others",
            "area under the ROC curve, %",
            "examples of contempt",
            contempt,
            ("embedding", "logits", UNAWARE, f"{UNAWARE}, logits"),
        ),
    )
    colours: dict[str, str] = {}
    figure = Figure(figsize=(9.6, 4.3), layout="constrained")
    for axes, (title, scale, counted, told, names) in zip(
        figure.subplots(1, 2), panels, strict=True
    ):
        for name in (*names, "random network", "pixels"):
            cells = [told[f"{shots} logistic"][name] for shots in SHOTS]
            means = [100 * cell["value"] for cell in cells]
            low, high = np.array([cell["interval"] for cell in cells]).T * 100
            colour = colours.setdefault(name, f"C{len(colours)}")
            axes.plot(SHOTS, means, color=colour, marker="o", markersize=4)
            axes.fill_between(SHOTS, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.set(xscale="log", xlabel=counted, ylabel=scale, title=title)
        axes.set_xticks(SHOTS, [str(shots) for shots in SHOTS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    lines = [
        Line2D([], [], color=colour, marker="o", label=name) for name, colour in colours.items()
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=120)


def _cell(each: Any) -> str:
    low, high = (100 * value for value in each["interval"])
    return f"{100 * each['value']:.1f} ({low:.1f} … {high:.1f})"


if __name__ == "__main__":
    raise SystemExit(main())
