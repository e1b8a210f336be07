import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracereel.engine.block_pool import BlockPool


@given(st.integers(1, 40), st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=60))
def test_free_and_used_are_always_all_blocks(total, actions):
    pool = BlockPool(total)
    held: list[list[int]] = []
    for take, count in actions:
        if take:
            if count > pool.num_free:
                with pytest.raises(IndexError):
                    pool.take(count)
            else:
                held.append(pool.take(count))
        elif held:
            pool.give_back(held.pop(count % len(held)))
        everything = [block for blocks in held for block in blocks]
        assert len(everything) == len(set(everything)) == pool.num_used
        assert pool.num_free + pool.num_used == total
        assert set(everything) <= set(range(total))


def test_a_block_cannot_be_returned_twice():
    pool = BlockPool(4)
    blocks = pool.take(2)
    pool.give_back(blocks)
    with pytest.raises(KeyError):
        pool.give_back(blocks)
