"""Structural similarity indices: the table, and how to compute it without any network.

>>> from suture import indices
>>> indices.of_matrices(x, y)["cka"].value
>>> indices.of_matrices(x, y, ["svcca:0.9", "rsa_kendall", my_function], jackknife=20)

Names, arguments and groups stand in `suture.indices.table`; what each index is, in `INDICES`.
"""
