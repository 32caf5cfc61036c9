"""First errors in code: which line is the first wrong one, or is the program right? See docs/firsterror.md."""

from psgpo.firsterror.items import Item, load_items

__all__ = ["Item", "load_items"]
