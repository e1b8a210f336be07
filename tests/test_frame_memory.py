"""Frames are drawn into memory that has been encoded, and into none that still is to be."""

import weakref

import numpy as np
from tracereel.film.frame_memory import FrameMemory

FRAME = np.zeros((4, 6, 4), np.uint8)


def test_memory_is_used_again_once_it_has_been_given_back():
    memory = FrameMemory()
    first, second = memory.take(FRAME), memory.take(FRAME)
    assert not np.shares_memory(first, second)
    memory.give_back(first)
    third = memory.take(FRAME)
    assert third is first
    assert not np.shares_memory(memory.take(FRAME), third), "it is lent again, and to one alone"


def test_memory_that_came_from_elsewhere_or_was_given_back_before_is_left_alone():
    memory = FrameMemory()
    memory.give_back(FRAME)
    assert memory.take(FRAME) is not FRAME
    taken = memory.take(FRAME)
    memory.give_back(taken)
    memory.give_back(taken)
    assert memory.take(FRAME) is not memory.take(FRAME)


def test_frames_of_another_size_are_not_drawn_into_it():
    memory = FrameMemory()
    memory.give_back(memory.take(FRAME))
    larger = np.zeros((8, 6, 4), np.uint8)
    assert memory.take(larger).shape == larger.shape


def test_a_frame_that_nobody_gives_back_is_not_kept():
    memory = FrameMemory()
    taken = memory.take(FRAME)
    kept = weakref.ref(taken)
    del taken
    assert kept() is None
