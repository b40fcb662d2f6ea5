"""Update rules against independent transcriptions of their formulas, on random inputs.

The transcriptions take gradients and token losses as they are, in numpy and one domain at a time;
the mixers see the inner products and means that training gives them.
"""

import numpy as np
import pytest
import torch

from dograph.mixers import GRAPE, BatchSignals, DoGE, DoGEOnline, DoReMi, DoReMiOnline
from dograph.signals.alignment import Alignment

CASES = 16
"""Random inputs of each of DoGE's 14 modes."""
STEPS = 2


def names(count):
    return tuple(f"domain_{index}" for index in range(count))


def clip_norm(gradient, largest):
    return gradient * min(1.0, largest / np.linalg.norm(gradient))


def doge(alpha, gradients, target, rate, mu, clip, smoothing, trained):
    """One step of DoGE; (weights, the model's own direction).

    ``gradients`` maps present domains to their mean loss's gradient, ``target`` is the target's.
    """
    clipped = {name: clip_norm(gradient, clip) for name, gradient in gradients.items()}
    sources = [name for name in gradients if name in trained]
    mean_norm = sum(np.linalg.norm(clipped[name]) for name in sources) / len(sources)
    weighed = {}
    for name in trained:
        score = 0.0
        if name in sources:
            score = rate * float(clipped[name] @ target) / (mean_norm + 1e-6)
            score = min(max(score, 0.0), 5 * rate)
        weighed[name] = alpha[name] * np.exp(score / mu)
    total = sum(weighed.values())
    new = {
        name: (1 - smoothing) * value / total + smoothing / len(trained)
        for name, value in weighed.items()
    }
    return new, sum(new[name] * clipped[name] for name in sources)


DOGE_TARGETS = {
    "mix": ("mix", None, False),
    "all": ("all", None, False),
    "mixed weights": ("mix", "weights", False),
    "summed weights": ("all", "weights", False),
    "out of domain": ("mix", "last", True),
    "worst": ("mix", "worst", False),
    "worst, summed": ("all", "worst", False),
}


@pytest.mark.parametrize("kind", [DoGE, DoGEOnline])
@pytest.mark.parametrize("name", DOGE_TARGETS)
def test_doge(kind, name):
    universal, target, out_of_domain = DOGE_TARGETS[name]
    draw = np.random.default_rng(0)
    for case in range(CASES):
        count, width = int(draw.integers(2 + out_of_domain, 7)), int(draw.integers(1, 6))
        domains = names(count)
        trained = domains[:-1] if out_of_domain else domains
        shares = dict(zip(domains, draw.uniform(0.1, 1, count), strict=True))
        aim = {"weights": shares, "last": domains[-1]}.get(target, target)
        given = {"mu": draw.uniform(0.01, 0.2), "clip": draw.uniform(0.5, 8)}
        given["smoothing"] = draw.choice([0.0, 0.1])
        floor = {"floor": 0.1} if kind is DoGEOnline else {}
        mixer = kind(["exact", "sketch"][case % 2], universal, **given, **floor)
        mixer.setup(domains, [9] * count, 4, target=aim, unseen=[*domains[len(trained) :]])
        alpha = dict.fromkeys(trained, 1 / len(trained))
        for step in range(STEPS):
            batch, rows, losses = made_up(draw, step, len(trained), width)
            present = {
                domains[index]: rows[batch.domain.numpy() == index].mean(axis=0)
                for index in sorted(set(batch.domain.tolist()))
            }
            probe = draw.normal(size=(4, width))
            mean_losses = {
                each: losses[batch.domain.numpy() == domains.index(each)].mean() for each in present
            }
            goal = clip_norm(probe.mean(axis=0), given["clip"])
            if target == "worst":
                worst = max(mean_losses, key=mean_losses.get)
                goal = clip_norm(present[worst], given["clip"])
                goal = goal * (count if universal == "all" else 1)
            elif universal == "all" and not out_of_domain:
                tau = {each: shares[each] if target else 1.0 for each in domains}
                goal = sum(
                    count * tau[each] / sum(tau.values()) * clip_norm(gradient, given["clip"])
                    for each, gradient in present.items()
                )
            fill(batch, mixer, count, rows, probe)
            alpha, direction = doge(
                alpha, present, goal, batch.learning_rate, **given, trained=trained
            )
            if kind is DoGEOnline:
                alpha = {each: 0.1 / len(trained) + 0.9 * a for each, a in alpha.items()}
            else:
                weights = mixer.checked_loss_weights(batch).double().numpy()
                assert weights @ rows == pytest.approx(direction, rel=1e-5, abs=1e-6)
            mixer.step(batch)
            expected = [alpha.get(each, 0.0) for each in domains]
            assert mixer.weights.tolist() == pytest.approx(expected, abs=1e-6)


