"""Intervals on a stack: what is pushed is popped, at the cost of its probability, and damage shows."""

from __future__ import annotations

import decimal
import hashlib

import numpy as np
import pytest

from aevae_jax.compression import elements, tables
from aevae_jax.compression.codecs import bits_back, independent, sequence
from aevae_jax.compression.elements import TOTAL
from aevae_jax.compression.stack import Damaged, Dice, Nothing, Stack, Tally


def drawn_table(generator, shape, levels):
    return elements.Table.of(generator.integers(-200, 1, (*shape, levels)))


def elements_of(generator, rows):
    """One of each kind of element, with symbols drawn at random."""
    levels = 50
    logistics = np.concatenate(
        [generator.integers(-60, 1, (rows, 7, 3)), generator.integers(0, 16 * levels, (rows, 7, 3)),
         generator.integers(-16, 60, (rows, 7, 3))], -1)  # fmt: skip
    yield elements.Logistics(logistics, levels), generator.integers(0, levels, (rows, 7))
    yield drawn_table(generator, (rows, 7), 9), generator.integers(0, 9, (rows, 7))
    yield elements.Uniform(1 << 14, (rows, 7)), generator.integers(0, 1 << 14, (rows, 7))
    yield elements.Uniform(256, (rows, 7)), generator.integers(0, 256, (rows, 7))


def gaussians(generator, rows):
    return elements.Gaussians(generator.integers(-8000, 8000, (rows, 9)), generator.integers(-60, 10, (rows, 9)))


@pytest.mark.parametrize("kind", range(4))
def test_what_is_pushed_is_popped_and_leaves_the_stack_as_it_was(kind):
    generator = np.random.default_rng(kind)
    stack = Stack(100)
    before = stack.payload()
    for rows in (1, 3, 200):
        element, symbols = list(elements_of(generator, rows))[kind]
        elements.push(stack, element, symbols)
        assert np.array_equal(elements.pop(stack, element), symbols)
        assert stack.payload() == before
    stack.check_empty()


def test_what_is_popped_can_be_pushed_back_also_from_a_stack_that_runs_out():
    for words in (0, 3, 1000):
        stack, element = Stack(words), gaussians(np.random.default_rng(1), 40)
        before = stack.payload()
        popped = elements.pop(stack, element)
        elements.push(stack, element, popped)
        assert stack.payload() == before


def test_symbols_cost_their_information():
    """The length of the stack is that of Shannon, within a hundredth of a bit per symbol."""
    generator = np.random.default_rng(2)
    for element, symbols in elements_of(generator, 400):
        stack, tally = Stack(2000), Tally(400, Stack(0))
        before = len(stack.payload())
        elements.push(stack, element, symbols)
        elements.push(tally, element, symbols)
        length = elements.interval(element, symbols)[1]
        information = -np.log2(length / TOTAL)
        np.testing.assert_allclose(tally.bits, information.reshape(400, -1).sum(1))
        assert 8 * (len(stack.payload()) - before) == pytest.approx(information.sum(), abs=0.01 * symbols.size + 32)


@pytest.mark.parametrize("n", [1, 784, 2**20 + 3])
def test_costs_are_off_by_no_more_than_is_said(n):
    """Of lengths whose logarithms are known to 40 digits. A millionth of a unit would not do for many elements."""
    lengths, tally = (3, 5, 40_961), Tally(2, Nothing())
    length = np.tile(np.resize(lengths, n), (2, 1))
    tally.push(np.zeros_like(length), length, 16)
    tally.push(np.zeros_like(length[:, :0]), length[:, :0], 16)
    with decimal.localcontext(prec=40):
        bits = [16 - decimal.Decimal(f).ln() / decimal.Decimal(2).ln() for f in lengths]
        exact = sum(b * len(range(k, n, 3)) for k, b in enumerate(bits))
        off = [abs(decimal.Decimal(float(b)) - exact) for b in tally.bits]
    assert (np.array(off, float) <= tally.error).all()
    margin = 2 * tally.error * np.log(2) * tables.GRID
    assert (margin < (1e-8 if n < 1000 else 1e-3)).all()
    assert (margin > 1e-6).all() == (n > 1000)


def test_bits_that_are_nearly_certain_cost_what_they_are_worth():
    """Within a thousandth of a bit: of 784 pixels of a bit image most are such."""
    for logit in (4, 60, 75, 90, 130):
        element = elements.Table.of(np.broadcast_to([0, logit], (100, 784, 2)))
        stack, tally, ones = Stack(40_000), Tally(100, Stack(0)), np.ones((100, 784), int)
        before = len(stack.payload())
        elements.push(stack, element, ones)
        elements.push(tally, element, ones)
        assert 8 * (len(stack.payload()) - before) == pytest.approx(tally.bits.sum(), abs=78 + 64)


