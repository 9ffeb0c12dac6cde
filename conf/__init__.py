"""The configuration: one folder a group, one yaml a choice. (A package, so that Hydra finds it in an editable
install.)
"""
