import pytest
import torch
from test_shared_backward import SIZES, batch, build, losses_of

from dograph.errors import UserError
from dograph.signals.recorded_forward import SketchMode
from dograph.signals.sketches import SequenceSketcher, SketchSettings


@pytest.mark.parametrize("blocks", ["last", "all", "model", ["h.1.mlp"]])
@pytest.mark.parametrize("architecture", list(SIZES))
def test_it_reads_the_sketches_and_changes_no_bit(architecture, blocks):
    model = build(architecture)
    if isinstance(blocks, list):
        names = [name for name, _ in model.named_modules()]
        blocks = [next(name for name in names if name.endswith(".1.mlp"))]
    tokens, weights = batch()
    weights = (weights + 0.1).double()
    sketcher = SequenceSketcher(model, SketchSettings(blocks=blocks, rank=3))
    expected = sketcher.record().sketch(losses_of(model, tokens))
    (weights * losses_of(model, tokens)).sum().backward()
    plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    forward = sketcher.record(SketchMode.READ)
    losses = losses_of(model, tokens)
    reader = forward.reader()
    losses_of(model, tokens)  # another forward, a probe's, is not read
    head = model.get_output_embeddings().weight
    torch.autograd.grad(losses.sum(), head, retain_graph=True)  # nor is another backward
    reader.arm()
    (weights * losses).sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, plain[name]), name
    # Llama's norms work in float32, whatever the model's type.
    tolerance = 1e-10 if architecture in ("gpt2", "gpt_neox") else 1e-4
    torch.testing.assert_close(reader.sketch(weights), expected, rtol=tolerance, atol=1e-6)


def test_even_weights_of_a_power_of_two_give_the_same_bits():
    model = build(dtype=torch.float32)
    tokens, _ = batch(sequences=8)
    sketcher = SequenceSketcher(model, SketchSettings())
    expected = sketcher.record().sketch(losses_of(model, tokens))
    forward = sketcher.record(SketchMode.READ)
    losses = losses_of(model, tokens)
    reader = forward.reader()
    reader.arm()
    even = torch.full((8,), 1 / 8)
    (even * losses).sum().backward()
    assert torch.equal(reader.sketch(even), expected)


def test_without_a_backward_it_says_so():
    model = build()
    sketcher = SequenceSketcher(model, SketchSettings())
    forward = sketcher.record(SketchMode.READ)
    with pytest.raises(UserError, match=r"record\(SketchMode.READ\)"):
        forward.reader()  # the model was not called
    losses_of(model, batch()[0])
    with pytest.raises(UserError, match="no gradient came"):
        forward.reader().sketch(torch.ones(6))
