"""Places in nested mappings and lists."""


def places(node, path=()):
    """Paths of all values of nested mappings and lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def slots(node):
    """(mapping or list, key) of all values of nested mappings and lists."""
    return [(at(node, path[:-1]), path[-1]) for path in places(node)]


def at(node, path):
    """What is at the end of a path."""
    for key in path:
        node = node[key]
    return node
