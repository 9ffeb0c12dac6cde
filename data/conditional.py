"""The conditional p(x | y) of a data set, as a data set."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from scoresde.data.base import Data
from scoresde.data.condition import LABELS, Condition, classes_of, units_of


class Conditional(Data):
    """p(x | y) of a data set: its examples x, each with its y.

    Arguments:
        joint: the data set.
        key: ``labels``, the classes of its examples; or names or numbers of columns. Columns of the joint's examples
            are then left out of x; :class:`scoresde.data.Arrays` also finds other columns and arrays of its file.

    Raises:
        ValueError: the data have no such labels or columns, all training labels are equal, or no column would be left
            in x.

    Attributes:
        joint: as given.
        condition: the y of every example, a :class:`scoresde.data.Condition`.
        columns: the joint's columns that are y; None for labels, empty for numbers that are no columns of the joint.
        kept: the joint's columns that are x; None where all of them are.
        names: the names of x's columns; None where they have none.
        values: (K,) the joint's label of each class; only where y is a label.
    """

    def __init__(self, joint: Data, key: str | int | list[str | int]):
        self.joint, self.columns, self.kept = joint, None, None
        self.class_names, self.notes = joint.class_names, joint.notes
        self.held_out_keys, self.conditional_keys, self.flip = joint.held_out_keys, joint.conditional_keys, joint.flip
        self.names = joint.labels()
        unchanged = {"train_labels": joint.train_labels, "test_labels": joint.test_labels, "shuffle": False}
        if key == LABELS:
            super().__init__(joint.train, joint.test, joint.shift, joint.scale, joint.levels, **unchanged)
            self.condition, self.values = classes_of(joint), torch.cat([joint.train_labels, joint.test_labels]).unique()
            return
        keys = key if isinstance(key, list) else [key]
        if not keys:
            raise ValueError("data.condition=[] names no columns; type data.condition=[NAME], or leave it out")
        train, test, names, self.columns = joint.condition_values(keys)
        if joint.notes:
            self.notes = (*joint.notes, f"y is {', '.join(names)}")
        kept = [j for j in range(joint.dim) if j not in self.columns] if self.columns else None
        if kept is not None and not kept:
            raise ValueError(f"data.condition={keys} names every column: nothing is left to learn; name fewer")
        at = slice(None) if kept is None else kept
        shift, scale = (v if kept is None else v.expand(joint.shape)[at] for v in (joint.shift, joint.scale))
        super().__init__(joint.train[:, at], joint.test[:, at], shift, scale, joint.levels, **unchanged)
        if kept is not None and self.names:
            self.names = [self.names[j] for j in kept]
        units = units_of(joint, self.columns, train, names)
        self.kept, self.condition = kept, Condition(train, test, tuple(names), False, *units)

    def asking(self, value: Any) -> "Conditional":
        """Returns a copy with ``condition=value``; for classes, with the examples of these classes only.

        Raises:
            FileNotFoundError, ValueError: as :meth:`Condition.asking`, or one part has no example of these classes.
        """
        twin = object.__new__(Conditional)
        twin.__dict__ = dict(self.__dict__)
        condition = self.condition.asking(value)
        if condition.classes:
            parts = {}
            for part in ("train", "test"):
                rows = torch.isin(getattr(condition, part), condition.asked)
                setattr(twin, part, getattr(self, part)[rows])
                setattr(twin, f"{part}_labels", getattr(self, f"{part}_labels")[rows])
                parts[part] = getattr(condition, part)[rows]
            condition = replace(condition, **parts)
            for part, name in (("train", "training"), ("test", "held-out")):
                if not len(getattr(twin, part)):
                    raise ValueError(
                        f"condition={value}: no {name} example has this label, so nothing can be learnt or measured; "
                        f"choose another, or another data.seed"
                    )
        twin.condition = condition
        return twin

    def without(self, columns: list[int]) -> str | None:
        """Returns what to type so that these columns of x are not learnt; None where no key says so."""
        if not self.columns:
            return self.joint.without(columns)
        # data.key= must then name neither the columns that are y nor those to leave out of x
        return self.joint.without([*self.columns, *(self.kept[j] for j in columns)])

    def given(self, columns: list[int]) -> str | None:
        """Returns what to type so that these columns of x join the condition; None where no key says so."""
        if not self.columns or len(columns) == self.dim:
            return None
        return self.joint.given([*self.columns, *(self.kept[j] for j in columns)])

    def true_log_prob(self, r: Tensor, y: Tensor | None = None) -> Tensor | None:
        """Returns the exact log p(r | y) in nats and data units, (B, *) and y (B,) or (B, C) to (B,); None where it is
        unknown. By default y is the one that ``condition=`` names.
        """
        if y is None:
            if (y := self.single) is None:
                return None
            y = y.expand(len(r), *y.shape[1:])
        if self.condition.classes:
            return self.joint.class_log_prob(r, self.values[y.cpu()])
        if not self.columns:
            return None
        log_prob_of_y = self.joint.marginal_log_prob(y.to("cpu", torch.float64), self.columns)
        if log_prob_of_y is None:
            return None
        whole = torch.empty(len(r), self.joint.dim, dtype=torch.float64)
        whole[:, self.kept], whole[:, self.columns] = r.to("cpu", torch.float64), y.to("cpu", torch.float64)
        return self.joint.true_log_prob(whole) - log_prob_of_y

    @property
    def single(self) -> Tensor | None:
        """The one y that ``condition=`` names, (1,) or (1, C); None where it names several or none."""
        return self.condition.single

    def components(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Returns the components of p(x | y) where ``condition=`` names one y, else those of p(x); in model units, or
        None where they are unknown.
        """
        components = self.joint.components()
        if components is None or not self.condition.classes and not self.columns:
            return None
        weights, means, stds = components
        means = means if self.condition.classes else means[:, self.kept]
        if self.single is not None:
            weights = (weights.log() + self.evidence(self.condition.encode(self.single))[0]).softmax(0)
            possible = weights > 0  # a class leaves one component
            weights, means, stds = weights[possible], means[possible], stds[possible]
        return weights, means, stds

    def evidence(self, y: Tensor) -> Tensor:
        """Returns log p(y | k) of the joint's components k up to a constant, (B, K), for y (B, width) as a network
        takes it. The joint must have components; for classes, its label j is component j.
        """
        if self.condition.classes:
            whole = y.new_zeros(len(y), len(self.joint.components()[0]))
            whole[:, self.values.to(y.device)] = y[:, :-1]
            return whole.log()
        _, means, stds = (values.to(y) for values in self.joint.components())
        square = (y[:, None, :-1] - means[:, self.columns]).square().sum(-1)
        return -square / (2 * stds.square()) - len(self.columns) * stds.log()

    def labels(self) -> list[str] | None:
        return self.names

    def fingerprint(self) -> str | None:
        return self.joint.fingerprint()
