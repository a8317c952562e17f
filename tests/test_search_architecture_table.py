"""The table of all networks: its file, its limits, what a search reads from it; and whether it tells the truth."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import zipfile
from collections import Counter
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from kit import data, sizes, training
from kit.cells import networks, parse
from kit.data import Dataset
from kit.search import Random, Study, SuccessiveHalving
from kit.search.architecture import COSTS, Evolution, LocalSearch, Table, TableError, load, search, train
from kit.search.architecture import table as tables

pytestmark = pytest.mark.usefixtures("one_thread")

FOUR = tuple(map(parse, (
    "none | skip none | none skip", "none | skip none | none pool",
    "none | skip none | none conv1", "none | conv3 none | none conv3",
)))  # fmt: skip
LIMITS = {"parameters": 300, "flops": 2000.5, "latency": 0.5}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Table:
    """A space of four networks, with numbers by hand."""
    monkeypatch.setattr(tables, "networks", lambda: FOUR)
    curves = np.array([[10, 20], [11, 21], [12, 22], [30, 40], [31, 41], [32, 45], [0, 90], [0, 93], [0, 96],
                       [50, 100], [60, 100], [70, 100]]).reshape(4, 3, 2) / 100  # fmt: skip
    latency = np.array([[0.25, 0.2, 0.3], [0.5, 0.4, 0.6], [0.375, 0.3, 0.4], [1.0, 0.9, 1.1]])
    made = {"data": "mine", "validated": 100, "tested": 50}
    costs = np.array([100, 100, 300, 900]), np.array([1000, 2000, 3000, 9000])
    return Table(FOUR, curves, np.arange(12).reshape(4, 3) / 50, *costs, latency, made)


@pytest.fixture(scope="module")
def shipped() -> Table:
    return load()


@pytest.fixture(scope="module")
def mnist(one_thread: None) -> Dataset:
    return data.mnist()


def equal(one: Table, other: Table) -> bool:
    arrays = ("curves", "test", "parameters", "flops", "latency")
    alike = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
    return alike and one.cells == other.cells and one.made == other.made


# The file


def test_what_is_saved_is_loaded(small: Table, tmp_path: Path) -> None:
    for path in (tmp_path / "table.npz", tmp_path / "another.name"):
        tables.save(small, path)
        found = load(path)
        assert equal(found, dataclasses.replace(small, latency=small.latency.astype(np.float32)))
        assert equal(load(str(path)), found)
        assert (found.seeds, found.epochs) == (3, 2)
        assert found.mean.tolist() == pytest.approx([0.21, 0.42, 0.93, 1.0])
    assert sorted(each.name for each in tmp_path.iterdir()) == ["another.name", "table.npz"]


def test_a_flipped_bit_anywhere_is_refused_or_means_nothing(small: Table, tmp_path: Path) -> None:
    """Nothing but such as the date of a part in the archive may differ without being noticed."""
    path = tmp_path / "table.npz"
    tables.save(small, path)
    whole, before = path.read_bytes(), load(path)
    with zipfile.ZipFile(path) as archive:
        parts = {each.filename: each.header_offset for each in archive.infolist()}
    assert {*parts} == {f"{name}.npy" for name in ("head", "right", "test_right", *COSTS)}
    refused = set()
    for at, bit in itertools.chain(((at, 1) for at in range(len(whole))), ((at, 32) for at in range(0, len(whole), 7))):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        try:
            assert equal(load(path), before), at
        except TableError as error:
            assert "\n" not in str(error)
            refused.add(at)
    for name, start in parts.items():
        contents = range(start + 30 + len(name), min([each for each in parts.values() if each > start] + [len(whole)]))
        assert len(refused.intersection(contents)) > 0.5 * len(contents)
    assert len(refused) > 0.6 * len(whole)


@pytest.mark.parametrize("cut", [0, 1, 10, 100, 0.3, 0.5, 0.9, -100, -1])
def test_a_file_that_is_cut_off_is_refused(small: Table, tmp_path: Path, cut: float) -> None:
    path = tmp_path / "table.npz"
    tables.save(small, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole)) if isinstance(cut, float) else cut])
    with pytest.raises(TableError, match=r"^path: .* is damaged, or no table; get it anew, or `make table`.$"):
        load(path)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other"
    sentence = f"^path: {re.escape(str(path))} is damaged, or no table; get it anew, or `make table`.$"
    for contents in (b"conv3 | skip conv1 | none pool\n" * 99, b"\x00" * 999, b"\x93NUMPY"):
        path.write_bytes(contents)
        with pytest.raises(TableError, match=sentence):
            load(path)
    arrays: list[dict[str, Any]] = [{"x": np.ones(3)}, {"head": np.ones(3)}, {"head": np.array("[]")}]
    for each in arrays:
        with path.open("wb") as file:
            np.savez(file, **each)
        with pytest.raises(TableError, match=sentence):
            load(path)
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(TableError, match=sentence):
        load(path)
    with pytest.raises(TableError, match=r"^path: .* is damaged, or no table"):
        load(tmp_path)  # a folder
    with pytest.raises(TableError, match=r"^path: there is no table .*missing.npz; `make table` trains one.$"):
        load(tmp_path / "missing.npz")
    with pytest.raises(TypeError, match=r"^path must be a path; got 3.$"):
        load(3)  # type: ignore[arg-type]


def test_a_table_of_another_version_or_space_is_refused(
    small: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.npz"
    monkeypatch.setattr(tables, "VERSION", 99)
    tables.save(small, path)
    monkeypatch.undo()
    sentence = rf"^path: .*table.npz is of version 99, this kit reads version {tables.VERSION}; get it anew"
    with pytest.raises(TableError, match=sentence):
        load(path)
    tables.save(small, path)
    for space in (FOUR[:3], FOUR[::-1], networks()):
        with monkeypatch.context() as patch:
            patch.setattr(tables, "networks", lambda space=space: space)
            with pytest.raises(TableError, match=r"^path: .*table.npz is of another space of cells; get it anew"):
                load(path)


def test_a_save_that_fails_leaves_the_old_table(small: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.npz"
    tables.save(small, path)
    before = path.read_bytes()

    def half(to: Any, **arrays: Any) -> None:
        Path(to).write_bytes(before[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", half)
    for there in (path, tmp_path / "new.npz"):
        with pytest.raises(OSError, match="no space left"):
            tables.save(small, there)
    assert path.read_bytes() == before
    assert not (tmp_path / "new.npz").exists()


# Limits


def test_limits_by_hand(small: Table) -> None:
    assert small.within().tolist() == [True] * 4
    assert small.within(flops=2000).tolist() == [True, True, False, False]  # the limit itself is kept
    assert small.within(flops=1999.9).tolist() == [True, False, False, False]
    assert small.within(parameters=300, latency=0.375).tolist() == [True, False, True, False]
    numpys: dict[str, Any] = {"parameters": np.int64(900), "latency": np.float32(1)}
    assert small.within(**numpys).tolist() == [True] * 4
    assert [small.costs(what).tolist() for what in COSTS] == [
        [100, 100, 300, 900], [1000, 2000, 3000, 9000], [0.25, 0.5, 0.375, 1.0],
    ]  # fmt: skip
    space = small.space(latency=0.5, parameters=300)
    assert space.names == ("cell",)
    assert list(space.parameters["cell"].values) == [str(cell) for cell in FOUR[:3]]  # type: ignore[union-attr]
    assert small.space().count == 4
    assert small.row(FOUR[2]) == 2
    assert small.row("conv1 | none none | skip none") == 2  # another cell of the same network


@pytest.mark.parametrize(
    ("limits", "error", "sentence"),
    [
        ({"flops": 999}, ValueError, "flops must be 1,000 or more, as of the smallest network; got 999."),
        ({"latency": 0.1}, ValueError, "latency must be 0.25 or more, as of the smallest network; got 0.1."),
        (
            {"latency": 0.4, "flops": 900}, ValueError,
            "flops must be 1,000 or more, as of the smallest network within the other limits; got 900.",
        ),
        ({"flops": 0}, ValueError, "flops must be above 0; got 0."),
        ({"flops": -5}, ValueError, "flops must be above 0; got -5."),
        ({"flops": float("nan")}, ValueError, "flops must be above 0; got nan."),
        ({"parameters": float("inf")}, ValueError, "parameters must be above 0; got inf."),
        ({"flops": "many"}, TypeError, "flops must be a number; got 'many'."),
        ({"flops": None}, TypeError, "flops must be a number; got None."),
        ({"flops": True}, TypeError, "flops must be a number; got True."),
        ({"energy": 3}, ValueError,
         "limits names energy, which cannot be limited; allowed: parameters, flops, latency."),
    ],
)  # fmt: skip
def test_limits_that_cannot_be_kept_are_refused(
    small: Table, limits: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    for call in (lambda: small.within(**limits), lambda: small.space(**limits),
                 lambda: search(small, Random(), budget=1, limits=limits)):  # fmt: skip
        with pytest.raises(error, match=f"^{re.escape(sentence)}$"):
            call()


def test_a_limit_that_leaves_nothing_to_choose_is_refused(small: Table) -> None:
    assert small.within(flops=1500).sum() == 1
    sentence = "flops and latency must leave two or more networks; only 'none | skip none | none skip' is left."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        small.space(flops=1500, latency=9)


def test_a_row_that_is_no_network_is_refused(small: Table) -> None:
    with pytest.raises(ValueError, match="cell must have 1, 2 and 2 operations"):
        small.row("conv3")
    with pytest.raises(ValueError, match="cell must lead from its input to its output"):
        small.row("conv3 | none none | none conv1")
    with pytest.raises(ValueError, match=r"^what must be one of parameters, flops, latency; got 'mean'.$"):
        small.costs("mean")
    sentence = f"cell must be of the {len(small.cells)} networks of the table; got 'conv3 | conv3 conv3 | conv3 conv3'."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        small.row("conv3 | conv3 conv3 | conv3 conv3")


# What a search reads


def test_a_trial_reads_one_training_and_the_retest_the_others(small: Table) -> None:
    for repeat, (row, cell) in itertools.product(range(12), enumerate(FOUR)):
        objective, config = small.objective(repeat), {"cell": str(cell)}
        seed = objective.seed(config)
        assert objective(config) == objective(config, epochs=2) == small.curves[row, seed, 1]
        assert objective(config, epochs=1) == small.curves[row, seed, 0]
        others = [small.curves[row, each, 1] for each in range(3) if each != seed]
        assert objective.retest(config) == pytest.approx(sum(others) / 2)
        if row == 0:  # another cell of the same network
            same = {"cell": "skip | none none | skip none"}
            assert (objective(same), objective.retest(same)) == (objective(config), objective.retest(config))
    drawn = Counter(small.objective(repeat).seed({"cell": str(cell)}) for repeat in range(300) for cell in FOUR)
    assert stats.chisquare([drawn[seed] for seed in range(3)]).pvalue > 1e-4


@pytest.mark.parametrize("config", [{"cell": "conv1 | none none | conv1 none"}, {"cell": "conv1"}, {"lr": 0.1}])
def test_a_configuration_that_is_not_in_the_table_is_refused(small: Table, config: Any) -> None:
    objective = small.objective()
    for call in (objective, objective.retest, objective.seed):
        with pytest.raises((ValueError, TypeError), match="^cell must "):
            call(config)


@pytest.mark.parametrize(("epochs", "error"), [(0, ValueError), (3, ValueError), (1.5, TypeError)])
def test_epochs_that_were_not_trained_are_refused(small: Table, epochs: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"^epochs must .*; got {epochs}"):
        small.objective()({"cell": str(FOUR[0])}, epochs=epochs)


def test_with_one_training_of_each_network_nothing_can_be_retested(small: Table) -> None:
    one = dataclasses.replace(small, curves=small.curves[:, :1])
    with pytest.raises(
        ValueError, match="^table must have two trainings or more of each network to retest one; got 1.$"
    ):
        search(one, Random(), budget=2)


@pytest.mark.parametrize("repeat", [-1, 0.5, "0", None])
def test_a_repeat_that_is_none_is_refused(small: Table, repeat: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^repeat must be"):
        small.objective(repeat)


def test_a_search_is_the_study_and_its_retests(small: Table) -> None:
    seen: list[int] = []
    found = search(small, Random(3), budget=3, repeat=5, on_trial=lambda trials: seen.append(len(trials)))
    objective = small.objective(5)
    trials = Study(small.space(), maximise=True).run(objective, Random(3), budget=3).trials
    assert [trial.config for trial in found.trials] == [trial.config for trial in trials]
    assert [trial.value for trial in found.trials] == [objective(trial.config) for trial in trials]
    assert (found.spent, seen) == ((2, 4, 6), [1, 2, 3])
    for at in range(3):
        best = max(trials[: at + 1], key=objective_of)
        assert found.incumbent[at] == best.number
        assert found.retested[at] == objective.retest(best.config)


def objective_of(trial: Any) -> float:
    return float(trial.value)


@pytest.mark.parametrize("method", [Random(1), Evolution(2, 1, 1), LocalSearch(1)])
@pytest.mark.parametrize("what", COSTS)
def test_every_method_keeps_the_limit_and_asks_nothing_twice(small: Table, method: Any, what: str) -> None:
    tried = [trial.config["cell"] for trial in search(small, method, budget=2, limits={what: LIMITS[what]}).trials]
    most = int(small.within(**{what: LIMITS[what]}).sum())
    assert len(set(tried)) == len(tried) == 2
    assert all(small.costs(what)[small.row(cell)] <= LIMITS[what] for cell in tried)
    with pytest.raises(ValueError, match=rf"^budget must lie in 1 .. {most}; got {most + 1}.$"):
        search(small, method, budget=most + 1, limits={what: LIMITS[what]})


def test_halving_spends_epochs(small: Table) -> None:
    """Of four networks that begin, two go on, and pay for their second epoch only."""
    method = SuccessiveHalving(min_epochs=1, max_epochs=2, eta=2, n=4)
    found = search(small, method, budget=3)
    assert [(trial.epochs, trial.spent) for trial in found.trials] == [(1, 1)] * 4 + [(2, 1)] * 2
    assert found.spent[-1] == 6 == 3 * small.epochs
    goes_on = {trial.config["cell"] for trial in found.trials[4:]}
    assert goes_on == {str(FOUR[1]), str(FOUR[3])}  # by their first epochs


@pytest.mark.parametrize("budget", [0, -1, 5])
def test_a_budget_beyond_the_space_is_refused(small: Table, budget: int) -> None:
    with pytest.raises(ValueError, match=rf"^budget must lie in 1 .. 4; got {budget}.$"):
        search(small, Random(), budget=budget)


def test_other_kinds_are_refused(small: Table) -> None:
    arguments: Any = {"table": "table", "method": Random(), "budget": 2}
    with pytest.raises(TypeError, match=r"^table must be a Table; got 'table'.$"):
        search(**arguments)
    with pytest.raises(TypeError, match=r"^budget must be a whole number; got 2.5.$"):
        search(**{**arguments, "table": small, "budget": 2.5})
    with pytest.raises(TypeError, match=r"^method must be one such as Random"):
        search(**{**arguments, "table": small, "method": Random})
    with pytest.raises(TypeError, match=r"^limits must be a dict, such as .*; got \[\('flops', 3000\)\].$"):
        search(**{**arguments, "table": small, "limits": [("flops", 3000)]})


def test_a_search_that_is_cancelled_says_so(small: Table) -> None:
    cancel = Event()
    with pytest.raises(training.Cancelled):
        search(small, Random(), budget=4, on_trial=lambda trials: cancel.set(), cancel=cancel)


# Training a network


def test_a_training_is_the_recipe(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SAMPLES", 150)
    cell = "conv3 | skip none | none pool"
    model, curve = train(digits, cell, 5, epochs=2)
    net = tables.network(digits, cell, 5)
    used = dataclasses.replace(digits, train=digits.part(150).train)
    training.fit(net, used, epochs=2, seed=5, optimiser="adam", lr=0.02, batch_size=50, schedule="one-cycle")
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), net.parameters(), strict=True))
    found = training.evaluate(net, digits.validation)
    assert len(curve) == 2
    assert curve[-1] == found.correct / len(digits.validation)
    assert (tables.part(digits).sizes_of(9999), net.patch, net.cell.formula) == ((150, 539), 1, "pool(x)")


def test_what_cannot_be_trained_is_refused(digits: Dataset, tiny: Dataset) -> None:
    for call in (tables.network, train):
        with pytest.raises(TypeError, match="^dataset must be a Dataset"):
            call("mnist", FOUR[0])  # type: ignore[arg-type]
        sentence = r"^dataset must be of images, channels x height x width; got samples of \(6,\).$"
        with pytest.raises(ValueError, match=sentence):
            call(tiny, FOUR[0])
        with pytest.raises(ValueError, match="cell must lead from its input to its output"):
            call(digits, "conv3 | none none | none conv1")
        with pytest.raises(ValueError, match="cell must be one of none, skip"):
            call(digits, "conv5 | none none | none conv1")
    with pytest.raises(ValueError, match="seed must be 0 or more; got -1"):
        train(digits, FOUR[0], -1)
    with pytest.raises(training.Cancelled):
        event = Event()
        event.set()
        train(digits, FOUR[0], cancel=event)


def test_patches_are_a_seventh_of_the_side(digits: Dataset) -> None:
    labels = np.arange(60) % 2
    for shape, patch in (((1, 28, 28), 4), ((3, 32, 32), 4), ((1, 6, 6), 1), ((2, 14, 40), 2)):
        images = data.from_arrays(np.random.default_rng(0).random((60, *shape)), labels)
        net = tables.network(images, FOUR[3], seed=3)
        assert (net.patch, net.in_channels) == (patch, shape[0])
        assert net(images.train.inputs[:5]).shape == (5, 2)


# The table that ships


def test_the_shipped_table_is_small_and_whole(shipped: Table) -> None:
    assert tables.PATH.stat().st_size < 2_000_000
    n = len(networks())
    assert shipped.cells == networks()
    assert (shipped.curves.shape, shipped.test.shape, shipped.latency.shape) == ((n, 3, 8), (n, 3), (n, 3))
    for accuracies, images in ((shipped.curves, 1500), (shipped.test, 1000)):
        right = accuracies * images
        np.testing.assert_allclose(right, right.round(), atol=1e-6)
        assert accuracies.min() > 0.02  # every training is there: all beat a fifth of chance even after one epoch
        assert accuracies.max() < 1
    low, high = shipped.latency[:, 1], shipped.latency[:, 2]
    assert ((low > 0) & (low <= shipped.latency[:, 0]) & (shipped.latency[:, 0] <= high)).all()


def test_the_shipped_table_says_how_it_was_made(shipped: Table, mnist: Dataset) -> None:
    made = shipped.made
    assert made["data"] == mnist.key
    assert (made["validated"], made["tested"]) == (len(mnist.validation), len(mnist.test))
    assert made["samples"] == tables.SAMPLES == len(tables.part(mnist).train)
    assert made["recipe"] == {"epochs": tables.EPOCHS, **tables.RECIPE}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", made["date"])
    assert made["seconds"] > 0
    assert {"python", "torch"} <= made["versions"].keys()
    json.dumps(dict(made))


def test_the_costs_are_those_of_the_networks(shipped: Table, mnist: Dataset) -> None:
    image = mnist.validation.inputs[:1]
    for row in np.random.default_rng(0).choice(len(shipped.cells), 40, replace=False).tolist():
        net = tables.network(mnist, shipped.cells[row])
        assert shipped.parameters[row] == sum(weight.numel() for weight in net.parameters())
        assert shipped.flops[row] == sizes.flops(net, image)
    convolutions = np.array([str(cell).count("conv3") for cell in shipped.cells])
    assert stats.spearmanr(shipped.latency[:, 0], shipped.flops).statistic > 0.5  # no noise alone
    assert stats.spearmanr(convolutions, shipped.mean).statistic > 0.5


SEED = 1000  # of trainings that the table has not seen
TRAINED = 20
RARE = 1 / 2500


def inside(table: Table, rows: np.ndarray, found: np.ndarray) -> int:
    """How many new trainings lie in the 95 % prediction intervals of the table's three, mean ± t(0.975; 2) s sqrt(4/3).

    Each network by its own deviation s. To pool them would make the intervals half as wide, but too narrow: the
    networks share the three seeds, so their errors are not independent, and have not as many degrees of freedom.
    """
    last = table.curves[rows, :, -1]
    half = stats.t.ppf(0.975, table.seeds - 1) * last.std(1, ddof=1) * np.sqrt(1 + 1 / table.seeds)
    return int((abs(found - last.mean(1)) <= half).sum())


def test_networks_trained_anew_lie_where_the_table_says(shipped: Table, mnist: Dataset) -> None:
    """Of 20 intervals at 95 % one misses on average; six or more miss once in 3,000 right tables.

    The intervals are wide, so their middles are tested, too: on average they are right, by a t test. Each training has
    a seed of its own: those of one seed see the batches in one order, and err together.
    """
    rows = np.random.default_rng(SEED).choice(len(shipped.cells), TRAINED, replace=False)
    found = np.array([train(mnist, shipped.cells[row], SEED + at)[1][-1] for at, row in enumerate(rows)])
    least = TRAINED - 5
    assert stats.binom.cdf(least - 1, TRAINED, 0.95) < RARE
    assert inside(shipped, rows, found) >= least
    assert stats.ttest_1samp(found - shipped.mean[rows], 0).pvalue > RARE
    for shift in (-0.08, 0.08):
        shifted = dataclasses.replace(shipped, curves=shipped.curves + shift)
        assert inside(shifted, rows, found) < least
        assert stats.ttest_1samp(found - shifted.mean[rows], 0).pvalue < RARE
    mixed_up = dataclasses.replace(shipped, curves=shipped.curves[::-1])
    assert inside(mixed_up, rows, found) < least


def test_a_training_of_the_table_comes_out_again(shipped: Table, mnist: Dataset) -> None:
    """Rounding of another processor moves the last epoch by a point or two, the first by a few tenths."""
    row = shipped.row("none | conv3 none | none conv3")
    curves, found = shipped.curves[row], np.array(train(mnist, shipped.cells[row], 0)[1])
    assert abs(found[0] - curves[0, 0]) < 0.02
    assert abs(found[-1] - curves[0, -1]) < 0.05
    assert (abs(curves[1:, 0] - found[0]) > 0.02).all()  # which other seeds do not keep
