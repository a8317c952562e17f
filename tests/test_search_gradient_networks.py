"""Networks as problems, against torch's own training loop, losses and differences; whatever model is brought."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune as masks

from kit import cohort, data, distill, models, sizes, training
from kit.data import Dataset
from kit.search.gradient import Differences, Implicit, Problem, Unrolled, network
from kit.search.space import Float, Int
from tests.nets import loop, same, vector
from tests.strangers import STRANGERS, By, encoder_layer, tokens

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Dataset:
    """60 images to train on."""
    return digits.part(60)


def smooth(seed: int = 0) -> nn.Module:
    """In float64, and without a kink: its differences are slopes."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 10)).double()


def trained(problem: Problem) -> Tensor:
    """The weights at the end, in a row."""
    return torch.cat([each.flatten() for each in problem.path(problem.hyper)[-1].weights.values()])


def by_hand(
    model: nn.Module, few: Dataset, steps: int, *, decays: Any = 0.0, loss: Any = None, **settings: Any
) -> Tensor:
    """The weights after plain steps of torch.optim.SGD on all samples; a list of decays has one a linear layer."""
    net, x = training.copy_of(model), few.train.inputs
    weights = [each for each in net.parameters() if each.requires_grad]
    groups: Any = [{"params": weights, "weight_decay": decays}]
    if isinstance(decays, list):
        layers = [each for each in net.modules() if isinstance(each, nn.Linear)]
        pairs = zip(layers, decays, strict=True)
        groups = [{"params": list(layer.parameters()), "weight_decay": each} for layer, each in pairs]
    stepper = torch.optim.SGD(groups, **{"lr": 0.1, "momentum": 0.9} | settings)
    for each in weights:
        each.grad = torch.zeros_like(each)  # SGD forgets to decay what has none
    for _ in range(steps):
        stepper.zero_grad(set_to_none=False)
        answer = net(x.to(weights[0].dtype))
        logits = answer["logits"] if isinstance(answer, dict) else answer
        (loss or (lambda logits: F.cross_entropy(logits, few.train.labels)))(logits).backward()
        stepper.step()
    return torch.cat([each.detach().flatten() for each in weights])


# The training is the one of torch


