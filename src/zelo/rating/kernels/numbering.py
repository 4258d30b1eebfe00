"""Ids of documents as numbers within their queries."""

from __future__ import annotations

import numpy as np

from zelo.rating.kernels.compiling import ELEMENTWISE, compiled


@compiled(**ELEMENTWISE)
def number_documents(query, a, b, codes, i, j, found):
    """Number the documents of each query from 0 in the order in which they are first named.

    `query` (M,) ascends; `a`, `b` (M,) are codes below `codes` of what is compared. Fills `i`, `j`
    (M,) with numbers, and `found` (2 M,) with the code of each numbered document, query after
    query; returns how many there are.
    """
    owner, number = np.full(codes, -1), np.empty(codes, np.int64)
    total, first = 0, 0
    for m in range(len(query)):
        if m == 0 or query[m] != query[m - 1]:
            first = total
        for code in (a[m], b[m]):
            if owner[code] != query[m]:
                owner[code] = query[m]
                number[code] = total - first
                found[total] = code
                total += 1
        i[m], j[m] = number[a[m]], number[b[m]]
    return total
