"""The store: desired state, bindings and transitions. SQLite is the embedded engine; others stand behind the same functions."""

from controller.act.store.history import ACCEPTED, Actor, Bounds, Event, Kept, Noted, Operation, named
from controller.act.store.records import Records
from controller.act.store.sqlite import Committed, Store, StoreSize

__all__ = [
    "ACCEPTED",
    "Actor",
    "Bounds",
    "Committed",
    "Event",
    "Kept",
    "Noted",
    "Operation",
    "Records",
    "Store",
    "StoreSize",
    "named",
]
