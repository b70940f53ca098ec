"""What the four kinds of components have in common: a configuration and a state."""
from __future__ import annotations

from typing import Any, ClassVar, Literal

from . import _tensors
from ._data import Array, Params, State
from ._errors import ConfigError, TensorError

KEPT = "persistent."


class Component:
    """The base of Model, Dataset, Aggregator and Filter.

    `Config`, a dataclass (or a model of pydantic) within the class, says which keys the table of the experiment has; a
    field `learning_rate` is the key `learning-rate`. Before `__init__` is called, `config` is set.
    """

    #: What arrays are: `"numpy"`, or `"torch"` for tensors of torch.
    arrays: ClassVar[Literal["numpy", "torch"]] = "numpy"
    #: The configuration.
    config: Any
    #: What a checkpoint keeps of this object besides a model's parameters: arrays, tensors, and values that JSON has. Put
    #: here what must survive from one call to the next.
    persistent: dict[str, Any]

    def _prepare(self, config: Any) -> None:
        """Before `__init__`, so that a class need not call its base's."""
        self.config = config
        self.persistent = {}

    def state(self) -> State:
        """What `restore` needs: by default, what is in `persistent`."""
        kept = {name: value for name, value in self.persistent.items() if _is_array(value)}
        values = {name: value for name, value in self.persistent.items() if name not in kept}
        state = State(Params({KEPT + name: value for name, value in kept.items()}))
        if values:
            state.values["persistent"] = values
        torch = [name for name, value in kept.items() if _tensors.is_torch(value)]
        if torch:
            state.values["torch"] = torch
        if state.tensors:
            state.values["tensors"] = list(state.tensors)
        return state

    def restore(self, state: State) -> None:
        """Restores the state of an object of the same class and configuration. After an error nothing has changed."""
        self.persistent = self._restored(state, known=("persistent", "torch", "tensors"), own=())

    def _restored(self, state: State, known: tuple[str, ...], own: tuple[str, ...]) -> dict[str, Any]:
        """What was in `persistent`. `own` are the prefixes of other tensors that the state may have, `known` its values."""
        for name in state.values:
            if name not in known:
                raise ConfigError(f"the checkpoint has the value `{name}`, which is not of this class")
        listed = state.values.get("tensors", [])
        for name in listed:
            if name not in state.tensors:
                raise TensorError(name, "is missing from the checkpoint")
        for name in state.tensors:
            if name not in listed or not name.startswith((KEPT, *own)):
                raise TensorError(name, "is in the checkpoint, but is not of this class")
        torch = state.values.get("torch", [])
        kept = dict(state.values.get("persistent", {}))
        for name, value in state.tensors.items():
            if name.startswith(KEPT):
                name = name[len(KEPT):]
                kept[name] = _own(value, "torch" if name in torch else "numpy")
        return kept


def _own(value: Array, kind: str) -> Array:
    if _tensors.is_torch(value):
        return value.detach().clone() if kind == "torch" else _tensors.copy(_tensors.plain(value))
    return _tensors.as_kind(_tensors.copy(value), kind)


def _is_array(value: Any) -> bool:
    return _tensors.is_torch(value) or (hasattr(value, "dtype") and hasattr(value, "shape"))
