"""README's own-model section does what it says: every line of it runs, in its order."""

from __future__ import annotations

import ast
import re
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from kit import board, data, training
from kit.data import Dataset
from kit.explorers.base import Explorer
from kit.models import ConvNet, ResNet
from tests.nets import same
from tests.notebooks.kernels import ROOT


def own_model() -> str:
    """The code block of the section."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Your own model")[2]
    (block,) = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    return str(block)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The names that the block has left, and the value of each line that is an expression, by its text."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("KIT_BOARD", str(folder / "board.sqlite"))
        images, labels = load_digits(return_X_y=True)
        np.savez("mine.npz", inputs=(images.reshape(-1, 8, 8, 1) * 15).astype(np.uint8)[:300], labels=labels[:300])
        names: dict[str, Any] = {
            "MyNet": lambda: ConvNet(channels=(4, 8), hidden=16),
            "my_sentences": [f"{word} is number {at}" for at in range(30) for word in ("one", "two")],
            "my_labels": ["odd", "even"] * 30,
            "my_objective": lambda config: -((config["lr"] - 0.1) ** 2) - config["depth"],
        }
        values: dict[str, Any] = {}
        try:
            for statement in ast.parse(own_model()).body:
                text = ast.unparse(statement)
                if isinstance(statement, ast.Expr):
                    values[text] = eval(compile(ast.Expression(statement.value), "README.md", "eval"), names)
                else:
                    exec(compile(ast.Module([statement], []), "README.md", "exec"), names)
            yield names, values, folder
        finally:
            for made in [*names.values(), *values.values()]:
                if isinstance(made, Explorer):
                    made.close()


def test_the_block_leaves_what_its_comments_say(ran: Any) -> None:
    names, values, folder = ran
    mine: Dataset = names["mine"]
    assert (mine.input_shape, mine.n_classes) == ((1, 8, 8), 10)
    profile, table, code = values["(explorer.profile, explorer.table(), explorer.code())"]
    assert profile.nonzeros < 0.2 * profile.parameters and "magnitude" in set(table["curve"])
    assert code.endswith(".set(ratio=0.9, seed=3)")
    names["explorer"].wait(300)
    assert list(board.frame(mine.key)["name"]) == ["mine, 90 %"]
    study = names["study"]
    assert len(study.trials) == 30 and (folder / "search.sqlite").exists()
    walk, tuned = names["walk"], names["tuned"]
    assert len(walk.trials) == 10 and walk.best.value < walk.trials[0].value
    assert not same(tuned, names["untrained"])
    trace, sliced = values["(history(study), slices(study))"]
    assert trace.data and sliced.data


def test_what_it_saves_comes_back(ran: Any) -> None:
    names, values, folder = ran
    for name in ("smaller", "thinner"):
        path = f"{name}.safetensors"
        assert same(values[f"prune.load_smaller(MyNet(), '{path}')"], names[name]), name
    small, thin = ((folder / f"{name}.safetensors").stat().st_size for name in ("smaller", "thinner"))
    dense = names["measure"].dense_bytes(names["my_model"])
    assert small < 0.5 * dense and thin < 0.5 * dense
    fresh, made = names["MyNet"](), names["small"]
    names["compress"].load_into(fresh, folder / "small.kit")
    assert same(fresh, made.model)
    assert (folder / "small.kit").read_bytes() == made.data and len(made.data) < 0.1 * dense


def test_what_its_comments_offer_instead_runs_too(ran: Any) -> None:
    names, _, folder = ran
    block, mine = own_model(), names["mine"]
    assert "or from_arrays(images, labels)" in block and 'files.load_into(my_model, "mine.safetensors")' in block
    with np.load(folder / "mine.npz") as file:
        again = data.from_arrays(np.moveaxis(file["inputs"], 3, 1), file["labels"])
    assert again.fingerprint == mine.fingerprint
    compress, model = names["compress"], names["my_model"]
    assert "or share(my_model, 16), low_rank(my_model, budget=0.3)" in block
    assert "align(b," in block and "to=a, dataset=mine)" in block
    offered = [compress.share(model, 16), compress.low_rank(model, budget=0.3).model]
    offered += [
        compress.fold(ResNet(widths=(4,)), mine).model,
        compress.align(names["other"], to=model, dataset=mine).model,
    ]
    assert all(training.predict(each, mine.validation.inputs).isfinite().all() for each in offered)
    assert "prune.weights(my_model, ratio=0.9)" in block
    assert same(names["prune"].weights(names["my_model"], ratio=0.9), names["smaller"])
    names["files"].write(names["my_model"], folder / "mine.safetensors", sparse=False)
    fresh = names["MyNet"]()
    names["files"].load_into(fresh, folder / "mine.safetensors")
    first = mine.validation.inputs[:8]
    assert training.predict(fresh, first).equal(training.predict(names["my_model"], first))
