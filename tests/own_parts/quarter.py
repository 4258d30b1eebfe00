"""A schedule: after the warm-up a quarter of the rate."""

from zelo.training.optimization import Schedule


class Quarter(Schedule):
    def after_warmup(self, left):
        return 0.25