def made_up(draw, step, drawn, width):
    """A batch with (B, P) gradients and (B,) losses of its sequences."""
    domain = torch.from_numpy(draw.integers(0, drawn, 8))
    losses = draw.uniform(1, 9, 8)
    rate = float(draw.uniform(1e-4, 1e-2))
    batch = BatchSignals(step, domain, torch.from_numpy(losses), learning_rate=rate)
    return batch, draw.normal(scale=2, size=(8, width)), losses


def fill(batch, mixer, count, rows, probe):
    """Give a batch what the mixer asked for, in double precision."""
    sequences, held_out = torch.from_numpy(rows), torch.from_numpy(probe)
    batch.sketch, batch.probe_sketch = sequences, held_out
    if {type(request).__name__ for request in mixer.needs} == {"DomainGradients", "Probe"}:
        means = torch.zeros(count + 1, rows.shape[1], dtype=torch.float64)
        for index in batch.domain.unique():
            means[index] = sequences[batch.domain == index].mean(dim=0)
        means[count] = held_out.mean(dim=0)
        products = means @ means.T
        batch.domain_kernel, batch.probe_products = products[:-1, :-1], products[:, -1]
        batch.sketch = batch.probe_sketch = None


@pytest.mark.parametrize("normalise", ["paper", "repository"])
def test_doremi(normalise):
    draw = np.random.default_rng(1)
    for _ in range(7 * CASES):
        count, length = int(draw.integers(2, 7)), int(draw.integers(1, 5))
        domains, shares = names(count), draw.uniform(0.2, 1, count)
        eta, smoothing = float(draw.uniform(0.1, 2)), float(draw.choice([0.0, 0.05]))
        prior = dict(zip(domains, shares, strict=True))
        mixer = DoReMi("reference.ckpt", eta, smoothing, normalise, prior)
        mixer.setup(domains, [9] * count, 8)
        sampled = alpha = shares / shares.sum()
        for step in range(STEPS):
            domain = draw.integers(0, count, 8)
            proxy, reference = draw.uniform(0, 4, (2, 8, length))
            excess = np.maximum(proxy - reference, 0)
            alpha = doremi(alpha, domain, excess, eta, smoothing)
            loss = doremi_loss(alpha, sampled, domain, proxy, normalise)
            batch = BatchSignals(step, torch.from_numpy(domain), torch.ones(8))
            batch.excess_loss = torch.from_numpy(excess.mean(axis=1))
            weights = mixer.checked_loss_weights(batch).double().numpy()
            assert weights @ proxy.mean(axis=1) == pytest.approx(loss, rel=1e-6)
            mixer.step(batch)
            assert mixer.weights.tolist() == pytest.approx(alpha.tolist(), abs=1e-6)


def doremi(alpha, domain, excess, eta, smoothing):
    """One update of (S,) alpha by (B, T) clipped excess losses; absent domains keep theirs."""
    present = sorted(set(domain.tolist()))
    scores = {index: excess[domain == index].sum() / excess[domain == index].size
              for index in present}  # fmt: skip
    grown = {index: alpha[index] * np.exp(eta * scores[index]) for index in present}
    share, total, new = alpha[present].sum(), sum(grown.values()), alpha.copy()
    for index in present:
        new[index] = share * ((1 - smoothing) * grown[index] / total + smoothing / len(present))
    return new


def doremi_loss(alpha, sampled, domain, losses, normalise):
    """The proxy's loss of (B, T) token losses."""
    if normalise == "paper":  # each domain's mean over its tokens counts its weight
        present = set(domain.tolist())
        return sum(alpha[index] * losses[domain == index].mean() for index in present)
    ratios = alpha / sampled
    ratios = ratios / ratios.sum()
    each = np.repeat(ratios[domain][:, None], losses.shape[1], axis=1)
    return (losses * each).sum() / max(each.sum(), 1e-10)


