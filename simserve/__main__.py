"""``python -m simserve`` is the ``simserve`` command."""

from simserve.cli.app import main

if __name__ == "__main__":
    main()
