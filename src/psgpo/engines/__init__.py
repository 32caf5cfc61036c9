"""Other people's trainers. A room of adapters: they translate, and call psgpo's own functions for every number."""
