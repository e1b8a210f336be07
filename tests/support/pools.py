"""A drawn pool of KV blocks against the state of its instant."""

from drawing import LOOK, near, pixel
from tracereel.film import theme


def blocks_agree(picture, run, pool, box, t_ns, seen):
    """Every block's pixels are the colours of its holders at that instant, filled as far as they have computed."""
    state = run.timeline.at(t_ns)
    computed = {occupant.request: occupant.computed_tokens for occupant in state.occupancy if occupant}
    for block, cell in enumerate(pool.cells(box)):
        fill, holders = pool.fill_of(cell), state.block_holders.get(block, ())
        for band, request in zip(fill.rows(max(len(holders), 1), 0), holders or (None,), strict=True):
            first = pixel(picture, band.x + 5, band.y + band.h / 2)
            last = pixel(picture, band.right - 5, band.y + band.h / 2)
            if request is None:
                assert near(first, LOOK(theme.mix(theme.GROUND, theme.LINE, 0.5)))
                seen["free"] += 1
                continue
            place = state.block_table(request).index(block)
            tokens = computed[request] - place * pool.block_tokens
            full = LOOK(pool.colours[request])
            # The first and the last of a block's tokens are as wide as they are: none stands only in part there.
            assert near(first, full) == (tokens * fill.w > 6 * pool.block_tokens), (t_ns, block)
            assert near(last, full) == (tokens >= pool.block_tokens), (t_ns, block)
            seen["shared" if len(holders) > 1 else "held"] += 1
