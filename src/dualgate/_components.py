"""None, an alias or an instance: the three ways to name a component, and what `fit` makes of them."""

from sklearn.base import clone

from dualgate._validation import owner_name


def realise(owner, name, value, *, default, base, aliases=None, others=()):
    """Return a fresh component for the parameter `name` of `owner`.

    None makes `default()`, a string is looked up in `aliases`, an instance of `base` (a type or several) is cloned.
    `others` are further values of the parameter, for which no component is made; messages name them.
    """
    aliases = aliases or {}
    if value is None:
        return default()
    if isinstance(value, str) and value in aliases:
        return aliases[value]()
    if isinstance(value, base):
        return clone(value)
    known = ", ".join(map(repr, sorted([*aliases, *others])))
    raise ValueError(
        f"{owner_name(owner)}.{name}={value!r} must be None{', one of ' + known if known else ''} or an instance "
        f"of {(base[0] if isinstance(base, tuple) else base).__name__}."
    )


class NestedParams:
    """Let `set_params` reach inside a component that is still None or an alias.

    A subclass offers `_realise(name)`, a fresh component for one of the parameters in `_component_names`. The
    component is made real (a clone, so that an object of the caller's stays as it was) when a parameter of it is set.
    """

    _component_names = ()

    def set_params(self, **params):
        """Set parameters of this estimator and, by `component__parameter`, of its components.

        Parameters
        ----------
        **params : dict
            Parameters by name. `quality_gate__hidden=(8,)` works on the plain default object.

        Returns
        -------
        self : object
        """
        direct = {name: value for name, value in params.items() if "__" not in name}
        super().set_params(**direct)
        reached = {name.partition("__")[0] for name in params if "__" in name}
        for name in sorted(reached.intersection(self._component_names)):
            if getattr(self, name) == "drop":
                raise ValueError(
                    f"{owner_name(self)}.{name}='drop' has no parameters: set {name}=None, or to an instance, together "
                    f"with {', '.join(each for each in sorted(params) if each.startswith(name + '__'))}."
                )
            setattr(self, name, self._realise(name))
        return super().set_params(**{name: value for name, value in params.items() if "__" in name})
