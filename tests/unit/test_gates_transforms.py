"""What transforms do to pictures, tables and texts, and what relations ask of answers."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from kohort_server.engine.interface import Signature, TensorSpec
from kohort_server.gates import pictures
from kohort_server.gates.answers import answers_of
from kohort_server.gates.errors import GateError
from kohort_server.gates.golden import Golden
from kohort_server.gates.layout import changed_table, layout_of, transformed
from kohort_server.gates.png import MOST_SIDE, png
from kohort_server.gates.quantities import Amount, Share
from kohort_server.gates.relations import holds
from kohort_server.gates.samples import Samples
from kohort_server.gates.spec import (
    Direction,
    Metamorphic,
    Order,
    Picture,
    RelationName,
)
from kohort_server.gates.transforms import CHANGES, Family, TransformName

PICTURES = st.tuples(
    st.integers(1, 3), st.integers(1, 17), st.integers(1, 17), st.sampled_from([1, 3])
).flatmap(lambda shape: arrays(np.float64, shape, elements=st.floats(0, 1, width=32)))
OF_PICTURES = sorted(name for name in TransformName if CHANGES[name].family is Family.PICTURE)
OF_TEXTS = sorted(name for name in TransformName if CHANGES[name].family is Family.TEXT)


@settings(max_examples=25)
@given(PICTURES, st.integers(0, 5), st.data())
@pytest.mark.parametrize("name", OF_PICTURES)
def test_a_picture_stays_a_picture_whatever_is_done_to_it(
    name: TransformName, before: pictures.Pictures, seed: int, data: st.DataObject
) -> None:
    change = CHANGES[name]
    amount = 0.0
    if change.usual is not None:
        amount = data.draw(st.floats(change.least, min(change.most, 30)))
    kept = before.copy()
    try:
        after = change.of(before, amount, seed)
    except GateError:
        assert before.shape[3] == 1
        return
    assert after.shape == before.shape
    assert after.min() >= -1e-12
    assert after.max() <= 1 + 1e-12
    assert np.array_equal(before, kept)
    assert np.array_equal(after, change.of(before, amount, seed))


@given(PICTURES)
def test_what_is_done_twice_is_undone(before: pictures.Pictures) -> None:
    for change in (pictures.invert, pictures.flip_horizontal, pictures.flip_vertical):
        assert np.allclose(change(change(before, 0, 0), 0, 0), before)
    if before.shape[3] == 3:
        turned = pictures.channel_order(before, 0, 0)
        assert np.array_equal(pictures.channel_order(turned, 0, 0), before)
        gray = pictures.grayscale(before, 0, 0)
        assert np.allclose(pictures.grayscale(gray, 0, 0), gray)


@given(PICTURES)
def test_nothing_happens_with_an_amount_of_nothing(before: pictures.Pictures) -> None:
    for change, amount in (
        (pictures.brightness, 0.0),
        (pictures.contrast, 1.0),
        (pictures.noise, 0.0),
        (pictures.rotate, 0.0),
        (pictures.rotate, 360.0),
        (pictures.crop, 0.0),
    ):
        assert np.allclose(change(before, amount, 0), before)


@settings(max_examples=20)
@given(st.integers(1, 12), st.integers(0, 100))
def test_a_quarter_turn_is_numpys(side: int, seed: int) -> None:
    before = np.random.default_rng(seed).random((2, side, side, 3))
    assert np.allclose(pictures.rotate(before, 90, 0), np.rot90(before, axes=(1, 2)))
    assert np.allclose(pictures.rotate(before, 180, 0), np.rot90(before, 2, axes=(1, 2)))


@given(PICTURES)
def test_a_picture_of_one_colour_stays_so_in_what_moves_or_blurs(before: pictures.Pictures) -> None:
    plain = np.broadcast_to(before[:, :1, :1], before.shape).copy()
    for change, amount in ((pictures.blur, 2.0), (pictures.rotate, 33.0), (pictures.crop, 0.4)):
        assert np.allclose(change(plain, amount, 0), plain)


def test_jpeg_of_the_best_quality_keeps_gray_pictures_to_the_level() -> None:
    before = np.random.default_rng(0).integers(0, 256, (2, 24, 17, 1)) / 255
    away = np.abs(pictures.jpeg(before, 100, 0) - before) * 255
    assert away.max() <= 2
    worse = [np.abs(pictures.jpeg(before, quality, 0) - before).mean() for quality in (90, 50, 10)]
    assert worse == sorted(worse)


def test_jpeg_is_what_libjpeg_makes_of_it() -> None:
    y, x = np.mgrid[:8, :8]
    levels = np.round(128 + 60 * np.sin(x / 2) + 50 * np.cos(y / 3 + x / 5))
    ours = pictures.jpeg(levels[None, :, :, None] / 255, 40, 0)[0, :, :, 0] * 255
    assert np.round(
        ours[::3]
    ).tolist() == [  # every third row that Pillow reads again of quality 40
        [179, 203, 224, 226, 213, 188, 150, 116],
        [154, 175, 190, 187, 171, 145, 106, 74],
        [104, 125, 142, 143, 134, 116, 87, 59],
    ]


def test_an_occluded_picture_has_a_black_rectangle_and_is_else_the_same() -> None:
    before = np.full((20, 8, 8, 1), 0.7)
    after = pictures.occlude(before, 0.25, 3)
    assert ((after == 0).sum(axis=(1, 2, 3)) == 4).all()
    assert len({int(row.argmin()) for row in after}) > 3


def samples_of(array: NDArray[Any]) -> Samples:
    return Samples(Golden("g.npz", {"x": array}, len(array)))


def gate(transform: TransformName, **how: Any) -> Metamorphic:
    how = {"relation": RelationName.SAME_TOP1, "at_least": Share(0.9), **how}
    return Metamorphic(transform=transform, **how)


def signature(shape: tuple[int, ...], datatype: str = "FP32") -> Signature:
    return Signature((TensorSpec("x", datatype, (-1, *shape)),), ())


@settings(max_examples=30)
@given(st.sampled_from(Order), st.integers(2, 6), st.integers(2, 6), st.integers(0, 50))
def test_pictures_come_back_as_they_were_from_any_layout(
    order: Order, height: int, width: int, seed: int
) -> None:
    shape = (3, height, width) if order is Order.FIRST else (height, width, 3)
    array = np.random.default_rng(seed).random((4, *shape)).astype(np.float32)
    normalised = (array - np.float32(0.4)) / np.float32(0.2)
    picture = Picture(range=(0, 1), channels=order, mean=(0.4,), std=(0.2,))
    layout = layout_of(picture, signature(shape), samples_of(normalised))
    told = layout.pictures(normalised)
    assert told.shape == (4, height, width, 3)
    axes = (0, 2, 3, 1) if order is Order.FIRST else (0, 1, 2, 3)
    assert np.allclose(told, array.transpose(axes), atol=1e-6)
    assert np.allclose(layout.array(told, normalised.dtype), normalised, atol=1e-5)


def test_flat_pictures_and_whole_numbers_are_changed_too() -> None:
    levels = np.array([[0, 255, 128, 7]], np.uint8)
    flat = Picture(range=(0, 255), height=2, width=2)
    after = transformed(
        gate(TransformName.INVERT), samples_of(levels), signature((4,), "UINT8"), flat
    )
    assert after.golden.inputs["x"].tolist() == [[255, 0, 127, 248]]
    assert after.golden.inputs["x"].dtype == np.uint8


@pytest.mark.parametrize(
    ("transform", "shape", "picture", "told"),
    [
        (TransformName.INVERT, (4,), None, "dataset.picture"),
        (TransformName.INVERT, (4,), Picture(range=(0, 1)), "height and width"),
        (TransformName.INVERT, (5,), Picture(range=(0, 1), height=2, width=2), "no picture of"),
        (TransformName.INVERT, (2, 2, 3), Picture(range=(0, 1), height=2, width=2), "channels"),
        (TransformName.INVERT, (3, 2, 2), Picture(range=(0, 0.1)), "outside"),
        (TransformName.GRAYSCALE, (1, 2, 2), Picture(range=(0, 1)), "3 channels"),
        (TransformName.FLIP_VERTICAL, (3, 1, 2), Picture(range=(0, 1)), "changes none"),
        (TransformName.UPPER_CASE, (4,), None, "holds numbers"),
        (TransformName.BLANK, (2, 2, 2), None, "no table"),
    ],
)
def test_a_transform_that_does_not_fit_is_refused_with_what_is_wrong(
    transform: TransformName, shape: tuple[int, ...], picture: Picture | None, told: str
) -> None:
    array = np.linspace(0, 1, 2 * int(np.prod(shape))).reshape(2, *shape).astype(np.float32)
    with pytest.raises(GateError, match=told):
        transformed(gate(transform), samples_of(array), signature(shape), picture)


@given(
    arrays(np.float64, st.tuples(st.integers(2, 20), st.integers(2, 5)), elements=st.floats(-9, 9))
)
def test_only_the_columns_that_were_named_change(table: NDArray[Any]) -> None:
    for name, amount in (
        (TransformName.SCALE, 3.0),
        (TransformName.SHIFT, 2.0),
        (TransformName.SHUFFLE, 0.0),
        (TransformName.BLANK, 0.0),
    ):
        changed = changed_table(CHANGES[name], "x", table, (1,), amount)
        assert np.array_equal(np.delete(changed, 1, axis=1), np.delete(table, 1, axis=1))
        expected = {
            TransformName.SCALE: table[:, 1] * 3,
            TransformName.SHIFT: table[:, 1] + 2,
            TransformName.SHUFFLE: np.sort(table[:, 1]),
            TransformName.BLANK: np.full(len(table), np.nan),
        }[name]
        told = np.sort(changed[:, 1]) if name is TransformName.SHUFFLE else changed[:, 1]
        assert np.array_equal(told, expected, equal_nan=True)


@given(st.text(max_size=30), st.integers(0, 20))
@pytest.mark.parametrize("name", OF_TEXTS)
def test_a_text_keeps_its_letters(name: TransformName, text: str, seed: int) -> None:
    after = CHANGES[name].of(text, 2.0, np.random.default_rng(seed))
    if name is TransformName.TYPOS:
        assert sorted(after) == sorted(text)
    elif name is TransformName.WHITESPACE:
        assert after.replace(" ", "") == text.replace(" ", "")
        assert after != text
    else:
        assert after.casefold() == CHANGES[name].of(after, 0, None).casefold()


def test_texts_stay_what_they_were_and_what_is_no_text_is_refused() -> None:
    texts = np.array(["Ab cd", b"\xc3\xa9t\xc3\xa9"], object)
    wanted = gate(TransformName.UPPER_CASE)
    after = transformed(wanted, samples_of(texts), signature((), "BYTES"), None)
    assert after.golden.inputs["x"].tolist() == ["AB CD", "ÉTÉ".encode()]
    with pytest.raises(GateError, match="not UTF-8"):
        transformed(wanted, samples_of(np.array([b"\xff"], object)), signature((), "BYTES"), None)


SCORES = arrays(np.float64, (6, 3), elements=st.floats(0, 1))


@given(SCORES)
def test_every_relation_holds_of_answers_that_do_not_change(scores: NDArray[Any]) -> None:
    answers = answers_of({"y": scores})
    for how in (
        {"relation": RelationName.SAME_TOP1},
        {"relation": RelationName.CLOSE_SCORES, "tolerance": Amount(0)},
        {"relation": RelationName.MONOTONE, "direction": Direction.INCREASING, "score": 1},
        {"relation": RelationName.MONOTONE, "direction": Direction.DECREASING, "score": 1},
    ):
        assert holds(gate(TransformName.INVERT, **how), answers, answers).all()


@given(SCORES, SCORES)
def test_relations_hold_of_which_samples_they_say(one: NDArray[Any], two: NDArray[Any]) -> None:
    before, after = answers_of({"y": one}), answers_of({"y": two})

    def held(**how: Any) -> list[bool]:
        found: list[bool] = holds(gate(TransformName.INVERT, **how), before, after).tolist()
        return found

    assert held() == [bool(a.argmax() == b.argmax()) for a, b in zip(one, two, strict=True)]
    assert held(relation=RelationName.CLOSE_SCORES, tolerance=Amount(0.3)) == [
        bool(np.abs(a - b).max() <= 0.3) for a, b in zip(one, two, strict=True)
    ]
    assert held(relation=RelationName.ABSTAINS, below=Share(0.5)) == [
        bool(row.max() < 0.5) for row in two
    ]
    up = held(relation=RelationName.MONOTONE, direction=Direction.INCREASING, score=0)
    assert up == [bool(b[0] >= a[0] - 1e-6) for a, b in zip(one, two, strict=True)]


@given(PICTURES)
def test_a_picture_in_a_report_is_a_png_of_a_bounded_size(picture: pictures.Pictures) -> None:
    file = png(np.tile(picture[0], (12, 12, 1)))
    assert file.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int.from_bytes(file[at : at + 4]) for at in (16, 20))
    assert max(width, height) <= MOST_SIDE
    colours = 3 if picture.shape[3] == 3 else 1
    data = file[file.index(b"IDAT") + 4 : -16]
    assert len(zlib.decompress(data)) == height * (1 + width * colours)
