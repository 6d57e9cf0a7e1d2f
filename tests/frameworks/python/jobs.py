"""What workers are asked to do. They import it by name, so that it is no part of the program that runs."""


def add(x, y):
    return x + y


def fail():
    raise ValueError("meant to fail")
