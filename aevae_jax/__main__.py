"""`python -m aevae_jax` is `aevae`."""

from aevae_jax.cli.main import main

if __name__ == "__main__":
    main()
