"""Variations of a model or a recipe, several seeds each, and one table that says which differences are not chance.

A study file (`study`) becomes runs that are checked before the first starts (`plan`), ordinary run folders made by
`cloverleaf train` in processes of their own (`launch`, `run`), numbers (`results`, `cost`, `statistics`) and a table.
"""
