"""Networks to compare with: whole-image CNNs, attention sampling and iterative patch selection.

Each is called with images and the rows to classify, and returns logits that do not depend on the other rows. ``loss``
is what training descends, ``pixels_read`` the share of each image's pixels that an answer reads, and
``pixels_at_once`` the number of pixels of an image that are in memory at a time.
"""
