"""The mixture that `dograph fit` proposed, for a recipe that names its file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from dograph.errors import UserError
from dograph.files.atomic import read_json


def fitted_mixture(place: object, recipe: Path) -> dict[str, dict[str, float]]:
    """What ``${fit.weights}`` stands for.

    Args:
        place: the recipe's key ``fit``, a file from the working folder.
        recipe: named in errors.

    Raises:
        UserError: if the file is missing or has no weights.
    """
    key = f"{recipe}: fit is {place!r}"
    if not isinstance(place, str) or not place:
        raise UserError(f"{key}: name the fit.json that `dograph fit` wrote")
    try:
        content = read_json(Path(place))
    except (ValueError, OSError) as error:
        raise UserError(f"{key}, which cannot be read: {error}: run `dograph fit` again") from error
    if content is None:
        raise UserError(f"{key}, but there is no such file: run `dograph fit` first")
    weights = content.get("weights") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights or not all(map(_is_weight, weights.values())):
        raise UserError(f"{key}, which has no weights: name the fit.json that `dograph fit` wrote")
    return {"weights": {name: float(weight) for name, weight in weights.items()}}


def _is_weight(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value < math.inf
