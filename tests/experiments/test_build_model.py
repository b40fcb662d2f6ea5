"""The model that a run builds, sized by its corpus and context unless the recipe says more."""

import pytest

from dograph.errors import UserError
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import compose
from dograph.experiments.run import build_model


@pytest.fixture
def model(small_recipe, store):
    """Builds the small recipe's model with another key in its configuration."""
    path = small_recipe("small")

    def model(more="", context=16):
        config = f"model.config={{n_layer: 1, n_embd: 16, n_head: 2{more}}}"
        return build_model(check(compose(path, [config])), store, context)

    return model


@pytest.mark.parametrize("key", ["n_positions", "max_position_embeddings"])
def test_a_models_own_maximum_is_kept_under_either_name(model, key):
    assert model().context == 16
    assert model(f", {key}: 40").context == 40
    refused = "model.config allows 8 tokens, but data.context is 16: lower data.context"
    with pytest.raises(UserError, match=refused):
        model(f", {key}: 8")
