"""What was probably meant by a word, and what is wrong with brackets and quotes."""

from __future__ import annotations

import pytest

from aevae_jax import suggestions


@pytest.mark.parametrize(
    ("word", "names", "meant"),
    [
        ("lr", ["beta", "learning_rate"], "learning_rate"),
        ("LR", ["beta", "learning_rate"], "learning_rate"),
        ("beta-VAE", ["Autoencoder", "VAE"], "VAE"),
        ("conv", ["MLP", "Convolutional", "Conv"], "Conv"),  # the name itself before one that begins with it
        ("Convolution", ["MLP", "Conv"], "Conv"),
        ("auto", ["VAE", "Autoencoder"], "Autoencoder"),
        ("hor", ["Horizontal"], "Horizontal"),
        ("ho", ["Horizontal"], ""),  # too short to be a beginning
        ("bernouli", ["Normal", "Bernoulli"], "Bernoulli"),
        ("latent_dim", ["network", "latent"], "latent"),
        ("xyz", ["VAE", "MLP"], ""),
        ("", ["VAE", "MLP"], ""),
        ("vae", [], ""),
    ],
    ids=range(13),
)
def test_a_word_is_known_by_itself_its_initials_its_beginning_or_its_letters(word, names, meant):
    assert suggestions.meant_by(word, names) == meant


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", ""),
        ("VAE(latent=(1, 2), [3], {4: 5})", ""),
        ("f('(')", ""),
        ('f("it\'s (")', ""),
        ("(", "which lacks ) at the end"),
        ("f([{", "which lacks }]) at the end"),
        ("[" + "(" * 9, "which lacks )))))))) at the end"),
        ("f())", "whose ) closes nothing"),
        ("f(]", "whose ] closes nothing"),
        ("f({)", "whose ) closes nothing"),
        ("}", "whose } closes nothing"),
        ("f('a", "in which the quote ' is not closed"),
        ("f(\"a')", 'in which the quote " is not closed'),
        ("f('it's')", "in which the quote ' is not closed"),
    ],
    ids=range(14),
)
def test_brackets_and_quotes_that_do_not_match_are_named(text, fault):
    assert suggestions.unbalanced(text) == fault
