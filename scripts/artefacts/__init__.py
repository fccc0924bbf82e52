"""What comes from others: read from deploy/versions.toml, fetched, checked, locked and bundled. Run by scripts/mirror.py."""
