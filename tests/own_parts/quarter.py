"""A schedule: a quarter of the rate, always."""

from zelo.training.optimization import Schedule


class Quarter(Schedule):
    def factor(self, step, steps):
        return 0.25