@pytest.mark.parametrize("reference", [None, "reference.ckpt"])
def test_online_doremi(reference):
    draw = np.random.default_rng(2)
    for _ in range(7 * CASES):
        count, floor = int(draw.integers(2, 7)), float(draw.choice([0.0, 0.2]))
        eta, smoothing = float(draw.uniform(0.01, 2)), float(draw.choice([0.0, 0.05]))
        mixer = DoReMiOnline(reference, eta, smoothing, floor=floor)
        mixer.setup(names(count), [9] * count, 8)
        alpha = np.full(count, 1 / count)
        for step in range(STEPS):
            domain, losses = draw.integers(0, count, 8), draw.uniform(0, 4, (8, 1))
            batch = BatchSignals(step, torch.from_numpy(domain), torch.from_numpy(losses[:, 0]))
            if reference:  # then the losses themselves do not matter
                batch.excess_loss = batch.sequence_loss
                batch.sequence_loss = torch.from_numpy(draw.uniform(0, 4, 8))
            mixer.step(batch)
            alpha = floor / count + (1 - floor) * doremi(alpha, domain, losses, eta, smoothing)
            assert mixer.sampling_weights.tolist() == pytest.approx(alpha.tolist(), abs=1e-6)


def test_grape():
    draw = np.random.default_rng(2)
    for case in range(13 * CASES):
        count, width = int(draw.integers(2, 7)), int(draw.integers(1, 6))
        domains = names(count)
        tasks = domains[int(draw.integers(0, count)) :]
        trained = domains if case % 2 else domains[:-1]
        given = {
            "step_size": float(draw.uniform(0.1, 5)),
            "target_step_size": float(draw.uniform(0.1, 20)),
            "smoothing": float(draw.choice([0.0, 0.001, 0.2])),
            "clip": float(draw.uniform(0.2, 3)),
        }
        start = dict(zip(tasks, draw.uniform(0.2, 1, len(tasks)), strict=True))
        mixer = GRAPE(**given, update_every=1)
        mixer.setup(domains, [9] * count, 4, target=start, unseen=[*domains[len(trained) :]])
        alpha = dict.fromkeys(trained, 1 / len(trained))
        z = {name: weight / sum(start.values()) for name, weight in start.items()}
        for step in range(STEPS):
            sources = {name: draw.normal(scale=2, size=width) for name in trained}
            targets = {name: draw.normal(scale=2, size=width) for name in tasks}
            losses = {name: float(draw.uniform(0.5, 9)) for name in tasks}
            batch = BatchSignals(step, torch.zeros(4, dtype=torch.int64), torch.ones(4))
            batch.alignment = aligned(domains, sources, targets, losses)
            alpha, z = grape(alpha, z, sources, targets, losses, **given)
            mixer.step(batch)
            expected = [alpha.get(name, 0.0) for name in domains]
            assert mixer.weights.tolist() == pytest.approx(expected, abs=1e-6)
            expected = [z.get(name, 0.0) for name in domains]
            assert mixer.target_weights.tolist() == pytest.approx(expected, abs=1e-6)


def aligned(domains, sources, targets, losses):
    """What a collector would find, of gradients and losses by name."""
    width = len(next(iter(targets.values())))
    rows, columns = (
        torch.from_numpy(np.stack([part.get(name, np.zeros(width)) for name in domains]))
        for part in (sources, targets)
    )
    squares = rows.square().sum(dim=1), columns.square().sum(dim=1)
    mean = torch.tensor([losses.get(name, 0.0) for name in domains])
    return Alignment(rows @ columns.T, *squares, mean)


def grape(alpha, z, sources, targets, losses, step_size, target_step_size, smoothing, clip):
    """One update of the sources' and the targets' weights, by name."""
    g = {name: clip_norm(gradient, clip) for name, gradient in sources.items()}
    log_gradients = {
        name: clip_norm(gradient / losses[name], clip) for name, gradient in targets.items()
    }
    direction = sum(alpha[name] * g[name] for name in g)
    grown = {
        name: z[name] * np.exp(-target_step_size * float(gradient @ direction))
        for name, gradient in log_gradients.items()
    }
    total = sum(grown.values())
    new_z = {
        name: (1 - smoothing) * value / total + smoothing / len(z) for name, value in grown.items()
    }
    wanted = sum(new_z[name] * gradient for name, gradient in log_gradients.items())
    raised = {
        name: alpha[name] * np.exp(step_size * float(gradient @ wanted))
        for name, gradient in g.items()
    }
    total = sum(raised.values())
    return {name: value / total for name, value in raised.items()}, new_z
