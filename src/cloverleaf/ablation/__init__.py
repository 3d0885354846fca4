"""Variations of a model or a recipe, several seeds each, and one table that says which differences are not chance.

A study file (`study`, `values`) becomes runs, and steps that must be there first, checked before the first one starts
(`plan`, `prepare`, `check`); ordinary run folders made by `cloverleaf train` and `pretrain` in processes of their own
(`work`, `launch`); numbers (`results`, `cost`, `statistics`); a table, whose columns follow from the task (`metrics`),
and curves.
"""
