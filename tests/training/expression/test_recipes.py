"""Recipes: what a TOML file may say, and what is said when it cannot."""

from pathlib import Path

import pytest

pytest.importorskip("tomllib", reason="recipes need Python 3.11")

from pcnn.errors import InputError
from pcnn.training.expression.augmentation import Augmentation
from pcnn.training.expression.options import ExpressionOptions
from pcnn.training.expression.recipes import read_recipe

WEIGHTS = Path(__file__).parent.parent.parent.parent / "weights"


def test_every_recipe_in_the_repository_is_one() -> None:
    recipes = sorted(WEIGHTS.glob("*.toml"))
    assert recipes
    for path in recipes:
        ExpressionOptions(data="faces", output="file", **read_recipe(path))


def test_what_is_written_and_what_is_left_out(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'network = "pcnn"\nepochs = 3\ninit = "trunk.safetensors"\nteachers = ["a", "b"]\n'
        "[augmentation]\nerase = 0.5\n"
    )
    options = ExpressionOptions(data="faces", output="file", **read_recipe(recipe))
    assert (options.epochs, options.init) == (3.0, "trunk.safetensors")
    assert options.teachers == ("a", "b")
    assert options.augmentation == Augmentation(erase=0.5)
    assert options.batch == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = ", "is not TOML"),
        ("lr = 1e-3", "lr is unknown; options are network, init, size"),
        ("ema = 0.99", "ema is unknown; options are network, init, size"),
        ("epoch = 3", "epoch is unknown; options are network, init, size"),
        ('data = "here"', "data is unknown"),
        ('epochs = "three"', "epochs must be float, got 'three'"),
        ("size = 96.5", "size must be int, got 96.5"),
        ('teachers = "a"', "teachers must be tuple[str, ...], got 'a'"),
        ("augmentation = 3", "[augmentation] must be a table, got 3"),
        ("[augmentation]\nflip = 1", "[augmentation] flip is unknown; options are rotation_deg"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text)
    with pytest.raises(InputError) as error:
        read_recipe(recipe)
    assert str(error.value).startswith(f"recipe {recipe}: {message}")


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "none.toml")
