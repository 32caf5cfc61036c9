"""Labels as a product: made for any model and problem set (`make`), written as datasets (`steps`, `dataset`, `card`).

Importing this package loads no torch; `make` does when it opens a model.
"""
