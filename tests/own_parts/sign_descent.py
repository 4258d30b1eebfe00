"""An optimizer: each weight moves by the rate, downhill."""

from zelo.training.optimization import Optimizer


class SignDescent(Optimizer):
    def create(self, parameters, scaled):
        import torch

        class Sign(torch.optim.SGD):
            def step(self, closure=None):
                loss = closure()
                for group in self.param_groups:
                    for parameter in group["params"]:
                        if parameter.grad is not None:
                            parameter.data -= group["lr"] * parameter.grad.sign()
                return loss

        return Sign(parameters, lr=self.lr)
