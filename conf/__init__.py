"""nginx's configuration language: text -> statements -> frozen configuration objects.

This package knows the grammar, the one validation gate and the rules of inheritance; what a
directive means stands beside the code that uses it (see `headgate.conf.modules` for the list).
"""