def test_popped_symbols_have_the_frequencies_of_their_intervals():
    element = elements.Table(np.broadcast_to([0, 1000, 1000, 40000, TOTAL], (60000, 5)))
    found = np.bincount(elements.pop(Dice(np.random.default_rng(0)), element), minlength=4) / 60000
    np.testing.assert_allclose(found, np.diff([0, 1000, 1000, 40000, TOTAL]) / TOTAL, atol=0.008)
    from_stack = elements.pop(Stack(60000), element)
    np.testing.assert_allclose(np.bincount(from_stack, minlength=4) / 60000, found, atol=0.01)


def test_bits_back_costs_likelihood_and_prior_less_the_posterior():
    generator = np.random.default_rng(3)
    tables_of_x = generator.integers(-100, 1, (6, 5, 12))  # z -> x
    tables_of_z = generator.integers(-100, 1, (12, 6))  # x[:, 0] -> z
    prior = elements.Table.of(np.broadcast_to(generator.integers(-50, 1, 6), (30, 6)))
    codec = bits_back(
        independent(prior),
        lambda z: independent(elements.Table.of(tables_of_x[z])),
        lambda x: independent(elements.Table.of(tables_of_z[x[:, 0]], floor=0)),
    )
    x = generator.integers(0, 12, (30, 5))
    stack = Stack(50)
    before = stack.payload()
    codec.push(stack, x)
    assert np.array_equal(codec.pop(stack), x)
    assert stack.payload() == before
    tally = Tally(30, Dice(np.random.default_rng(4)))
    z = independent(elements.Table.of(tables_of_z[x[:, 0]], floor=0)).pop(Dice(np.random.default_rng(4)))
    codec.push(tally, x)

    def cost(table, k):
        return -np.log2(elements.interval(table, k)[1] / TOTAL)

    expected = cost(prior, z) + cost(elements.Table.of(tables_of_x[z]), x).sum(1)
    expected -= cost(elements.Table.of(tables_of_z[x[:, 0]], floor=0), z)
    np.testing.assert_allclose(tally.bits, expected)


def test_tuples_are_coded_by_the_chain_rule():
    generator = np.random.default_rng(5)
    first, second = drawn_table(generator, (20,), 4), generator.integers(-100, 1, (4, 8))

    def next_of(before):
        return independent(elements.Table.of(second[before[0]]) if before else first)

    pair = generator.integers(0, 4, 20), generator.integers(0, 8, 20)
    stack, codec = Stack(20), sequence(next_of, 2)
    codec.push(stack, pair)
    found = codec.pop(stack)
    assert np.array_equal(found[0], pair[0])
    assert np.array_equal(found[1], pair[1])
    stack.check_empty()


def test_a_symbol_that_nobody_can_have_pushed_is_damaged():
    never = elements.Table(np.array([[0, 0, TOTAL]]))
    with pytest.raises(Damaged, match="impossible"):
        elements.push(Stack(4), never, np.array([0]))


@pytest.mark.parametrize("payload", [b"abc", b"\0" * 8, b"abcd\0\0\0\0"])
def test_what_no_stack_has_is_damaged(payload):
    with pytest.raises(Damaged, match="chunk"):
        Stack(4, payload)


def test_a_stack_that_does_not_end_with_the_seed_is_damaged():
    payload = bytearray(Stack(4).payload())
    Stack(4, bytes(payload)).check_empty()
    payload[5] ^= 1
    with pytest.raises(Damaged, match="other bits at its end"):
        Stack(4, bytes(payload)).check_empty()
    stack = Stack(4, b"abcdefgh")
    with pytest.raises(Damaged, match="other bits at its end"):
        stack.check_empty()
    stack = Stack(4)
    elements.push(stack, elements.Uniform(256, (1,)), np.array([7]))
    with pytest.raises(Damaged, match="other bits at its end"):
        stack.check_empty()


def test_another_platform_s_tables_are_refused(monkeypatch):
    made = tables.made()
    digest = hashlib.sha256(b"".join(table.astype("<i8").tobytes() for table in made)).hexdigest()
    assert digest == tables.DIGEST
    made.logistic[5] += 1
    monkeypatch.setattr(tables, "made", lambda: made)
    tables.tables.cache_clear()
    with pytest.raises(RuntimeError, match="tables of the codec: got sha256"):
        tables.tables()
    monkeypatch.undo()
    tables.tables.cache_clear()
