"""``python -m hsd_cli`` is ``hsd``."""

from hsd_cli.app import main

if __name__ == "__main__":
    main()
