"""The order of hooks is torch's: those of all modules, then the module's own."""

import itertools

_global_forward_pre_hooks = {}
_ids = itertools.count()


class _Handle:
    def __init__(self, hooks, hook):
        self.hooks, self.id = hooks, next(_ids)
        hooks[self.id] = hook

    def remove(self):
        self.hooks.pop(self.id, None)


def register_module_forward_pre_hook(hook):
    return _Handle(_global_forward_pre_hooks, hook)


class Module:
    def __init__(self, *children):
        self._children = children
        self._forward_pre_hooks = {}
        self._forward_hooks = {}

    def children(self):
        return iter(self._children)

    def forward(self, x):
        for child in self._children:
            x = child(x)
        return x

    def register_forward_pre_hook(self, hook, *, prepend=False, with_kwargs=False):
        return _Handle(self._forward_pre_hooks, hook)

    def register_forward_hook(self, hook, *, prepend=False, with_kwargs=False, always_call=False):
        assert always_call
        return _Handle(self._forward_hooks, hook)

    def __call__(self, *inputs):
        for hook in (*_global_forward_pre_hooks.values(), *self._forward_pre_hooks.values()):
            hook(self, inputs)
        result = None
        try:
            result = self.forward(*inputs)
        finally:
            for hook in tuple(self._forward_hooks.values()):
                hook(self, inputs, result)
        return result
