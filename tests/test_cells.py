"""Cells: their texts, which of them are the same network, and which are one operation away from each other."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from kit import models
from kit.cells import EDGES, NAMES, OPERATIONS, OUTPUT, Cell, all_cells, as_cell, networks, parse

ALL = tuple(all_cells())
WHAT_ARRIVES_NOWHERE = "cell must lead from its input to its output; in '{}' nothing arrives."


@cache
def values() -> dict[Cell, tuple[float, ...] | None]:
    """What each cell makes of one input, where operations are random functions; None where nothing arrives.

    Each convolution has a function of its own, since it has weights of its own. Which one it gets must not matter, so
    the answers are those of all 120 ways to hand them out, sorted.
    """
    rng = np.random.default_rng(0)
    slope, shift = rng.normal(size=(2, len(OPERATIONS), len(EDGES)))
    orders = np.array(list(itertools.permutations(range(len(EDGES)))))  # [120, 5]
    found: dict[Cell, tuple[float, ...] | None] = {}
    for cell in ALL:
        nodes: list[list[np.ndarray]] = [[np.full(len(orders), 0.7)], [], [], []]  # what is added up
        for at, ((start, end), name) in enumerate(zip(EDGES, cell.operations, strict=True)):
            if name != "none" and nodes[start]:
                own = orders[:, at] if name.startswith("conv") else 0
                kind, came = OPERATIONS.index(name), np.sum(nodes[start], 0)
                nodes[end].append(came if name == "skip" else np.tanh(slope[kind, own] * came + shift[kind, own]))
        output = np.sort(np.sum(nodes[OUTPUT], 0)) if nodes[OUTPUT] else None
        found[cell] = None if output is None else tuple(np.round(output, 9).tolist())
    return found


def test_edges_run_forward_and_the_output_is_not_tied_to_the_input() -> None:
    assert tuple(each for each in itertools.combinations(range(4), 2) if each != (0, 3)) == EDGES
    assert NAMES == ("0-1", "0-2", "1-2", "1-3", "2-3")
    assert len(set(ALL)) == len(ALL) == len(OPERATIONS) ** len(EDGES) == 3125


def test_texts_are_read_as_they_are_written() -> None:
    assert all(parse(str(cell)) == cell for cell in ALL)
    cell = parse(" conv3|skip   conv1 |\tnone pool\n")
    assert str(cell) == "conv3 | skip conv1 | none pool"
    assert dict(zip(EDGES, cell.operations, strict=True)) == {
        (0, 1): "conv3", (0, 2): "skip", (1, 2): "conv1", (1, 3): "none", (2, 3): "pool",
    }  # fmt: skip
    assert as_cell(str(cell)) == as_cell(cell) == cell


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("conv3 | none skip | none skip", "conv3(x)"),
        ("conv3 | pool none | skip skip", "conv3(x) + pool(x)"),
        ("conv3 | skip conv1 | none pool", "pool(conv1(conv3(x)) + x)"),
        ("skip | skip skip | skip conv1", "conv1(x + x) + x"),
        ("conv1 | none none | none conv3", "0"),
        ("conv1 | skip none | none conv3", "conv3(x)"),
    ],
)
def test_formulas_by_hand(text: str, formula: str) -> None:
    assert parse(text).formula == formula
    assert parse(text).is_connected == (formula != "0")


@pytest.mark.parametrize(
    "text",
    [
        "", "|", "||", "conv3", "conv3 | skip conv1", "conv3 skip conv1 none pool", " | skip conv1 | none pool",
        "conv3 | skip conv1 | none", "conv3 | skip conv1 | none pool skip",
        "conv3 skip | conv1 | none pool", "conv3 | skip conv1 | none pool | skip", "conv3, skip conv1, none pool",
    ],
)  # fmt: skip
def test_a_text_of_another_form_is_refused(text: str) -> None:
    sentence = f"cell must have 1, 2 and 2 operations, such as 'conv3 | skip conv1 | none pool'; got {text!r}."
    for refuse in (parse, as_cell, models.CellNet):
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            refuse(text)


@pytest.mark.parametrize("name", ["conv5", "Conv3", "max", "0", "conv3x3", "nоne"])  # the last has a Cyrillic o
def test_an_unknown_operation_is_refused(name: str) -> None:
    sentence = f"must be one of none, skip, pool, conv1, conv3; got '{name}'."
    with pytest.raises(ValueError, match=f"^cell {re.escape(sentence)}$"):
        parse(f"conv3 | skip {name} | none pool")
    with pytest.raises(ValueError, match=f"^operations {re.escape(sentence)}$"):
        Cell(("conv3", "skip", name, "none", "pool"))


@pytest.mark.parametrize("given", [("skip",) * 4, ("skip",) * 6, ["skip"] * 5, "skip", None, ()])
def test_other_than_five_operations_are_refused(given: Any) -> None:
    sentence = f"operations must be a tuple of 5, one for each edge; got {given!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Cell(given)


@pytest.mark.parametrize("given", [None, 3, ("skip",) * 5, b"skip | skip skip | skip skip"])
def test_what_is_no_text_is_refused(given: Any) -> None:
    for refuse, wanted in ((parse, "a text"), (as_cell, "a Cell or its text"), (models.CellNet, "a Cell or its text")):
        with pytest.raises(TypeError, match=f"^cell must be {wanted}; got {re.escape(repr(given))}.$"):
            refuse(given)


@pytest.mark.parametrize("text", ["none | none none | none none", "conv3 | none none | none conv1"])
def test_where_nothing_arrives_is_refused(text: str) -> None:
    assert parse(text).canonical == parse(text)
    for given in (text, parse(text)):
        for refuse in (as_cell, models.CellNet):
            with pytest.raises(ValueError, match=f"^{re.escape(WHAT_ARRIVES_NOWHERE.format(text))}$"):
                refuse(given)


def test_it_is_connected_where_a_path_leads_through() -> None:
    for cell in ALL:
        steps = np.eye(4, dtype=int)
        steps[tuple(zip(*EDGES, strict=True))] = [name != "none" for name in cell.operations]
        leads = np.linalg.matrix_power(steps, 3)[0, OUTPUT] > 0
        assert cell.is_connected == leads == (values()[cell] is not None)


def test_equal_formulas_are_the_same_function_and_others_are_not() -> None:
    """3,125 cells fall into the same classes by their formulas and by the numbers that they compute."""
    by_formula, by_value = defaultdict(set), defaultdict(set)
    for cell, value in values().items():
        by_formula[cell.formula].add(cell)
        by_value[value].add(cell)
    assert set(map(frozenset, by_formula.values())) == set(map(frozenset, by_value.values()))
    assert len(by_value) - 1 == len(networks()) == 1217
    assert {cell.formula for cell in networks()} == by_formula.keys() - {"0"}


def test_the_canonical_cell_stands_for_its_class() -> None:
    assert {cell.canonical for cell in ALL if cell.is_connected} == set(networks())
    for cell in ALL:
        assert cell.canonical.canonical == cell.canonical
        assert cell.canonical.formula == cell.formula
        assert cell.canonical.operations.count("none") >= cell.operations.count("none")


def test_a_network_computes_what_any_of_its_cells_says() -> None:
    """With equal weights wherever an operation is equal, the network of the canonical cell is the cell's own graph."""
    x = torch.rand(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    parts: dict[str, nn.Module] = {name: models.cell_operation(name, 4) for name in OPERATIONS if name != "none"}
    for part in parts.values():
        for weight in part.parameters():
            nn.init.normal_(weight, generator=generator)
    rng = np.random.default_rng(0)
    for number in rng.choice(len(ALL), 50, replace=False):
        cell = ALL[number]
        if cell.is_connected:
            graph = models.CellGraph(cell.canonical, 4)
            for name, operation in zip(NAMES, cell.canonical.operations, strict=True):
                if operation != "none":
                    graph.edges[name].load_state_dict(parts[operation].state_dict())
            nodes: list[Tensor | None] = [x, None, None, None]
            for (start, end), operation in zip(EDGES, cell.operations, strict=True):
                before, there = nodes[start], nodes[end]
                if operation != "none" and before is not None:
                    came = parts[operation](before)
                    nodes[end] = came if there is None else there + came
            wanted = nodes[OUTPUT]
            assert wanted is not None
            torch.testing.assert_close(graph(x), wanted, rtol=1e-4, atol=1e-4)


def test_neighbours_are_what_one_changed_operation_makes_of_any_cell_of_the_network() -> None:
    """By brute force over all pairs of cells that differ in one operation, told apart by their numbers."""
    wanted = defaultdict(set)
    name_of = {values()[cell]: cell for cell in networks()}
    value_of = {cell.operations: value for cell, value in values().items()}
    for operations, value in value_of.items():
        for at, operation in itertools.product(range(5), OPERATIONS):
            other = value_of[(*operations[:at], operation, *operations[at + 1 :])]
            if other is not None and other != value:
                wanted[value].add(name_of[other])
    for cell in networks():
        found = cell.neighbours()
        assert len(found) == len(set(found))
        assert set(found) == wanted[values()[cell]]
    for cell in ALL[::7]:
        assert cell.neighbours() == cell.canonical.neighbours()


def test_neighbours_are_mutual_and_lead_everywhere() -> None:
    at = {cell: number for number, cell in enumerate(networks())}
    graph = np.zeros((len(at), len(at)), bool)
    for cell in networks():
        graph[at[cell], [at[other] for other in cell.neighbours()]] = True
    assert (graph == graph.T).all()
    assert not graph.diagonal().any()
    assert connected_components(graph)[0] == 1


def test_what_leads_nowhere_has_neighbours_that_lead_through() -> None:
    assert set(map(str, parse("conv3 | none none | none none").neighbours())) == {
        str(parse(f"conv3 | none none | {name} none").canonical) for name in OPERATIONS[1:]
    }
