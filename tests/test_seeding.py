from __future__ import annotations

from zelo.seeding import derived_seed, stream


def test_streams_repeat_and_do_not_share() -> None:
    assert derived_seed(0, "a", "b") == derived_seed(0, "a", "b")
    seeds = {derived_seed(s, *names) for s in (0, 1) for names in (("a", "b"), ("ab",), ("a",), ())}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert stream(0, "x").random() == stream(0, "x").random()
