"""nginx's variables by name while the server runs, for `r.variables`."""

from typing import TYPE_CHECKING

from headgate.conf.errors import ConfError
from headgate.conf.template import Getter, Variables

if TYPE_CHECKING:
    from headgate.worker.http.request import Request


class Known:
    """The variables of one configuration; what a name means is looked up once."""

    __slots__ = ("_getters", "_variables")

    def __init__(self, variables: Variables) -> None:
        self._variables = variables
        self._getters: dict[str, Getter] = {}

    def getter(self, name: str) -> Getter:
        """How to read a variable, by its name in lower case. Raises KeyError for a name that nothing defines."""
        getter = self._getters.get(name)
        if getter is None:
            try:
                getter = self._variables.lookup(name)
            except ConfError:
                raise KeyError(name) from None
            if len(self._getters) < 1024:
                self._getters[name] = getter
        return getter

    def assign(self, r: "Request", name: str, value: bytes | None) -> None:
        """Set a variable, as `set` does. Raises KeyError (unknown) or AttributeError (it cannot be set)."""
        variable = self._variables.known.get(name)
        if variable is None:
            raise KeyError(name)
        if variable.set is not None:
            variable.set(r, value or b"")
        elif variable.changeable:
            r.vars[name] = value
        else:
            raise AttributeError(f"the variable ${name} cannot be set")

    def names(self) -> list[str]:
        """All names but those, like http_x, of which there are any number."""
        return list(self._variables.known)
