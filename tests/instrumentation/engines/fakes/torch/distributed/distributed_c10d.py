store = None
rank = -1
world_size = -1


def _get_default_store():
    return store
