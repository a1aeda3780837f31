"""`python -m koinon.cli` is the command too."""

from koinon.cli.main import main

if __name__ == "__main__":
    main()
