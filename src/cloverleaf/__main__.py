"""`python -m cloverleaf` is the `cloverleaf` command."""

from cloverleaf.cli.main import main

if __name__ == "__main__":
    main()
