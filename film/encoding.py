"""How x264 encodes films: values only.

Edges here are drawn and not filmed, so that what suits camera pictures costs time and gains nothing.
"""

ALWAYS = {
    "crf": "20",
    "thread_type": "frame",
    # Manim writes BT.601 without saying so, and players guess otherwise.
    "colorspace": "smpte170m",
    "color_range": "tv",
}
QUICKLY = {
    "preset": "superfast",
    # The look-ahead of veryfast, without frames between frames.
    "rc-lookahead": "10",
    "mbtree": "1",
    "bf": "0",
    # Smoothing the blocks' borders only blurs edges; vectors finer than a pixel and larger transforms make no film of
    # ours smaller. Without them a third less work, and a film nearer to what was painted.
    "x264-params": "subme=0:8x8dct=0:no-deblock=1",
}
"""What holds besides where no preset is asked for."""
