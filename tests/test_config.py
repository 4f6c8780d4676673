import json

import pytest
from torch import nn

from pmam_plugin.config import configurable, from_config, to_config
from pmam_plugin.errors import InputError


class Leaf(nn.Module):
    def __init__(self, width: int, names: tuple[str, ...] = ("a",)) -> None:
        super().__init__()
        self.width, self.names = width, names


Leaf.__module__ = "pmam_plugin.nn.test_leaf"
Leaf = configurable(Leaf)


class Tree(nn.Module):
    def __init__(self, left: Leaf, **others: Leaf) -> None:
        super().__init__()
        self.left, self.others = left, nn.ModuleDict(others)


Tree.__module__ = "pmam_plugin.nn.test_tree"
Tree = configurable(Tree)


def test_objects_survive_json():
    tree = Tree(Leaf(3, names=("x", "y")), right=Leaf(5))
    config = json.loads(json.dumps(to_config(tree)))
    again = from_config(config)
    assert to_config(again) == config
    assert again.left.width == 3
    assert again.others["right"].width == 5


def test_recorded_arguments_are_no_second_submodules():
    tree = Tree(Leaf(3))
    assert [name for name, _ in tree.named_children()] == ["left", "others"]


def test_a_subclass_records_its_own_arguments_only():
    class Narrow(Leaf):
        def __init__(self) -> None:
            super().__init__(width=1)

    Narrow.__module__ = "pmam_plugin.nn.test_narrow"
    assert to_config(configurable(Narrow)()) == {"type": "Narrow"}


@pytest.mark.parametrize("name", ["Popen", "os.system", 7, "FineTune"])
def test_only_model_parts_of_this_package_can_be_built(name):
    with pytest.raises(InputError, match="unknown architecture"):
        from_config({"type": name})


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="Leaf"):
        from_config({"type": "Leaf", "width": 2, "depth": 3})


def test_what_cannot_be_written_is_named():
    with pytest.raises(TypeError, match="object"):
        to_config({"x": object()})
