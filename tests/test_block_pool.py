"""The block pool by itself: counts, holders, and what free blocks still hold."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracereel.engine.block_pool import START, BlockPool


@settings(deadline=None)
@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.sampled_from(["take", "share", "give back"]), st.integers(0, 20)), max_size=60),
    st.booleans(),
)
def test_free_and_used_are_always_all_blocks(total, actions, remembers):
    pool = BlockPool(total)
    held: list[list[int]] = []
    for number, (action, count) in enumerate(actions):
        if action == "take":
            if count > pool.num_free:
                with pytest.raises(IndexError):
                    pool.take(count)
            else:
                blocks = pool.take(count)
                assert not set(blocks) & {block for others in held for block in others}
                held.append(blocks)
                for i, block in enumerate(blocks if remembers else []):
                    pool.remember(block, (START, (number, i)))
        elif action == "share" and held:
            blocks = held[count % len(held)]
            pool.share(blocks)
            held.append(blocks)
        elif held:
            pool.give_back(held.pop(count % len(held)))
        assert len({block for blocks in held for block in blocks}) == pool.num_used
        assert pool.num_free + pool.num_used == total


def test_a_block_cannot_be_returned_twice():
    pool = BlockPool(4)
    blocks = pool.take(2)
    pool.give_back(blocks)
    with pytest.raises(KeyError):
        pool.give_back(blocks)


def test_a_free_block_is_found_by_its_content_until_it_is_needed():
    pool = BlockPool(3)
    first, second = pool.take(2)
    a = (START, (1, 2))
    number = pool.remember(first, a)
    b = (number, (3, 4))
    pool.remember(second, b)
    pool.give_back([first, second])
    assert pool.num_free == 3
    assert pool.find(a) == (first, number)
    assert pool.take(1) == [2], "a blank block comes before one whose content is known"
    assert pool.take(1) == [second], "the end of a sequence is forgotten before its beginning"
    assert pool.find(b) is None
    assert pool.find(a) == (first, number)


def test_the_least_recently_used_goes_first():
    pool = BlockPool(3)
    blocks = pool.take(3)
    contents = [(START, (i,)) for i in range(3)]
    for block, content in zip(blocks, contents, strict=True):
        pool.remember(block, content)
        pool.give_back([block])
    pool.share([blocks[0]])
    pool.give_back([blocks[0]])
    assert [pool.take(1)[0] for _ in range(3)] == [blocks[1], blocks[2], blocks[0]]


def test_equal_hashes_do_not_make_equal_contents():
    token, twin = 5, 5 + sys.hash_info.modulus
    assert hash((START, (token,))) == hash((START, (twin,)))
    pool = BlockPool(2)
    (block,) = pool.take(1)
    pool.remember(block, (START, (token,)))
    assert pool.find((START, (twin,))) is None


def test_of_two_blocks_with_the_same_content_one_is_found():
    pool = BlockPool(2)
    first, second = pool.take(2)
    content = (START, (1,))
    assert pool.remember(first, content) == pool.remember(second, content)
    pool.give_back([second])
    assert pool.find(content) is not None
    assert pool.take(1) == [second], "the other one is blank"
