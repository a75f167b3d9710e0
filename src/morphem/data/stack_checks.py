"""What can be wrong with the stacks of a set and with their images: each check yields findings.

Axes: n particles, m images looked at.
"""

from collections.abc import Iterator

import numpy as np

from morphem.data import contrast, tables
from morphem.data.evidence import Evidence
from morphem.data.findings import SHOWN, Finding, listed, merged, rows


def missing(e: Evidence) -> Iterator[Finding]:
    """Stacks that were not found."""
    used = np.flatnonzero(e.last_s >= 0)
    absent = [i for i in used if not e.stacks[i].exists()]
    if absent:
        names, stack_n = np.array(e.table.images()[0], dtype=object), e.stack_n
        datadir = f"{e.source.datadir}, " if e.source.datadir else ""
        places = f"{datadir}{e.table.path.absolute().parent}, the folders above it and the current one"
        shown = listed([names[np.argmax(stack_n == i)] for i in absent[: SHOWN + 1]], len(absent))
        what = f"{len(absent):,} of {len(used):,} stacks not found in {places}: {shown}"
        yield Finding(
            "error", what, str(e.table.path), "give the folder that the image names start from with --datadir"
        )


def broken(e: Evidence) -> Iterator[Finding]:
    """Stacks that cannot be read: truncated, of an unknown mode, no MRC files at all."""
    found = list(merged(e.broken))
    yield from found[:SHOWN]
    if len(found) > SHOWN:
        others = [finding.where for finding in found[SHOWN:]]
        yield Finding("error", f"{len(others):,} more stacks cannot be read", listed(others), "copy the files again")


def unfit(e: Evidence) -> Iterator[Finding]:
    """Stacks that are not square, even, of the table's box, or lack slices that rows name."""
    sentences = [sentence for i in e.headers if e.last_s[i] >= 0 for sentence in e.complaints(i)]
    return merged(Finding.of(sentence) for sentence in sentences)


def header_pixels(e: Evidence) -> Iterator[Finding]:
    """Headers whose pixel size differs from the table's by more than 1 %; the table's is the one used."""
    pixel_A_n = tables.pixel_A_of(e.table)
    _, first = np.unique(e.stack_n, return_index=True)
    said = [(int(e.stack_n[row]), pixel_A_n[row]) for row in first if int(e.stack_n[row]) in e.headers]
    return merged(
        Finding(
            "warning",
            f"its header says {e.headers[stack].pixel_A:.4g} Å per pixel, the table {pixel_A:.4g} Å, which is used",
            str(e.stacks[stack]),
            "make sure which is right",
        )
        for stack, pixel_A in said
        if e.headers[stack].pixel_A > 0 and abs(e.headers[stack].pixel_A / pixel_A - 1) > 0.01
    )


def stack_notices(e: Evidence) -> Iterator[Finding]:
    """What the reader of a stack noticed."""
    notices = [(path, notice) for path, header in e.headers.items() for notice in header.notices]
    remedy = "nothing to do if the file was copied whole"
    return merged(Finding("note", notice, str(e.stacks[i]), remedy) for i, notice in notices)


def doubles(e: Evidence) -> Iterator[Finding]:
    """Rows that name an image which an earlier row names."""
    resolved = [str(path.resolve()) for path in e.stacks]
    _, file_s = np.unique(resolved, return_inverse=True)
    pair_n2 = np.stack([file_s[e.stack_n] if len(file_s) else e.number_n, e.slice_n], 1)
    _, first = np.unique(pair_n2, axis=0, return_index=True)
    again_n = np.ones(len(e), bool)
    again_n[first] = False
    if again_n.any():
        what = f"the same image as in an earlier row ({again_n.sum():,} in all)"
        remedy = "remove them, unless the set was expanded by its symmetry"
        yield Finding("warning", what, rows(again_n, e.number_n), remedy)


def values(e: Evidence) -> Iterator[Finding]:
    """Images that are constant or hold pixels that are not finite."""
    if e.sample is None or not e.sample.empty_m.any():
        return
    empty_n = np.isin(np.arange(len(e)), e.sample.row_m[e.sample.empty_m])
    names, _ = e.table.images()
    places = [f"{e.slice_n[row] + 1:06d}@{names[row]}" for row in np.flatnonzero(empty_n)]
    what = f"{empty_n.sum():,} of {len(e.sample.row_m):,} images looked at are constant or not finite"
    yield Finding("error", what, f"{rows(empty_n, e.number_n)} ({listed(places)})", "remove these rows")


def sign(e: Evidence) -> Iterator[Finding]:
    """Particles of the other contrast than the one they are read with."""
    said = contrast.complaint(e.sample.certainty, e.contrast, e.has_ctf) if e.sample else None
    if said:
        yield Finding.of(f"{e.table.path}: {said}", "warning")


CHECKS = (missing, broken, unfit, values, header_pixels, doubles, sign, stack_notices)