@pytest.mark.parametrize(("kind", "near"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_weights_are_those_of_torch(few: Dataset, kind: torch.dtype, near: float) -> None:
    model = models.MLP((64, 8, 10)).to(kind)
    problem = network(model, few, steps=20, lr=0.1, weight_decay=0.02, momentum=0.7)
    wanted = by_hand(model, few, 20, decays=0.02, momentum=0.7)
    assert trained(problem).dtype == kind
    assert torch.allclose(trained(problem), wanted, rtol=0, atol=near)
    assert not torch.allclose(vector(model), wanted, atol=0.01)


def test_weights_are_those_of_a_cohort(few: Dataset) -> None:
    model = models.MLP((64, 8, 10), seed=3)
    members = cohort.Cohort(model, [cohort.Member(seed=3, lr=0.1, weight_decay=0.02)])
    cohort.fit(members, few.train, epochs=15, batch_size=len(few.train), optimiser="sgd")
    problem = network(model, few, steps=15, lr=0.1, weight_decay=0.02)
    assert torch.allclose(trained(problem), vector(next(iter(members.models()))), atol=1e-5)


def test_batches_are_new_orders_of_all_samples(few: Dataset) -> None:
    model = models.MLP((64, 8, 10))
    net = training.copy_of(model)
    stepper = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def loss(rows: Tensor) -> Tensor:
        return F.cross_entropy(net(few.train.inputs[rows]), few.train.labels[rows])

    loop([net], 60, loss, epochs=2, seed=4, size=20, stepper=stepper)
    problem = network(model, few, ["lr"], steps=6, batch_size=20, lr=0.1, weight_decay=0, seed=4)
    assert torch.allclose(trained(problem), vector(net), atol=1e-5)


def test_a_batch_that_is_not_full_is_left_out(few: Dataset) -> None:
    model, seen = smooth(), list[int]()
    model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    problem = network(model, few, steps=4, batch_size=25)
    seen.clear()
    problem.path(problem.hyper)
    assert seen == [25] * 4
    assert torch.equal(trained(network(model, few, batch_size=60)), trained(network(model, few)))


def test_one_decay_a_layer_is_one_parameter_group_each(few: Dataset) -> None:
    model = smooth()
    problem = network(model, few, per="layer", steps=10, lr=0.1)
    assert problem.wide.names == ("weight_decay[1]", "weight_decay[3]")
    problem.hyper["weight_decay"].copy_(torch.tensor([0.3, 0.01]).log())
    assert torch.allclose(trained(problem), by_hand(model, few, 10, decays=[0.3, 0.01]), atol=1e-9)


def test_one_decay_a_weight_pulls_each_by_itself(few: Dataset) -> None:
    model = smooth()
    problem = network(model, few, per="weight", steps=1, lr=0.1)
    decays = torch.linspace(0.001, 0.5, vector(model).numel(), dtype=torch.float64)
    problem.hyper["weight_decay"].copy_(decays.log())
    wanted = by_hand(model, few, 1) - 0.1 * decays * vector(model)
    assert torch.allclose(trained(problem), wanted, atol=1e-12)


def test_a_computed_weight_belongs_to_its_layer(few: Dataset) -> None:
    problem = network(STRANGERS["computed weight"](), few, per="layer", steps=2)
    assert problem.parts["weight_decay"] == ("1", "3", "5")


def test_label_smoothing_is_torchs(few: Dataset) -> None:
    problem = network(smooth(), few, ["label_smoothing"], steps=10, lr=0.1, weight_decay=0, label_smoothing=0.3)
    wanted = by_hand(smooth(), few, 10, loss=lambda z: F.cross_entropy(z, few.train.labels, label_smoothing=0.3))
    assert torch.allclose(trained(problem), wanted, atol=1e-9)


def test_the_loss_of_distillation_is_the_kits(few: Dataset) -> None:
    teacher = models.MLP((64, 16, 10), seed=7)
    soft: dict[str, Any] = {"temperature": 3.0, "alpha": 0.7}
    problem = network(smooth(), few, ["alpha"], teacher=teacher, steps=10, lr=0.1, weight_decay=0, **soft)
    taught = teacher(few.train.inputs).detach()
    wanted = by_hand(smooth(), few, 10, loss=lambda z: distill.loss(z, taught, few.train.labels, **soft))
    assert torch.allclose(trained(problem), wanted, atol=1e-6)


def test_a_sample_without_weight_is_left_out_of_the_sum(few: Dataset) -> None:
    problem = network(smooth(), few, ["sample_weight"], steps=10, lr=0.1, weight_decay=0)
    kept = torch.arange(60) % 3 > 0
    problem.hyper["sample_weight"].copy_(kept)
    assert len(problem.wide) == 60

    def loss(z: Tensor) -> Tensor:
        return F.cross_entropy(z[kept], few.train.labels[kept], reduction="sum") / 60

    assert torch.allclose(trained(problem), by_hand(smooth(), few, 10, loss=loss), atol=1e-9)


@pytest.mark.parametrize(("draw", "by"), [(1.0, 2), (0.0, -2), (0.5, 0), (0.75, 1)])
def test_a_shift_moves_images_and_lets_zeros_in(
    few: Dataset, monkeypatch: pytest.MonkeyPatch, draw: float, by: int
) -> None:
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.full(shape, draw))
    full = replace(few, train=data.Split(few.train.inputs + 1, few.train.labels))  # no rim of zeros
    model = smooth()
    problem = network(model, full, ["shift"], shift=2, space={"shift": Float(0, 3)}, weight_decay=0)
    room = F.pad(full.train.inputs.double(), (3, 3, 3, 3))
    moved = room[:, :, 3 - by : 11 - by, 3 - by : 11 - by]
    wanted = F.cross_entropy(model(moved), full.train.labels)
    assert torch.isclose(problem.train(problem.start, problem.hyper, 0), wanted, atol=1e-12)


def test_shifts_differ_from_step_to_step_and_are_drawn_by_the_seed(few: Dataset) -> None:
    one, again, other = (network(smooth(), few, ["shift"], shift=0.8, seed=seed) for seed in (0, 0, 1))

    def losses(problem: Problem) -> list[float]:
        return [float(problem.train(problem.start, problem.hyper, at)) for at in range(3)]

    assert losses(one) == losses(again) != losses(other)
    assert len(set(losses(one))) == 3


def old_weight_norm(layer: nn.Linear) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


# Slopes against differences


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("weight_decay", {"weight_decay": 0.03}),
        ("weight_decay", {"weight_decay": 0.03, "per": "layer"}),
        ("weight_decay", {"weight_decay": 0.03, "per": "weight"}),
        ("lr", {}),
        ("lr", {"pieces": 3}),
        ("label_smoothing", {"label_smoothing": 0.1}),
        ("shift", {"shift": 0.4}),
        ("temperature", {"alpha": 0.6}),
        ("alpha", {"alpha": 0.6}),
        ("sample_weight", {"sample_weight": 0.7}),
    ],
)
@pytest.mark.parametrize("batch_size", [None, 20])
def test_every_slope_is_that_of_differences(
    few: Dataset, name: str, settings: dict[str, Any], batch_size: int | None
) -> None:
    teacher = models.MLP((64, 10), seed=7) if name in ("temperature", "alpha") else None
    problem = network(smooth(), few, [name], teacher=teacher, steps=6, batch_size=batch_size, **settings)
    slope = Unrolled().at(problem, problem.hyper).slope[name].flatten()
    width = 1e-4
    for place in range(0, slope.numel(), max(1, slope.numel() // 4)):
        ends = []
        for side in (-width, width):
            moved = problem.hyper[name].clone()
            moved.view(-1)[place] += side
            path = problem.path({name: moved})
            ends.append(float(problem.score(path[-1].weights, {name: moved})))
        assert float(slope[place]) == pytest.approx((ends[1] - ends[0]) / (2 * width), rel=1e-5, abs=1e-9)


def test_a_shift_of_nothing_has_the_slope_of_more(few: Dataset) -> None:
    problem = network(smooth(), few, ["shift"], steps=6)
    slope = float(Unrolled().at(problem, problem.hyper).slope["shift"])
    ends = [problem.score(problem.path({"shift": torch.tensor(at).double()})[-1].weights, {}) for at in (0.0, 1e-5)]
    assert slope == pytest.approx(float(ends[1] - ends[0]) / 1e-5, rel=1e-3)
    assert slope == pytest.approx(float(Differences(1e-4).at(problem, problem.hyper).slope["shift"]), rel=1e-5)


# Whatever model is brought


@pytest.mark.parametrize("name", [name for name in STRANGERS if name != "always dropping"])
def test_strangers_are_trained_as_torch_trains_them(few: Dataset, name: str) -> None:
    torch.manual_seed(0)
    model = STRANGERS[name]().double().eval()
    before = training.copy_of(model)
    problem = network(model, few, per="layer", steps=2, lr=0.1, weight_decay=0.01)
    found = Unrolled().at(problem, problem.hyper)
    assert same(model, before)
    assert all(not module.training for module in model.modules())
    assert torch.allclose(trained(problem), by_hand(model, few, 2, decays=0.01), atol=1e-9)
    rival = Differences(1e-6).at(problem, problem.hyper).slope["weight_decay"]
    assert torch.allclose(found.slope["weight_decay"], rival, rtol=1e-4, atol=1e-8)


def test_frozen_weights_stay_and_are_not_pulled(few: Dataset) -> None:
    model = models.MLP((64, 8, 10)).double()
    first = next(model.parameters()).requires_grad_(False)
    problem = network(model, few, per="layer", steps=3, lr=0.1, weight_decay=0.1)
    assert len(problem.start) == 3
    assert not first.requires_grad
    assert torch.allclose(trained(problem), by_hand(model, few, 3, decays=0.1), atol=1e-9)


@pytest.mark.parametrize(
    "norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm, old_weight_norm]
)
@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_normed_weights_have_their_slope(few: Dataset, norm: Any, mode: Any) -> None:
    """Not so by the kernel of torch 2.13 for weight_norm, whose second derivative takes the norm for a constant."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), norm(nn.Linear(64, 8)), nn.Tanh(), nn.Linear(8, 10)).double().eval()
    problem = network(model, few, per="layer", steps=3, lr=0.1, weight_decay=0.05)
    rival = Differences(1e-5).at(problem, problem.hyper).slope["weight_decay"]
    found = Unrolled(mode=mode).at(problem, problem.hyper).slope["weight_decay"]
    assert torch.allclose(found, rival, rtol=1e-5, atol=0)


@pytest.mark.parametrize("per", ["layer", "weight"])
def test_the_order_in_which_weights_are_handed_in_does_not_matter(few: Dataset, per: Any) -> None:
    problem = network(smooth(), few, per=per, steps=2)
    hyper = {"weight_decay": torch.linspace(-5, 0, problem.hyper["weight_decay"].numel(), dtype=torch.float64)}
    turned = dict(reversed(problem.start.items()))
    assert float(problem.train(turned, hyper, 0)) == pytest.approx(float(problem.train(problem.start, hyper, 0)))


def test_tied_weights_are_one(few: Dataset) -> None:
    problem = network(STRANGERS["tied pair"](), few, per="weight", steps=2)
    assert problem.hyper["weight_decay"].numel() == vector(STRANGERS["tied pair"]()).numel()


@pytest.mark.parametrize(
    "norm", [lambda: nn.BatchNorm1d(8, affine=False), lambda: nn.BatchNorm1d(8, track_running_stats=False)]
)
def test_batch_norms_that_keep_still_are_trained_through(few: Dataset, norm: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), norm(), nn.Tanh(), nn.Linear(8, 10)).double().eval()
    problem = network(model, few, steps=3, lr=0.1, weight_decay=0.1)
    assert torch.allclose(trained(problem), by_hand(model, few, 3, decays=0.1), atol=1e-9)


def test_answers_as_objects_masks_and_ids_of_tokens(few: Dataset) -> None:
    wrapped = By(lambda net, x: SimpleNamespace(logits=net.a(x.flatten(1))), a=nn.Linear(64, 10))
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    plain[1].load_state_dict(wrapped.get_submodule("a").state_dict())
    assert torch.equal(trained(network(wrapped, few, steps=3)), trained(network(plain, few, steps=3)))
    masks.random_unstructured(plain[1], "weight", 0.5)
    assert Unrolled().at(network(plain, few, steps=3), network(plain, few).hyper).loss > 0
    ids = By(lambda net, x: net.a(net.e((x * 16).long().flatten(1)).mean(1)), e=nn.Embedding(17, 8), a=nn.Linear(8, 10))
    problem = network(ids.double(), few, per="layer", steps=3, lr=0.1, weight_decay=0.1)
    wanted = by_hand(ids, few, 3, decays=0.1)
    assert torch.allclose(trained(problem), wanted, atol=1e-6)


def test_problems_side_by_side_do_not_disturb_each_other(few: Dataset) -> None:
    torch.manual_seed(0)
    model = STRANGERS["vit"]().eval()
    problems = [network(model, few, steps=3, weight_decay=decay) for decay in (0.001, 0.1)] * 2
    alone = [Unrolled().at(each, each.hyper).slope["weight_decay"] for each in problems]
    for _ in range(2):
        with ThreadPoolExecutor(4) as threads:
            counts = [threads.submit(sizes.flops, model, few.train.inputs) for _ in range(8)]  # switches kernels, too
            found = list(threads.map(lambda each: Unrolled().at(each, each.hyper).slope["weight_decay"], problems))
        assert found == alone
        assert len({count.result() for count in counts}) == 1
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()


def test_no_generator_is_moved_and_the_model_is_apart(few: Dataset) -> None:
    model = models.MLP((64, 8, 10))
    before, state = training.copy_of(model), torch.get_rng_state()
    problem = network(model, few, ["shift"], shift=0.5, batch_size=20, steps=3)
    first = trained(problem)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(model, before)
    with torch.no_grad():
        next(model.parameters()).zero_()
    assert torch.equal(trained(problem), first)


# Refusals

DROPPING = "it draws anew for each answer"


def refused(model: nn.Module, few: Dataset, match: str, *tune: str, **settings: Any) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        network(model, few, list(tune) or ["weight_decay"], steps=2, **settings)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout()), DROPPING),
        (lambda: By(lambda net, x: net.a(F.dropout(x.flatten(1), 0.5, net.training)), a=nn.Linear(64, 10)), DROPPING),
        (encoder_layer, DROPPING),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10)), r"2\.running_mean changes"),
    ],
)
def test_what_changes_in_training_mode_is_refused_and_eval_is_the_way_out(
    few: Dataset, make: Callable[[], nn.Module], match: str
) -> None:
    model = make()
    state = torch.get_rng_state()
    refused(model, few, match + r".*model\.eval\(\)")
    assert torch.equal(torch.get_rng_state(), state)
    assert network(model.eval(), few, steps=2).steps == 2


def test_what_draws_in_evaluation_mode_is_refused(few: Dataset) -> None:
    refused(STRANGERS["always dropping"]().eval(), few, DROPPING)


class Twice(torch.autograd.Function):
    """Without a derivative in forward mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return 2 * slope


class Once(torch.autograd.Function):
    """A layer of somebody's own that has a first derivative only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * slope


class Wrong(torch.autograd.Function):
    """A layer that takes a part of its slope for a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        return scale * x.square()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        x, scale = ctx.saved_tensors
        return 2 * scale.detach() * x * slope, (x.square() * slope).sum(0)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_second_derivatives_that_are_wrong_are_refused(few: Dataset, kind: torch.dtype) -> None:
    model = By(
        lambda net, x: Wrong.apply(net.a(x.flatten(1)), net.b.weight[0]), a=nn.Linear(64, 10), b=nn.Linear(10, 1)
    )
    refused(model.to(kind), few, "torch cannot differentiate By .its second derivatives are wrong.*not symmetric")


def test_a_layer_without_a_second_derivative_is_named(few: Dataset) -> None:
    model = By(lambda net, x: Once.apply(net.a(x.flatten(1))), a=nn.Linear(64, 10))
    refused(model, few, "torch cannot differentiate By .*once_differentiable")

    far = By(lambda net, x: torch.cdist(x.flatten(1), net.places, 2, "donot_use_mm_for_euclid_dist"), a=nn.Linear(1, 1))
    far.places = nn.Parameter(torch.rand(10, 64))
    refused(far, few, "torch cannot differentiate By .*_cdist_backward")


def test_a_layer_without_forward_mode_is_told_the_way_out(few: Dataset) -> None:
    problem = network(By(lambda net, x: Twice.apply(net.a(x.flatten(1))), a=nn.Linear(64, 10)), few, steps=2)
    with pytest.raises(ValueError, match="torch cannot differentiate .*autograd.Function.*mode='reverse'"):
        Unrolled(mode="forward").at(problem, problem.hyper)
    assert Unrolled().at(problem, problem.hyper).loss > 0


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(few: Dataset, kind: torch.dtype) -> None:
    refused(models.MLP((64, 10)).to(kind), few, r"weights in float32 or float64 alone.*model\.float\(\)")


@pytest.mark.parametrize(
    ("tune", "settings", "match"),
    [
        (["depth"], {}, "tune names depth, which cannot be tuned"),
        (["alpha"], {}, "tune names alpha, which cannot be tuned without a teacher"),
        (["lr"], {"alpha": 0.5}, "values names alpha, which cannot be tuned without a teacher"),
        (["lr"], {"width": 3}, "values names width"),
        (["lr"], {"space": {"width": Float(0, 1)}}, "space names width"),
        ([], {}, "tune is empty"),
        (["lr"], {"per": "layer"}, "per is of the weight_decay, which is not tuned"),
        (["weight_decay"], {"pieces": 2}, "pieces is of the lr, which is not tuned"),
        (["lr"], {"pieces": 3}, r"pieces must lie in 1 \.\. 2"),
        (["lr"], {"per": "filter"}, "per must be one of"),
        (["weight_decay"], {"weight_decay": 0}, "weight_decay must be a number from 1e-06 to 1; got 0: space="),
        (["lr"], {"space": {"lr": Float(0.3, 1)}}, "lr must be a number from 0.3 to 1; got 0.2"),
        (["lr"], {"weight_decay": -0.1}, "weight_decay must be a number from 1e-06 to 1, or 0; got -0.1"),
        (["lr"], {"label_smoothing": 2}, "label_smoothing must be a number from 0 to 0.9"),
        (["lr"], {"lr": float("nan")}, "lr must be finite"),
        (["lr"], {"batch_size": 0}, "batch_size must be 1 or more"),
        (["lr"], {"momentum": 1.0}, r"momentum must lie in \[0, 1\)"),
        (["lr"], {"seed": -1}, "seed must be 0 or more"),
    ],
)
def test_settings_are_refused_in_a_sentence(
    few: Dataset, tune: list[str], settings: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        network(models.MLP((64, 10)), few, tune, **{"steps": 2} | settings)


@pytest.mark.parametrize(("name", "alpha"), [("temperature", 0), ("label_smoothing", 1)])
def test_what_alpha_switches_off_has_no_slope(few: Dataset, name: str, alpha: float) -> None:
    teacher = models.MLP((64, 10), seed=7)
    refused(
        models.MLP((64, 10)), few, f"{name} has no slope where alpha is {alpha}", name, teacher=teacher, alpha=alpha
    )
    network(models.MLP((64, 10)), few, [name, "alpha"], teacher=teacher, alpha=alpha, steps=2)


def test_other_kinds_are_refused(few: Dataset) -> None:
    for settings, match in (
        ({"tune": "lr"}, "tune must be a list of names"),
        ({"lr": "high"}, "lr must be a number"),
        ({"space": {"lr": Int(1, 3)}, "tune": ["lr"]}, "must be a Float"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"teacher": "mine"}, "must be a torch.nn.Module"),
    ):
        with pytest.raises(TypeError, match=match):
            network(models.MLP((64, 10)), few, **settings)


def test_no_weights_no_images_and_other_teachers_are_refused(few: Dataset) -> None:
    refused(models.MLP((64, 10)).requires_grad_(False), few, "no parameter to train")
    flat = data.from_arrays(few.train.inputs.flatten(1).numpy(), few.train.labels.numpy())
    refused(models.MLP((64, 10)), flat, r"shift moves images \[n, channels, height, width\]; got", "shift")
    refused(models.MLP((64, 10)), few, "teacher must answer with 10 logits", teacher=models.MLP((64, 12)))
    broken = models.MLP((64, 10))
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    refused(models.MLP((64, 10)), few, "teacher's logits must be finite", teacher=broken)
    refused(broken, few, "finite")


def test_implicit_takes_strangers_too(few: Dataset) -> None:
    problem = network(STRANGERS["bert"]().eval(), few, per="layer", steps=3)
    assert bool(Implicit(2, damping=1.0).at(problem, problem.hyper).slope["weight_decay"].isfinite().all())
    assert len(tokens(few.train.inputs)) == 60
