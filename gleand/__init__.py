"""gleand, a scrape daemon. Installed, the tree lies in `gleand.app`; only the launcher and the version live here."""

__version__ = "0.1.0"
