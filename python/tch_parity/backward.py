"""What backward left of a step goes into the case. It knows a case and gradients, and no hooks."""

from .names import FACTOR, OUTPUT, escaped, of_module


def push_gradients(case, gradients, modules, parameters, inputs):
    """In the order in which backward computes them: each output's, then its module's own parameters'.

    modules     the recorded modules by name
    parameters  those of the model as they are now, with their names
    inputs      the names of the inputs that require a gradient
    """
    def push(name, gradient):
        if gradient is None:
            case.leave_out([f"grad/{name}"], gradients.failed.get(name, "backward computed none"))
        else:
            case.keep("grad/", gradient)

    expected = {name: p for name, p in parameters if p.requires_grad or name in gradients.leaves}
    for call in reversed(gradients.of_outputs):
        for name, gradient in reversed(call.gradients.items()):
            push(name, gradient)
        for own in modules[call.module]._parameters:
            full = of_module(own) if call.module == OUTPUT else f"{call.module.removeprefix('.')}.{escaped(own)}"
            if expected.pop(full, None) is not None:
                push(full, gradients.of_leaf(full))
    for name in [*expected, *inputs]:
        push(name, gradients.of_leaf(name))
    factor = gradients.factor() if gradients.taken and case.of_digests else None
    if factor is not None:
        case.trace.push(case.prefix + FACTOR, factor)
        case.factor = factor
    for gradient in gradients.taken.values():
        case.keep("taken/", gradient)
    for name, why in gradients.failed.items():
        if name.startswith("taken/"):
            case.leave_out([name], why)
